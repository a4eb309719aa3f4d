"""Sphinx extension: the API reference, written from the package's own signatures and docstrings.

A page says with a comment, `<!-- api: returns -->`, where the entries of a module stand. Nothing is
imported: a page is read from the source, so it also knows the comments beside fields and constants.
"""

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import codepages
import yaml

ROOT = Path(__file__).resolve().parent.parent
PACKAGE, BOOK = ROOT / "dreamer_lite", ROOT / "book"
PLACE = re.compile(r"^<!-- api: ([\w.]+) -->$", re.M)
SMALL = str.maketrans("ₜᵢ₀₁₂₃₄₅₆₇₈₉₊₋", "ti0123456789+-")
INDEX = re.compile("[₀-₉₊₋]*[ₜᵢ][₀-₉₊₋ₜᵢ]*")
SHAPE = re.compile(r"(?<![\w`\]])\[[^\s\[\]`]*\](?!`)")  # [...,H,W,C], [] and the like
ERRORS = r"(?:Raises |(?<!Raises ))ValueError (?:for|if|of|unless|where|with)\b"
UNITS = r"Units: .*?\.(?= |$)"  # one sentence; the others go on to the next label
LABEL = re.compile(rf"{UNITS}|Sources?: |{ERRORS}")
SENTENCE = re.compile(rf"({UNITS})|(?:(?<=\s)|^)(?=Sources?: |{ERRORS})")
CODE_LINK = re.compile(
    r'<a href="_code/dreamer_lite/(\w+)\.py\.html#([\w.]+)"><code>.*?</code></a>'
)


@dataclass
class Entry:
    """A public name: what it is called, how it is used, and what its author says of it."""

    kind: str  # function, class, method, property, data
    name: str  # inside its module: "RSSM.step"
    signature: str = ""  # "(x: Tensor) -> Tensor"; of data its value
    doc: str = ""
    fields: list[tuple[str, str]] = field(default_factory=list)  # `size: int = 30`, its comment
    members: list["Entry"] = field(default_factory=list)


# --- reading -------------------------------------------------------------------------------------


def path_of(module: str) -> Path:
    """The file of a module: "returns", "page" (a folder), "page.box"."""
    path = PACKAGE / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def entries(module: str) -> tuple[Entry, ...]:
    """All public names of a module in the order of its source; of a folder, those it offers."""
    text = path_of(module).read_text(encoding="utf-8")
    if path_of(module).name == "__init__.py":
        return tuple(offered(module, ast.parse(text)))
    reader = Reader(text)
    return tuple(e for node in reader.tree.body for e in reader.entries(node))


def offered(package: str, tree: ast.Module) -> Iterator[Entry]:
    """What a folder's `__init__` imports from its own modules."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dreamer_lite."):
            module = node.module.removeprefix("dreamer_lite.")
            wanted = {alias.name for alias in node.names}
            yield from (e for e in entries(module) if e.name in wanted)


class Reader:
    """The text of a module with what its tree does not hold: comments."""

    def __init__(self, text: str):
        self.lines, self.tree = text.splitlines(), ast.parse(text)
        self.origin = dict(origins(self.tree))

    def entries(self, node: ast.stmt, owner: str = "") -> Iterator[Entry]:
        """The entry of a statement, if it defines something public."""
        name = getattr(node, "name", "")
        if isinstance(node, ast.FunctionDef) and public(name, owner):
            yield self.function(node, owner)
        elif isinstance(node, ast.ClassDef) and public(name):
            yield self.cls(node)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and not owner:
            yield from self.data(node)

    def function(self, node: ast.FunctionDef, owner: str) -> Entry:
        marks = {ast.unparse(d).split("(")[0] for d in node.decorator_list}
        kind = "property" if marks & {"property", "cached_property"} else "method"
        args = node.args
        if owner and "staticmethod" not in marks:
            args.args = args.args[1:]  # without self
        answer = f" -> {self.written(node.returns)}" if node.returns else ""
        signature = answer if kind == "property" else f"({self.arguments(args)}){answer}"
        name = f"{owner}.{node.name}" if owner else node.name
        return Entry(kind if owner else "function", name, signature, ast.get_docstring(node) or "")

    def arguments(self, args: ast.arguments) -> str:
        for arg in ast.walk(args):
            if isinstance(arg, ast.arg) and arg.annotation:
                arg.annotation = ast.parse(self.written(arg.annotation), mode="eval").body
        return ast.unparse(args)

    def written(self, annotation: ast.expr) -> str:
        """A type with the full names of what the package defines, so that it can be linked."""
        quoted = isinstance(annotation, ast.Constant) and isinstance(annotation.value, str)
        text = annotation.value if quoted else ast.unparse(annotation)
        return re.sub(r"(?<![\w.])\w+(?:\.\w+)*", lambda m: self.origin.get(m[0], m[0]), text)

    def cls(self, node: ast.ClassDef) -> Entry:
        members = [e for x in node.body for e in self.entries(x, node.name)]
        made = [x for x in node.body if getattr(x, "name", "") == "__init__"]
        signature = self.function(made[0], node.name).signature if made else ""
        fields = [] if made else [f for x in node.body for f in self.field(x)]
        return Entry("class", node.name, signature, ast.get_docstring(node) or "", fields, members)

    def field(self, node: ast.stmt) -> Iterator[tuple[str, str]]:
        if isinstance(node, ast.AnnAssign) and public(node.target.id):
            yield ast.unparse(node).replace("'", '"'), self.comment(node)

    def data(self, node: ast.Assign | ast.AnnAssign) -> Iterator[Entry]:
        """Constants, and names for types."""
        targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
        names = [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
        value = ast.unparse(node.value) if node.value else ""
        alone = len(names) == 1 and len(value) <= 60
        for name in filter(public, names):
            yield Entry("data", name, value if alone else "", self.comment(node))

    def comment(self, node: ast.stmt) -> str:
        """What stands behind a statement, or in whole lines above it."""
        behind = self.lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode()
        if found := re.search(r"#\s*(?!noqa|fmt|type:)(.*)", behind):
            return found[1]
        above, n = [], node.lineno - 2
        while n >= 0 and re.match(r"\s*#(?! *-{3})", self.lines[n]):
            above.insert(0, self.lines[n].strip(" #"))
            n -= 1
        return " ".join(above)


def public(name: str, owner: str = "") -> bool:
    """Whether a name is for everyone; calling an object is, too."""
    return bool(name) and not name.startswith("_") or bool(owner) and name == "__call__"


def origins(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """{name: full name} of what a module takes from the others of the package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            inside = (node.module or "").startswith("dreamer_lite") or node.level
            module = (node.module or "").removeprefix("dreamer_lite").strip(".")
            prefix = ".".join(filter(None, ["dreamer_lite", module]))
            for alias in node.names if inside else []:
                yield alias.asname or alias.name, f"{prefix}.{alias.name}"
                if not module:  # `from dreamer_lite import envs`, then envs.VectorEnv
                    for e in entries_or_none(alias.name):
                        yield f"{alias.name}.{e}", f"{prefix}.{alias.name}.{e}"


def entries_or_none(module: str) -> list[str]:
    """The classes of a module, if there is one of this name."""
    path = path_of(module)
    tree = ast.parse(path.read_text(encoding="utf-8")) if path.exists() else ast.Module([], [])
    return [x.name for x in tree.body if isinstance(x, ast.ClassDef)]


def walk(found: tuple[Entry, ...] | list[Entry]) -> Iterator[Entry]:
    """Entries and their members."""
    for entry in found:
        yield entry
        yield from walk(entry.members)


# --- writing -------------------------------------------------------------------------------------


def markdown(module: str) -> str:
    """A module's own words and its entries, in MyST."""
    about = ast.get_docstring(ast.parse(path_of(module).read_text(encoding="utf-8"))) or ""
    here = f"```{{py:currentmodule}} dreamer_lite.{module}\n```\n"
    return "\n\n".join([here + prose(about), *(block(module, e) for e in entries(module))])


def block(module: str, entry: Entry) -> str:
    """One entry as a directive of Sphinx's Python domain."""
    fence = "``````" if entry.kind == "class" else "````"
    name = entry.name.rpartition(".")[2]
    options, signature = "", entry.signature
    if entry.kind == "property":
        options, signature = f":type: {signature[4:]}\n" if signature else "", ""
    if entry.kind == "data":
        options, signature = f":value: {signature}\n" if signature else "", ""
    fields = "\n".join(bullet(*one) for one in entry.fields)
    parts = [
        prose(entry.doc),
        *book_links(module, entry),
        fields,
        *(block(module, e) for e in entry.members),
    ]
    body = "\n\n".join(filter(None, parts)).replace("\n\n- **In the book", "\n- **In the book")
    return f"{fence}{{py:{entry.kind}}} {name}{signature}\n{options}\n{body}\n{fence}"


def bullet(code: str, words: str) -> str:
    """A field of a class, and what it is for."""
    return f"- `{code}`: {inline(words)}" if words else f"- `{code}`"


def prose(doc: str) -> str:
    """A docstring as Markdown: equations and drawings as they stand, the rest as text."""
    blocks = re.split(r"\n\s*\n", inspect.cleandoc(spelled(doc)).rstrip())
    return "\n\n".join(map(paragraph, blocks))


def spelled(text: str) -> str:
    """Small letters as the rest of the package writes them, v_{t+1}: few fonts for print have ₜ."""

    def plain(match: re.Match) -> str:
        index = match[0].translate(SMALL)
        return f"_{index}" if len(index) == 1 else f"_{{{index}}}"

    return INDEX.sub(plain, text).replace("ᵗ", "^t")


def paragraph(text: str) -> str:
    """One block of a docstring: a drawing, or sentences and below them what is labeled."""
    lines = text.split("\n")
    if drawn(lines):
        return "```text\n" + inspect.cleandoc("\n" + text) + "\n```"
    words, labeled = [], []
    for piece in filter(None, SENTENCE.split(" ".join(line.strip() for line in lines))):
        (labeled if LABEL.match(piece) else words).append(piece.strip())
    items = "\n".join(map(item, labeled))
    return "\n\n".join(filter(None, [inline(" ".join(filter(None, words))), items]))


def drawn(lines: list[str]) -> bool:
    """Whether the columns of these lines mean something."""
    return all(x.startswith("    ") for x in lines) or any("   " in x.strip() for x in lines)


def item(text: str) -> str:
    """A labeled sentence: where something is from, its units, what is refused."""
    if re.match(ERRORS, text):
        return f"- **Errors:** {inline(text)}"
    label, rest = text.split(": ", 1)
    return f"- **{label.removesuffix('s') if label == 'Sources' else label}:** {inline(rest)}"


def inline(text: str) -> str:
    """A sentence in which nothing but `code` and *emphasis* has a meaning; shapes are code."""
    pieces = re.split(r"(`[^`]*`)", spelled(text))
    return "".join(p if p.startswith("`") else safe(p) for p in pieces)


def safe(text: str) -> str:
    """Plain words in Markdown."""
    parts, ends = SHAPE.split(text), SHAPE.findall(text)
    parts = [re.sub(r"\*(?!\w+\*)(?<!\w\*)|[<$\\~^]", r"\\\g<0>", p) for p in parts]
    text = "".join(p + (f"`{e}`" if e else "") for p, e in zip(parts, [*ends, ""], strict=True))
    return re.sub(r"^([-+#>]|\d+\.)(?=\s)", r"\\\1", text)


def book_links(module: str, entry: Entry) -> list[str]:
    """The labeled equations of the book that an entry computes."""
    rows = equations()
    symbol = f"{module}.{entry.name}"
    mine = [k for k, row in rows.items() if row.get("symbol") == symbol and f"eq-{k}" in labels()]
    found = [f"{inline(rows[k]['name'])} {{eq}}`eq-{k}`" for k in mine]
    return [f"- **In the book:** {', '.join(found)}"] if found else []


@cache
def equations() -> dict[str, dict]:
    """The table of labeled equations."""
    return yaml.safe_load((BOOK / "equations.yml").read_text(encoding="utf-8"))


@cache
def labels() -> set[str]:
    """The labels of equations in the chapters that are there."""
    texts = (path.with_suffix(".md").read_text(encoding="utf-8") for path in BOOK.glob("*.ipynb"))
    return {label for text in texts for label in re.findall(r"^\$\$ \((eq-[\w-]+)\)", text, re.M)}


def front() -> str:
    """What `from dreamer_lite import ...` finds, and where it is described."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    tables = [x.value for x in tree.body if isinstance(x, ast.Assign) and has(x, "_WHERE")]
    names = ast.literal_eval(tables[0])
    return "\n".join(f"- {{py:obj}}`{k} <dreamer_lite.{m}.{k}>`" for k, m in names.items())


def has(node: ast.Assign, name: str) -> bool:
    """Whether a statement gives a value to a name."""
    return any(isinstance(t, ast.Name) and t.id == name for t in node.targets)


def filled(text: str) -> str:
    """A page with the entries of its modules."""
    return PLACE.sub(lambda m: front() if m[1] == "dreamer_lite" else markdown(m[1]), text)


@cache
def pages() -> dict[str, str]:
    """Which page describes a module."""
    texts = {p.stem: p.read_text(encoding="utf-8") for p in sorted(BOOK.glob("api*.md"))}
    return {module: stem for stem, text in texts.items() for module in PLACE.findall(text)}


# --- Sphinx --------------------------------------------------------------------------------------


def fill(app, docname, source):
    """Before a page is read."""
    source[0] = filled(source[0])


def where(domain: str, info: dict[str, str]) -> str | None:
    """The page of code behind an entry; asked by `sphinx.ext.linkcode`."""
    module = info["module"].removeprefix("dreamer_lite.")
    path = home(module, info["fullname"])
    anchor = f"#{info['fullname']}" if info["fullname"] in anchors(path) else ""
    return f"_code/{path.relative_to(ROOT).as_posix()}.html{anchor}"


@cache
def anchors(path: Path) -> set[str]:
    """The names that a page of code can be entered at."""
    return set(codepages.names(path.read_text(encoding="utf-8")).values())


@cache
def home(module: str, name: str) -> Path:
    """The file that defines a name; a folder's `__init__` only hands it on."""
    path = path_of(module)
    if path.name != "__init__.py":
        return path
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and name.split(".")[0] in {a.name for a in node.names}:
            return path_of(node.module.removeprefix("dreamer_lite."))
    return path


def refer(app, pagename, templatename, context, doctree):
    """Beside the link from an equation to its code: one to its entry."""
    body = context.get("body", "")
    if "dl-source" in body:
        context["body"] = CODE_LINK.sub(with_entry, body)


def with_entry(match: re.Match) -> str:
    """A link to a file, followed by one to the entry of the same name, if there is one."""
    module, name = match.groups()
    if name not in {e.name for e in walk(entries(module))} or module not in pages():
        return match[0]
    target = f"{pages()[module]}.html#dreamer_lite.{module}.{name}"
    return f'{match[0]} · <a href="{target}">reference</a>'


def setup(app):
    """Called by Sphinx."""
    app.setup_extension("sphinx.ext.linkcode")
    app.connect("config-inited", lambda app, config: config.__setattr__("linkcode_resolve", where))
    app.connect("source-read", fill)
    app.connect("html-page-context", refer)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
