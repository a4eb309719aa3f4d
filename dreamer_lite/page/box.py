"""`box`: what a chapter asks of its reader and gives in return, from its front matter."""

import json
import re
from pathlib import Path

from dreamer_lite.page.files import book_folder
from dreamer_lite.page.output import Output

MINUTES = {"★": 5, "★★": 20, "★★★": 60, "find the bug": 30}  # of an exercise, by its grade
WORDS, CELL, EQUATION = 120, 1.0, 2.0  # words a minute; minutes for a cell and for an equation
UNMEASURED = "not measured yet"


def box(chapter: int) -> Output:
    """The box at the head of chapter 9: question, objectives, prerequisites, parts, time.

    Reading time is estimated from the length, exercises from their grades; the running time is
    the one measured when the book was last run.
    """
    path = text_of(chapter)
    text = path.read_text(encoding="utf-8")
    head = front_matter(text)
    needs = ", ".join(f"chapter {int(n)}" for n in head["requires"]) or "no other chapter"
    built = ", ".join(f"`{symbol}`" for symbol in head["provides"]) or "nothing new"
    lines = [
        f"**Question.** {head['question']}",
        f"**You will be able to** {'; '.join(head['objectives'])}.",
        f"**You need** {needs}.",
        f"**Built here:** {built}.",
        f"**Time:** {times(text)}. Running time, measured: {measured(path.stem)}",
    ]
    markdown = "\n".join(f"- {line}" for line in lines)
    return Output(plain=re.sub(r"\*\*", "", markdown), markdown=markdown)


def text_of(chapter: int) -> Path:
    """The text of a chapter by its number."""
    folder = book_folder()
    found = sorted(folder.glob(f"{chapter:02d}-*.md"))
    if not found:  # the website's sources hold only the notebooks
        found = sorted((Path(__file__).resolve().parents[2] / "book").glob(f"{chapter:02d}-*.md"))
    if len(found) != 1:
        raise ValueError(f"expected one text {chapter:02d}-*.md in {folder}, found {len(found)}")
    return found[0]


def front_matter(text: str) -> dict:
    """The fields between the first two lines of dashes."""
    import yaml

    return yaml.safe_load(text.split("---\n", 2)[1])


def times(text: str) -> str:
    """How long the chapter takes, in words: read from its length and its exercises' grades.

    The section of exercises is no reading: its minutes are those of the grades.
    """
    body = text.split("---\n", 2)[2]
    body = re.sub(r"^## Exercises$.*?(?=^## |\Z)", "", body, flags=re.M | re.S)
    prose = re.sub(r"^```.*?^```$", "", body, flags=re.M | re.S)
    cells = len(re.findall(r"^```\{code-cell\}", body, re.M))
    equations = len(re.findall(r"^\$\$ \(eq-", body, re.M))
    minutes = len(prose.split()) / WORDS + CELL * cells + EQUATION * equations
    grades = re.findall(r"^:+\{exercise\}.*?(★+|find the bug)\)?\s*$", text, re.M)
    work = sum(MINUTES[grade] for grade in grades)
    reading = f"about {rounded(minutes)} minutes to read"
    return reading + (f", {rounded(work)} for the {len(grades)} exercises" if grades else "")


def rounded(minutes: float) -> int:
    """To five minutes, at least five."""
    return max(5, 5 * round(minutes / 5))


def measured(stem: str) -> str:
    """The chapter's line in the timing record that comes with the book."""
    path = book_folder() / "data/timing.json"
    if not path.exists():
        path = Path(__file__).resolve().parents[2] / "book/data/timing.json"
    times = json.loads(path.read_text()) if path.exists() else {}
    return timing_words(times.get(stem))


def timing_words(entry: dict | None) -> str:
    """One entry of the timing record in words, with the day of the run."""
    if not entry:
        return UNMEASURED
    machine = f"{entry['profile']} profile, {entry['hardware']}"
    return f"{entry['seconds']:.0f} s of processor time ({machine}), last run on {entry['date']}"
