"""`show` and `equation`: the package's own code on a page, never a copy of it."""

import ast
import html
import inspect
import io
import textwrap
import tokenize
from pathlib import Path
from typing import Any

from dreamer_lite.page.files import book_folder, entry, read_yaml
from dreamer_lite.page.output import Output

MAX_LINES = 25  # of code; a piece that needs more is shown in parts
ROOT = Path(__file__).resolve().parents[2]

# The website colors `.highlight` itself, in light and dark; JupyterLab needs to be told.
STYLE = """<style>
.jp-RenderedHTMLCommon .dl-code .k, .jp-RenderedHTMLCommon .dl-code .kn,
.jp-RenderedHTMLCommon .dl-code .ow, .jp-RenderedHTMLCommon .dl-code .kc
  {color: var(--jp-mirror-editor-keyword-color); font-weight: bold}
.jp-RenderedHTMLCommon .dl-code .nf, .jp-RenderedHTMLCommon .dl-code .nc
  {color: var(--jp-mirror-editor-def-color)}
.jp-RenderedHTMLCommon .dl-code .sd, .jp-RenderedHTMLCommon .dl-code .s2,
.jp-RenderedHTMLCommon .dl-code .s1, .jp-RenderedHTMLCommon .dl-code .sa
  {color: var(--jp-mirror-editor-string-color)}
.jp-RenderedHTMLCommon .dl-code .c1 {color: var(--jp-mirror-editor-comment-color)}
.jp-RenderedHTMLCommon .dl-code .mi, .jp-RenderedHTMLCommon .dl-code .mf
  {color: var(--jp-mirror-editor-number-color)}
.dl-code pre {overflow-x: auto}
.dl-source {font-size: .9em}
</style>"""


def show(*objects: Any, doc: bool = True, test: str = "") -> Output:
    """The source of functions, methods or classes: show(lambda_return), show(RSSM.step).

    doc: False leaves out all but the first line of docstrings.
    test: "tests/test_x.py::test_y"; by default the one that the table of equations names.
    Raises ValueError if an object has more than 25 lines of code (docstring and comments aside).
    """
    if not objects:
        raise ValueError("name at least one function, method or class to show, got none")
    pieces = [source(thing) for thing in objects]
    for thing, text in zip(objects, pieces, strict=True):
        if (lines := code_lines(text)) > MAX_LINES:
            raise ValueError(
                f"{name(thing)} has {lines} lines of code, a page shows at most {MAX_LINES}; "
                "show its parts, or make it shorter"
            )
    if not doc:
        pieces = [short_docstrings(text) for text in pieces]
    path = Path(inspect.getsourcefile(plain(objects[0])))
    tests = [test or test_of(thing) for thing in objects]
    return listing("\n\n".join(pieces), path, [name(t) for t in objects], unique(tests))


def equation(identifier: str, doc: bool = False) -> Output:
    """The code and the test behind a labeled equation, from the table `equations.yml`."""
    row = entry(book_folder() / "equations.yml", identifier)
    thing = resolve(row["symbol"])
    shown = show(thing, doc=doc, test=row.get("test", ""))
    title = row["name"][:1].upper() + row["name"][1:]
    origin = f"{title}: {row['paper']}, {row['version']}"
    if row.get("number"):
        origin += f", Eq. {row['number']}"
    lines = [origin] + ([f"not tested: {row['untested']}"] if "untested" in row else [])
    return Output(
        plain="\n".join([*lines, shown.plain]),
        markdown="  \n".join(lines) + "\n\n" + shown.markdown,
        html="".join(f'<p class="dl-source">{html.escape(x)}</p>' for x in lines) + shown.html,
    )


def resolve(symbol: str) -> Any:
    """The object a name stands for: "returns.lambda_return", "rssm.RSSM.step"."""
    from importlib import import_module

    module, _, inner = symbol.partition(".")
    thing = import_module(f"dreamer_lite.{module}")
    for part in filter(None, inner.split(".")):
        if not hasattr(thing, part):
            raise ValueError(f"dreamer_lite.{symbol} does not exist: no {part!r} in {thing!r}")
        thing = inspect.getattr_static(thing, part)
    return thing


def plain(thing: Any) -> Any:
    """The function inside a property, a decorator, a class or static method."""
    if isinstance(thing, property):
        thing = thing.fget
    if isinstance(thing, staticmethod | classmethod):
        thing = thing.__func__
    return inspect.unwrap(thing)


def name(thing: Any) -> str:
    """How the object is called inside its module."""
    return plain(thing).__qualname__


def source(thing: Any) -> str:
    """The text of an object, flush left."""
    try:
        return textwrap.dedent(inspect.getsource(plain(thing))).rstrip()
    except (TypeError, OSError):
        raise ValueError(f"show needs a function, method or class, got {thing!r}") from None


def docstrings(tree: ast.AST) -> list[ast.Expr]:
    """The docstrings of everything defined in a text."""
    kinds = ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef
    bodies = [node.body[0] for node in ast.walk(tree) if isinstance(node, kinds)]
    return [
        first
        for first in bodies
        if isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    ]


def code_lines(text: str) -> int:
    """How many lines hold code: without docstrings, comments and blank lines."""
    dull = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    rows = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in (*dull, tokenize.ENDMARKER):
            rows |= set(range(token.start[0], token.end[0] + 1))
    for node in docstrings(ast.parse(text)):
        rows -= set(range(node.lineno, node.end_lineno + 1))
    return len(rows)


def short_docstrings(text: str) -> str:
    """The text with each docstring cut to its first line."""
    lines = text.splitlines()
    for node in sorted(docstrings(ast.parse(text)), key=lambda n: -n.lineno):
        if node.end_lineno > node.lineno:
            first = lines[node.lineno - 1].rstrip()
            lines[node.lineno - 1 : node.end_lineno] = [first + ' ..."""']
    return "\n".join(lines)


def test_of(thing: Any) -> str:
    """The test that the table of equations gives for an object, or nothing."""
    thing = plain(thing)
    symbol = f"{thing.__module__.removeprefix('dreamer_lite.')}.{thing.__qualname__}"
    try:
        rows = read_yaml(book_folder() / "equations.yml").values()
    except FileNotFoundError:
        return ""
    return next((row.get("test", "") for row in rows if row["symbol"] == symbol), "")


def unique(words: list[str]) -> list[str]:
    """Without repetitions and blanks, in order."""
    return list(dict.fromkeys(filter(None, words)))


def listing(text: str, path: Path, names: list[str], tests: list[str]) -> Output:
    """Code with a line below that says where it stands and what tests it."""
    try:
        path = path.relative_to(ROOT)
    except ValueError:
        path = Path(path.name)
    places = [(path.as_posix(), name) for name in names[:1]]
    proofs = [tuple(test.split("::", 1)) for test in tests]
    words = f"{path.as_posix()}" + "".join(f" · tested by {t}" for t in tests)
    links = " · ".join(
        [link(*place, place[0]) for place in places]
        + ["tested by " + link(*proof, "::".join(proof)) for proof in proofs]
    )
    return Output(
        plain=f"{text}\n# {words}",
        markdown=f"```python\n{text}\n```\n\n{words}",
        html=f"{STYLE}{colored(text)}<p class='dl-source'>From {links}</p>",
    )


def link(path: str, anchor: str, text: str) -> str:
    """A link to a file of the repository; the website replaces it by its own page of that file."""
    return f'<a href="../{path}#{anchor}"><code>{html.escape(text)}</code></a>'


def colored(text: str, language: str = "python") -> str:
    """Code as HTML in the classes that the website and JupyterLab color."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name

    inner = highlight(text, get_lexer_by_name(language), HtmlFormatter(nowrap=True)).rstrip()
    return (
        f'<div class="highlight-{language} notranslate dl-code"><div class="highlight">'
        f'<pre tabindex="0">{inner}\n</pre></div></div>'
    )
