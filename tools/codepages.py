"""Pages of code for the website: one per file that a chapter points to, an anchor per name."""

import ast
import html
import re
from pathlib import Path

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

ROOT = Path(__file__).resolve().parent.parent

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{font-family: sans-serif; margin: 1rem auto; max-width: 60rem; padding: 0 1rem}}
pre {{font-size: .85rem; line-height: 1.4; overflow-x: auto}}
:target {{background: #fff3b0}}
{light}
@media (prefers-color-scheme: dark) {{
body {{background: #16181c; color: #e6e6e6}} a {{color: #8ab8ff}}
:target {{background: #4a4000}}
{dark}
}}
</style></head>
<body><main><h1>{title}</h1><p>The file as the book was built from it.</p>
<div class="highlight"><pre tabindex="0">{code}</pre></div></main></body></html>
"""


def names(text: str) -> dict[int, str]:
    """The line of every function, class and method, with its qualified name."""
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[first(node)] = node.name
        for inner in getattr(node, "body", []) if isinstance(node, ast.ClassDef) else []:
            if isinstance(inner, ast.FunctionDef):
                found[first(inner)] = f"{node.name}.{inner.name}"
    return found


def first(node: ast.FunctionDef | ast.ClassDef) -> int:
    """Where a definition begins, decorators included."""
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def page(path: str) -> str:
    """A file of the repository as HTML."""
    text = (ROOT / path).read_text(encoding="utf-8")
    marked = names(text)
    colored = highlight(text, PythonLexer(stripnl=False), HtmlFormatter(nowrap=True)).split("\n")
    lines = [
        f'<span id="{html.escape(marked[n])}">{line}</span>' if n in marked else line
        for n, line in enumerate(colored, 1)
    ]
    light, dark = (
        re.sub(
            r"^.*\{ \}$", "", HtmlFormatter(style=style).get_style_defs(".highlight"), flags=re.M
        )
        for style in ("a11y-high-contrast-light", "a11y-high-contrast-dark")
    )
    return PAGE.format(title=path, light=light, dark=dark, code="\n".join(lines))


def write(paths: list[str], folder: Path) -> None:
    """The pages of all given files, in the folders of the repository."""
    for path in paths:
        target = folder / f"{path}.html"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(page(path), encoding="utf-8")
