"""`Solution`: a worked answer that is closed until asked for, and checked when the page runs."""

import contextlib
import io
import re
from pathlib import Path

from dreamer_lite.page.files import book_folder, chapter_of
from dreamer_lite.page.output import Output
from dreamer_lite.page.quiz import DETAILS
from dreamer_lite.page.source import STYLE, colored

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)


def Solution(identifier: str) -> Output:
    """The section `## 9.2` of `solutions/09.md`; its Python blocks run now, its checks must pass.

    Print and terminal only say where it is.
    """
    text = section(book_folder() / f"solutions/{chapter_of(identifier)}.md", identifier)
    said = run(text, identifier)
    title = f"Solution {identifier}"
    where = f"{title}: in the notebook and on the website."
    return Output(
        plain=where,
        markdown=f"*{where}*",
        html=f'{STYLE}<style>{DETAILS}</style><details class="dl-solution dl-open">'
        f"<summary>{title}</summary>"
        f"{page(text)}{'<pre>' + said + '</pre>' if said else ''}</details>",
    )


def section(path: Path, identifier: str) -> str:
    """The text below `## 9.2` up to the next such title."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    parts = re.split(r"^## (\d+\.\d+)\b.*\n", text, flags=re.M)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    if identifier not in found:
        known = ", ".join(found) or "none"
        raise ValueError(f"{path.name} has no section '## {identifier}'; it has {known}")
    return found[identifier].strip()


def blocks(text: str) -> list[str]:
    """The Python blocks of a section."""
    return [match[1] for match in BLOCK.finditer(text)]


def run(text: str, identifier: str) -> str:
    """Execute the blocks one after the other in a world of their own; what they print."""
    said, world = io.StringIO(), {"__name__": f"solution {identifier}"}
    with contextlib.redirect_stdout(said):
        for block in blocks(text):
            exec(compile(block, f"<solution {identifier}>", "exec"), world)
    return said.getvalue().strip()


def page(text: str) -> str:
    """Markdown with `$`-maths as HTML; code colored as in `show`."""
    from markdown_it import MarkdownIt
    from mdit_py_plugins.dollarmath import dollarmath_plugin

    renderer = MarkdownIt("commonmark").enable("table")
    renderer.use(dollarmath_plugin, renderer=formula, allow_labels=False, double_inline=True)
    renderer.options["highlight"] = None
    renderer.add_render_rule("fence", fence)
    return renderer.render(text)


def formula(text: str, options: dict) -> str:
    """TeX between the brackets that MathJax looks for."""
    import html

    return f"\\[{html.escape(text)}\\]" if options["display_mode"] else f"\\({html.escape(text)}\\)"


def fence(self, tokens, index, options, env) -> str:
    """A block of code."""
    token = tokens[index]
    return colored(token.content, token.info.strip() or "text")
