"""Run the book's notebooks and lay out what the website is built from.

    python tools/run_book.py            # executed copies into _build/book; touches no tracked file
    python tools/run_book.py --store    # the same, and puts the executed notebooks into book/

A chapter runs again only if its text, the package, the data, the lock file or the profile changed.
The profile is the environment variable BOOK_PROFILE: quick (default, a minute a chapter) or full.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import jupytext
import nbformat
import yaml
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from notebooks import faults, first_line, normalize

ROOT = Path(__file__).resolve().parent.parent
BOOK, OUT, CACHE = ROOT / "book", ROOT / "_build/book", ROOT / "_build/executed"
TIMING = ROOT / "_build/timing.json"
CELL_LIMIT = 1800  # seconds, so that a hanging cell does not hang the build


def toc_files(entry: dict | list) -> list[str]:
    """Every `file:` of the table of contents, in reading order."""
    if isinstance(entry, list):
        return [name for item in entry for name in toc_files(item)]
    own = [entry[key] for key in ("root", "file") if key in entry]
    return own + [n for v in entry.values() if isinstance(v, list) for n in toc_files(v)]


def contents() -> dict:
    """The table of contents."""
    return yaml.safe_load((BOOK / "_toc.yml").read_text())


def chapters() -> list[Path]:
    """The texts of all notebooks: a page that is one is listed in the contents with `.ipynb`."""
    files = [f for f in toc_files(contents()) if f.endswith(".ipynb")]
    return [BOOK / Path(f).with_suffix(".md") for f in files]


def fingerprint(paths: Iterable[Path], *words: str) -> str:
    """A hash of files and words: what decides whether a chapter must run again."""
    digest = hashlib.sha256("\n".join(words).encode())
    for path in sorted(paths):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def inputs(text: Path) -> list[Path]:
    """All files that a chapter's outputs depend on."""
    data = [path for path in (BOOK / "data").rglob("*") if path.is_file()]
    package = (ROOT / "dreamer_lite").rglob("*.py")
    tools = (ROOT / "tools").glob("*.py")
    return [text, ROOT / "constraints.txt", *package, *tools, *data]


def lay_out() -> None:
    """Copy the sources of the site, without the texts of notebooks: one page, one file."""
    shutil.rmtree(OUT, ignore_errors=True)
    shutil.rmtree(ROOT / "_build/html", ignore_errors=True)  # no page outlives its source
    shutil.copytree(BOOK, OUT, ignore=shutil.ignore_patterns("*.ipynb", ".*"))
    for text in chapters():
        (OUT / text.relative_to(BOOK)).unlink()


def execute(text: Path, folder: Path) -> nbformat.NotebookNode:
    """Run a chapter from top to bottom in `folder`; an exception or a warning ends the build."""
    nb = nbformat.from_dict(jupytext.read(text))
    client = NotebookClient(
        nb,
        timeout=CELL_LIMIT,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        store_widget_state=False,
        extra_arguments=["--log-level=ERROR"],  # of the kernel, which warns of matters not ours
        coalesce_streams=True,  # the pieces in which print arrives depend on the clock
    )
    try:
        client.execute()
    except CellExecutionError as error:
        sys.exit(f"{text.name} failed:\n{error}")
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    found = [f"  {fault} in {first_line(cell)!r}" for cell in code for fault in faults(cell)]
    if found:
        sys.exit("\n".join([f"{text.name} is not quiet:", *found]))
    return normalize(nb)


def run(text: Path, profile: str) -> dict:
    """Put the executed chapter into the site's sources, from the cache if nothing changed."""
    key = fingerprint(inputs(text), profile, platform.python_version())
    stored = CACHE / text.stem / f"{key}.ipynb"
    timing = stored.with_suffix(".json")
    target = (OUT / text.relative_to(BOOK)).with_suffix(".ipynb")
    if not timing.exists():
        print(f"running {text.name} ...", flush=True)
        start = time.perf_counter()
        nb = execute(text, target.parent)
        seconds = round(time.perf_counter() - start, 1)
        shutil.rmtree(stored.parent, ignore_errors=True)  # the outdated execution
        stored.parent.mkdir(parents=True)
        nbformat.write(nb, stored)
        timing.write_text(json.dumps(dict(seconds=seconds, profile=profile)))
    shutil.copyfile(stored, target)
    return json.loads(timing.read_text())


def store(text: Path) -> None:
    """Put the executed notebook beside its text, if it differs."""
    fresh = (OUT / text.relative_to(BOOK)).with_suffix(".ipynb").read_bytes()
    target = text.with_suffix(".ipynb")
    if not target.exists() or target.read_bytes() != fresh:
        target.write_bytes(fresh)
        print(f"wrote {target.relative_to(ROOT)}")


def main() -> None:
    """Lay out the sources, run every chapter, note the times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", action="store_true", help="put the notebooks into book/")
    args = parser.parse_args()
    profile = os.environ.setdefault("BOOK_PROFILE", "quick")
    if args.store and profile != "quick":
        parser.error(f"stored outputs are those of the quick profile, BOOK_PROFILE is {profile}")
    lay_out()
    times = {text.stem: run(text, profile) for text in chapters()}
    TIMING.write_text(json.dumps(times, indent=2) + "\n")
    for name, entry in times.items():
        print(f"{name:32} {entry['seconds']:7.1f} s  ({entry['profile']})")
    if args.store:
        for text in chapters():
            store(text)


if __name__ == "__main__":
    main()
