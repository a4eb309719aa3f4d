"""`Quiz`: a question whose every answer, right or wrong, opens its own explanation.

It is made of HTML's own <details>, so it needs no script: it works by keyboard, without a network,
in a notebook that was opened but not run, and where scripts are taken out.
"""

import html
import re
from dataclasses import dataclass

from dreamer_lite.page.files import book_folder, chapter_of, entry
from dreamer_lite.page.output import Output

# JupyterLab hides the triangle of <summary>, so it is drawn here.
DETAILS = """
.dl-open summary {cursor: pointer; padding: .15rem .3rem; list-style: none}
.dl-open summary::-webkit-details-marker {display: none}
.dl-open summary::before {content: "\\25B8\\A0"}
.dl-open[open] > summary::before, .dl-open details[open] > summary::before {content: "\\25BE\\A0"}
.dl-open summary:focus-visible {outline: .15rem solid currentColor}
"""
STYLE = f"""<style>{DETAILS}
.dl-quiz {{border-left: .25rem solid var(--pst-color-info, var(--jp-brand-color1, #276be9));
  padding: .1rem 0 .1rem 1rem; margin: 1rem 0}}
.dl-quiz details {{margin: .4rem 0}}
.dl-quiz details p {{margin: .2rem 0 .4rem 1.3rem}}
</style>"""


@dataclass(frozen=True)
class Choice:
    """One possible answer and what to say to who gives it."""

    text: str
    why: str
    right: bool = False


def Quiz(identifier: str) -> Output:
    """The quiz "7.1" of `quizzes/07.yml`: open an answer to see whether it is right, and why."""
    data = entry(book_folder() / f"quizzes/{chapter_of(identifier)}.yml", identifier)
    return render(identifier, data["question"], choices(identifier, data))


def choices(identifier: str, data: dict) -> list[Choice]:
    """The answers of a quiz, refused where one is unexplained or not exactly one is right."""
    found = [Choice(**choice) for choice in data["choices"]]
    right = sum(choice.right for choice in found)
    if len(found) < 3 or right != 1:
        raise ValueError(
            f"quiz {identifier} needs at least 3 choices, one of them right, got {len(found)} with "
            f"{right} right; mark one with `right: true`"
        )
    for choice in found:
        if len(choice.why.split()) < 5:
            raise ValueError(f"quiz {identifier}: explain {choice.text!r} in 5 words or more")
    return found


def render(identifier: str, question: str, answers: list[Choice]) -> Output:
    """All forms of a quiz; print and terminal keep the answers to themselves."""
    title = f"Quiz {identifier}"
    opened = "".join(
        f"<details><summary>{inline(a.text)}</summary><p><strong>"
        f"{'Right.' if a.right else 'Not this one.'}</strong> {inline(a.why)}</p></details>"
        for a in answers
    )
    listed = [f"{letter}) {a.text}" for letter, a in zip("abcdefgh", answers, strict=False)]
    closing = "Open an answer in the notebook or on the website to see whether it is right."
    return Output(
        plain="\n".join([f"{title}. {question}", *("  " + line for line in listed)]),
        markdown="\n\n".join([f"**{title}.** {question}", *listed, f"*{closing}*"]),
        html=f'{STYLE}<div class="dl-quiz dl-open" role="group" aria-label="{title}">'
        f"<p><strong>{title}.</strong> {inline(question)}</p>{opened}</div>",
    )


def inline(text: str) -> str:
    """The little Markdown a choice may hold: `code`, *emphasis*, **strong**."""
    text = html.escape(" ".join(text.split()), quote=False)
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    text = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text)
    return re.sub(r"(?<![\w*])\*([^*\s][^*]*)\*(?![\w*])", r"<em>\1</em>", text)
