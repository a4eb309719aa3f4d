"""Where the book's data stands: quizzes, equations, labs, solutions, beside the chapters."""

import re
from functools import cache
from pathlib import Path

MARK = "equations.yml"  # the folder that holds this file is the book
NOTEBOOK = re.compile(r"^ *- file: (\d\d)-[\w-]+\.ipynb *$", re.M)


def book_folder() -> Path:
    """The folder of the chapters: here, above, or beside the installed package."""
    here = Path.cwd()
    places = [here, *here.parents, Path(__file__).resolve().parents[2]]
    for place in places:
        for folder in (place, place / "book"):
            if (folder / MARK).is_file():
                return folder
    raise FileNotFoundError(
        f"found no book (a folder with {MARK}) in {here} or above it; this page needs the whole "
        "book beside it: take the folder `book` of the repository, not the single notebook"
    )


def written(book: Path) -> set[int]:
    """The chapters that are written: in the contents they have the extension of a notebook."""
    return {int(n) for n in NOTEBOOK.findall((book / "_toc.yml").read_text(encoding="utf-8"))}


def read_yaml(path: Path) -> dict:
    """A data file of the book, read again only when it changed."""
    return _read_yaml(path, path.stat().st_mtime_ns)


@cache
def _read_yaml(path: Path, changed: int) -> dict:
    import yaml

    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


def chapter_of(identifier: str) -> str:
    """The chapter's number in two digits: "9.2" -> "09"."""
    number, _, rest = str(identifier).partition(".")
    if not (number.isdecimal() and rest):
        raise ValueError(f'an id looks like "9.2" (chapter, number), got {identifier!r}')
    return f"{int(number):02d}"


def entry(path: Path, identifier: str) -> dict:
    """One entry of a data file of the book."""
    entries = read_yaml(path) if path.exists() else {}
    if identifier not in entries:
        known = ", ".join(map(str, entries)) or "nothing"
        raise ValueError(f"{path.name} has no entry {identifier!r}; it has {known}")
    return entries[identifier]
