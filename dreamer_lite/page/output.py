"""`Output`: one content in every form a reader may need; `say` and `table` make text of it."""

import base64
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

VERBATIM = re.compile(r"(```.*?```|`[^`]*`|\$[^$]*\$)", re.S)  # code and maths
HYPHEN = re.compile(r"(?<![^\s(])-(?=\d)")  # before a number, as Python prints it


@dataclass(frozen=True)
class Output:
    """What a cell displays. JupyterLab, GitHub and the website take `html`, then `markdown`;

    print takes `png`, then `markdown`; a terminal takes `plain`. Where there is an `svg`, those
    who can show it prefer it to the `png`.
    """

    plain: str
    markdown: str = ""
    html: str = ""
    png: bytes = b""
    svg: str = ""

    def _repr_mimebundle_(self, **_) -> dict[str, str]:
        forms = {
            "text/plain": self.plain,
            "text/markdown": self.markdown,
            "text/html": self.html,
            "image/svg+xml": self.svg,
            "image/png": base64.b64encode(self.png).decode(),
        }
        return {kind: text for kind, text in forms.items() if text}

    def __repr__(self) -> str:
        return self.plain


def say(text: str) -> Output:
    """A sentence with computed numbers: say(f"The two differ by {gap:.1e}."). Markdown, `$`-maths.

    The words are typed, the numbers are not: a number written by hand belongs in the prose.
    """
    if not text.strip():
        raise ValueError(f"text must be a sentence in Markdown, got {text!r}")
    text = with_minus(textwrap.dedent(text).strip())
    return Output(plain=text, markdown=text)


def with_minus(text: str) -> str:
    """Negative numbers with a minus sign in place of Python's hyphen, but in code and maths."""
    parts = VERBATIM.split(text)
    parts[::2] = [HYPHEN.sub("−", part) for part in parts[::2]]
    return "".join(parts)


def table(head: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1) -> Output:
    """A Markdown table: column titles, then rows of the same length.

    left: how many columns are words, set flush left; the others are numbers, flush right.
    """
    rows = [[with_minus(str(cell)) for cell in row] for row in rows]
    for row in rows:
        if len(row) != len(head):
            raise ValueError(f"each row needs {len(head)} cells, one per title, got {row}")
    rule = [":---" if column < left else "---:" for column in range(len(head))]
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, rule, *rows)]
    return Output(plain=columns([list(head), *rows], left), markdown="\n".join(lines))


def columns(rows: list[list[str]], left: int) -> str:
    """Rows of words in columns of equal width, for a terminal."""
    width = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i < left else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, width, strict=True))
        ).rstrip()
        for row in rows
    )
