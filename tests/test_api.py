"""The API reference names everything public, and everything public says what its shapes are."""

import ast
import re

import apipages
import pytest
import yaml
from apipages import BOOK, PACKAGE, Entry, Reader, entries, walk

FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
FOLDERS = {"check", "page"}  # what their `__init__` offers
MODULES = {path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("_")} | FOLDERS
TENSORS = re.compile(r"\b(Tensors?|ndarray|State|Row|OneHots|DiagNormal)\b|replay\.Sequence")
SHAPES = re.compile(r"\[(?!-?\d+, -?\d+\])[^\[\]]*\]|\bany shape\b", re.I)  # [0, 1] is a range
PAGES = {
    stem: apipages.filled((BOOK / f"{stem}.md").read_text()) for stem in apipages.pages().values()
}
RETURNS = "def f(x: Tensor) -> Tensor:\n    "
REFUSING = {e.name for e in entries("guard") if re.match("Refuses|Raises", e.doc)}
PRICED = re.compile(r"(^|_|\.)(loss|losses|return|kl|entropy|log_prob)$")  # what has a unit
SOURCE = re.compile(r"\bSources?:\s")
UNITS = re.compile(r"\b(nats?|units?)\b", re.I)


def mute(entry: Entry) -> str:
    """What is missing in an entry, "" if nothing is."""
    if not entry.doc:
        return "has no comment" if entry.kind == "data" else "has no docstring"
    tensors = entry.kind != "class" and TENSORS.search(entry.signature)
    if tensors and not SHAPES.search(entry.doc):
        return "names no shapes ([T,B,...], [] for a number, or the words: any shape)"
    bare = [
        code for code, words in entry.fields if TENSORS.search(code) and not SHAPES.search(words)
    ]
    bare = [code for code in bare if "Callable" not in code]
    if bare and not SHAPES.search(entry.doc):
        return f"has fields without shapes: {bare}"
    return ""


def refusing(node: ast.AST) -> bool:
    """Whether a function, or what stands directly in a class, raises ValueError."""
    calls = {ast.unparse(x.func) for x in ast.walk(node) if isinstance(x, ast.Call)}
    raised = (x.exc for x in ast.walk(node) if isinstance(x, ast.Raise) and x.exc)
    return bool(calls & REFUSING) or any("ValueError" in ast.unparse(x) for x in raised)


def silent(text: str) -> list[str]:
    """What raises ValueError in a module without saying so, nor its class, nor the module."""
    tree, found = ast.parse(text), []
    if "ValueError" in (ast.get_docstring(tree) or ""):
        return []
    for node in tree.body:
        if not isinstance(node, FUNCTIONS | ast.ClassDef):
            continue
        told = "ValueError" in (ast.get_docstring(node) or "")
        inner = [x for x in node.body if isinstance(x, FUNCTIONS)] if not told else []
        for one in [node] if isinstance(node, FUNCTIONS) and not told else inner:
            if refusing(one) and "ValueError" not in (ast.get_docstring(one) or ""):
                found.append(one.name if one is node else f"{node.name}.{one.name}")
    return [name for name in found if not re.search(r"(^|\.)_(?!_)", name)]


def read(text: str) -> list[Entry]:
    """The entries of a piece of code."""
    reader = Reader(text)
    return [e for node in reader.tree.body for e in reader.entries(node)]


def test_every_module_has_its_place_on_one_page():
    places = [m for text in BOOK.glob("api*.md") for m in apipages.PLACE.findall(text.read_text())]
    assert sorted(places) == sorted([*MODULES, "dreamer_lite"])


def test_every_page_of_the_reference_is_in_the_contents():
    listed = set(re.findall(r"file: (api[\w-]*)", (BOOK / "_toc.yml").read_text()))
    assert listed == set(PAGES) | {"api"}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_every_public_name_is_on_its_page_with_a_docstring_that_names_its_shapes(module):
    found = list(walk(entries(module)))
    assert [f"{module}.{e.name} {why}" for e in found if (why := mute(e))] == []
    page = PAGES[apipages.pages()[module]]
    for entry in found:
        head = f"{{py:{entry.kind}}} {entry.name.rpartition('.')[2]}"
        assert re.search(rf"^`+{re.escape(head)}(?!\w)", page, re.M), entry.name


@pytest.mark.parametrize("module", sorted(MODULES - FOLDERS))
def test_nothing_public_is_left_out(module):
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    kinds = ast.FunctionDef | ast.ClassDef
    defined = {x.name for x in tree.body if isinstance(x, kinds) and not x.name.startswith("_")}
    assert defined <= {entry.name for entry in entries(module)}


@pytest.mark.parametrize("module", sorted(MODULES - FOLDERS))
def test_what_is_refused_is_said(module):
    assert silent((PACKAGE / f"{module}.py").read_text()) == []


def test_every_labeled_equation_says_where_it_is_from():
    rows = yaml.safe_load((BOOK / "equations.yml").read_text())
    known = {f"{m}.{e.name}": e.doc for m in MODULES - FOLDERS for e in walk(entries(m))}
    symbols = {row["symbol"] for row in rows.values() if row.get("symbol")}
    assert [name for name in symbols if not SOURCE.search(known[name])] == []


@pytest.mark.parametrize("module", sorted(MODULES - FOLDERS))
def test_losses_returns_divergences_and_entropies_have_units(module):
    priced = [e for e in walk(entries(module)) if PRICED.search(e.name) and e.kind != "data"]
    assert [e.name for e in priced if not UNITS.search(e.doc)] == []


def test_the_names_of_the_package_itself_are_links_to_entries():
    known = {f"dreamer_lite.{m}.{e.name}" for m in MODULES for e in entries(m)}
    assert set(re.findall(r"<(dreamer_lite\.[\w.]+)>", PAGES["api"])) <= known
    assert "`lambda_return <dreamer_lite.returns.lambda_return>`" in PAGES["api"]


def test_equations_and_entries_know_each_other():
    rows = yaml.safe_load((BOOK / "equations.yml").read_text())
    for name, row in rows.items():
        if row.get("symbol") and f"eq-{name}" in apipages.labels():
            module = row["symbol"].split(".")[0]
            assert f"{{eq}}`eq-{name}`" in PAGES[apipages.pages()[module]], name
    box = '<a href="_code/dreamer_lite/returns.py.html#lambda_return"><code>x</code></a>'
    told = apipages.CODE_LINK.sub(apipages.with_entry, box)
    assert 'href="api-formulas.html#dreamer_lite.returns.lambda_return"' in told


@pytest.mark.parametrize(
    "text, why",
    [
        ("def f(x: int):\n    pass", "has no docstring"),
        ("SIZE = 3", "has no comment"),
        (RETURNS + '"""Doubles."""', "names no shapes"),
        ("class A(NamedTuple):\n    '''A.'''\n    x: Tensor  # big", "has fields without shapes"),
        (RETURNS + '"""Doubles.  [T,B] -> [T,B]."""', ""),
        (RETURNS + '"""Doubles.  Any shape."""', ""),
        ("class A(NamedTuple):\n    '''A.'''\n    x: Tensor  # [T,B]", ""),
        ("SIZE = 3  # pixels", ""),
        ("# pixels\nSIZE = (\n    3\n)", ""),
    ],
)
def test_what_says_nothing_is_noticed(text, why):
    (entry,) = read(text)
    assert mute(entry).startswith(why) and bool(mute(entry)) == bool(why)


@pytest.mark.parametrize(
    "text, found",
    [
        ("def f(x):\n    floats('', x=x)", ["f"]),
        ("def f(x):\n    raise ValueError('no')", ["f"]),
        ("class A:\n    def g(self, n):\n        whole(1, '', n=n)", ["A.g"]),
        ("class A:\n    def __init__(self, n):\n        whole(1, '', n=n)", ["A.__init__"]),
        ("def _f(x):\n    floats('', x=x)", []),
        ("def f(x):\n    '''ValueError for NaN.'''\n    floats('', x=x)", []),
        ("class A:\n    '''ValueError.'''\n    def g(self, n):\n        whole(1, '', n=n)", []),
        ("'''ValueError.'''\ndef f(x):\n    floats('', x=x)", []),
        ("def f(x):\n    return x", []),
    ],
)
def test_who_refuses_without_a_word_is_noticed(text, found):
    assert silent(text) == found


def test_what_is_not_for_everyone_is_left_out():
    text = "_A = 1\ndef _f(): pass\nclass B:\n    def _g(self): pass\n    def __call__(self): pass"
    assert [e.name for e in walk(read(text))] == ["B", "B.__call__"]


def test_a_docstring_becomes_text_drawings_and_labeled_lines():
    doc = """R_t: a < b * c of [H,N], as *full* as `x[0]`.

        Rₜ = rₜ₊₁   [vₜ₊₁]

    More. Units: reward. Still more.
    Source: V3v2. ValueError for NaN.
    """
    assert apipages.prose(doc).split("\n\n") == [
        r"R_t: a \< b \* c of `[H,N]`, as *full* as `x[0]`.",
        "```text\nR_t = r_{t+1}   [v_{t+1}]\n```",
        "More. Still more.",
        "- **Units:** reward.\n- **Source:** V3v2.\n- **Errors:** ValueError for NaN.",
    ]


def test_types_of_the_package_are_written_in_full_so_that_they_are_links():
    text = "from dreamer_lite.rssm import State\ndef f(s: 'State | None' = None) -> State: pass"
    (entry,) = read(text)
    full = "dreamer_lite.rssm.State"
    assert entry.signature == f"(s: {full} | None=None) -> {full}"
