"""Run the book's notebooks and lay out what the website is built from.

    python tools/run_book.py                   # executed copies into _build/book
    python tools/run_book.py --html            # the same, then the website: _build/html
    python tools/run_book.py --store           # the same, and puts the notebooks into book/
    python tools/run_book.py 09 --html         # one chapter: _build/preview-09/_build/html
    python tools/run_book.py --profile full    # the experiments anew, into book/data/studies

A chapter runs again only if its text, what it reads, the package, the lock file or the profile
changed. Only --store and --profile full touch tracked files. Budgets: see BUDGET.
"""

import argparse
import contextlib
import datetime
import hashlib
import json
import os
import platform
import resource
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import jupytext
import nbformat
import sources
import torch
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from notebooks import faults, first_line, normalize
from sources import BOOK, ROOT, chapters, contents, toc_files  # noqa: F401

from dreamer_lite import ledger

CACHE = ROOT / "_build/executed"
TIMING = BOOK / "data/timing.json"  # of the stored notebooks
STUDIES = "data/studies"  # where `dreamer_lite.study` keeps experiments, in a folder of chapters
CELL_LIMIT = 7200  # seconds, so that a hanging cell does not hang the build
BUDGET = {"quick": (60, 540), "full": (4500, 4500)}  # processor seconds: a chapter, all of them
STEADY = 0.3  # a running time that moved less than this share is the same


def fingerprint(paths: Iterable[Path], *words: str) -> str:
    """A hash of files and words: what decides whether a chapter must run again."""
    digest = hashlib.sha256("\n".join(words).encode())
    for path in sorted(paths):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def inputs(text: Path) -> list[Path]:
    """All files that a chapter's outputs depend on."""
    number, words = text.name[:2], text.read_text(encoding="utf-8")
    package = [p for kind in ("*.py", "*.c") for p in (ROOT / "dreamer_lite").rglob(kind)]
    package = [p for p in package if not other_check(p, number)]
    own = [BOOK / f"quizzes/{number}.yml", BOOK / f"solutions/{number}.md"]
    tables = [BOOK / name for name in ("equations.yml", "differences.yml", "_toc.yml")]
    labs = [p for p in (BOOK / "labs").glob("*") if "Lab(" in words and p.is_file()]
    data = [p for p in (BOOK / "data").glob("*/*") if p.stem in words or p.name in words]
    if "data/runs" in words and "glob(" in words:  # it takes what it finds there
        data += (BOOK / "data/runs").iterdir()
    data += [p for p in (BOOK / "data").glob("*.json") if p.name in words]
    files = [f for folder in data for f in [folder, *sorted(folder.rglob("*"))] if f.is_file()]
    tools = [ROOT / "tools/run_book.py", ROOT / "tools/notebooks.py"]
    listed = [text, ROOT / "constraints.txt", *package, *own, *tables, *labs, *data, *files, *tools]
    return [path for path in dict.fromkeys(listed) if path.is_file()]


def other_check(path: Path, number: str) -> bool:
    """Whether a module holds the exercises of another chapter."""
    return path.parent.name == "check" and path.stem[1:].isdecimal() and path.stem[1:] != number


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


def run(text: Path, profile: str, folder: Path) -> tuple[Path, dict]:
    """The executed chapter and its timing; from the cache if nothing changed."""
    if not (timing := cached(text, profile).with_suffix(".json")).exists():
        print(f"running {text.name} ...", flush=True)
        start = processor_time()
        with bringing_studies(folder, profile):
            nb = execute(text, folder)
        entry = timed(processor_time() - start, profile)
        stored = cached(text, profile)  # another one if there are new studies
        stored.parent.mkdir(parents=True, exist_ok=True)
        for outdated in stored.parent.glob(f"{profile}-*"):
            outdated.unlink()
        nbformat.write(nb, stored)
        timing = stored.with_suffix(".json")
        timing.write_text(json.dumps(entry))
    return timing.with_suffix(".ipynb"), json.loads(timing.read_text())


def cached(text: Path, profile: str) -> Path:
    """Where the executed chapter lies, or will lie, for what it depends on now."""
    key = fingerprint(inputs(text), profile, platform.python_version())
    return CACHE / text.stem / f"{profile}-{key}.ipynb"


@contextlib.contextmanager
def bringing_studies(folder: Path, profile: str) -> Iterator[None]:
    """Put the studies that a full run makes in `folder` into the book, also if it fails later."""
    before = studies(folder)
    try:
        yield
    finally:
        made = studies(folder).items() - before.items() if profile == "full" else ()
        for name, text in made:
            (BOOK / STUDIES).mkdir(parents=True, exist_ok=True)
            write(BOOK / STUDIES / name, text)


def studies(folder: Path) -> dict[str, str]:
    """The studies beside the chapters of a folder, by the names of their files."""
    return {
        path.name: path.read_text(encoding="utf-8") for path in (folder / STUDIES).glob("*.json")
    }


def processor_time() -> float:
    """Seconds that the kernels which have ended spent computing: no matter who else computes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def timed(seconds: float, profile: str) -> dict:
    """An entry of the timing record."""
    machine = ledger.hardware(torch.device("cpu")).replace("(R)", "").replace("(TM)", "")
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    return dict(seconds=round(seconds, 1), profile=profile, hardware=machine, date=day)


def steady(old: dict | None, new: dict) -> dict:
    """The stored entry if the new one says the same, so that a rerun changes no tracked file."""
    same = old and all(old[key] == new[key] for key in ("profile", "hardware"))
    close = same and abs(old["seconds"] - new["seconds"]) <= STEADY * old["seconds"] + 1
    return old if close else new


def kept(text: Path, executed: Path, old: dict | None, new: dict) -> dict:
    """The entry to store; where the running time is steady but the page is not, the day is new."""
    entry, stored = steady(old, new), text.with_suffix(".ipynb")
    if entry is new:
        return new
    shown = sources.with_time(nbformat.read(executed, 4), old)
    same = stored.exists() and nbformat.read(stored, 4) == shown
    return old if same else old | {"date": new["date"]}


def over_budget(times: dict[str, dict], profile: str) -> list[str]:
    """Which chapters, or all of them together, take too long."""
    one, all_of_them = BUDGET[profile]
    seconds = {name: entry["seconds"] for name, entry in times.items()}
    late = [
        f"{name} took {s} s, at most {one} are allowed" for name, s in seconds.items() if s > one
    ]
    if (total := sum(seconds.values())) > all_of_them:
        late.append(f"all chapters took {total:.0f} s, at most {all_of_them} are allowed")
    return late


def store(texts: list[Path], executed: dict[str, Path], times: dict[str, dict]) -> None:
    """Put executed notebooks beside their texts and their times into the record."""
    record = json.loads(TIMING.read_text()) if TIMING.exists() else {}
    listed = [text.stem for text in chapters()]
    record |= {
        text.stem: kept(text, executed[text.stem], record.get(text.stem), times[text.stem])
        for text in texts
    }
    record = {name: record[name] for name in listed if name in record}
    write(TIMING, json.dumps(record, indent=1) + "\n")
    write(BOOK / "status.md", sources.with_status((BOOK / "status.md").read_text(), record))
    for text in texts:
        nb = sources.with_time(nbformat.read(executed[text.stem], 4), record[text.stem])
        write(text.with_suffix(".ipynb"), nbformat.writes(nb) + "\n")


def notebook(text: Path, build: Path) -> Path:
    """The stored notebook of a chapter; if there is none yet, one without outputs."""
    stored, bare = text.with_suffix(".ipynb"), build / "bare" / f"{text.stem}.ipynb"
    if stored.exists():
        return stored
    bare.parent.mkdir(exist_ok=True)
    nbformat.write(normalize(jupytext.read(text)), bare)
    return bare


def write(path: Path, text: str) -> None:
    """Write a tracked file, if that changes it."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")


def chosen(numbers: list[str]) -> list[Path]:
    """The chapters of the given numbers or names; all if none is given."""
    found = [t for t in chapters() if not numbers or t.stem in numbers or t.name[:2] in numbers]
    if not found:
        names = ", ".join(text.stem for text in chapters())
        sys.exit(f"no chapter {', '.join(numbers)}; there is {names} (listed in book/_toc.yml)")
    return found


def parsed() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chapters", nargs="*", help="numbers (09) or names; default: all")
    parser.add_argument("--store", action="store_true", help="put the notebooks into book/")
    parser.add_argument("--html", action="store_true", help="build the website too")
    default = os.environ.get("BOOK_PROFILE", "quick")
    parser.add_argument("--profile", choices=list(BUDGET), default=default)
    args = parser.parse_args()
    if args.store and args.profile != "quick":
        parser.error(f"stored outputs are those of the quick profile, not of {args.profile}")
    return args


def main() -> None:
    """Lay out the sources, run every chapter, note the times."""
    args = parsed()
    os.environ["BOOK_PROFILE"] = args.profile  # what the chapters see
    texts = chosen(args.chapters)
    build = ROOT / "_build" / ("preview-" + "-".join(args.chapters) if args.chapters else "")
    with sources.alone(build):
        sources.lay_out(build / "book")
        results = {text.stem: run(text, args.profile, build / "book") for text in texts}
        executed = {name: path for name, (path, _) in results.items()}
        times = {name: entry for name, (_, entry) in results.items()}
        if args.store:
            with sources.alone(ROOT / "_build/store"):  # several chapters share the record
                store(texts, executed, times)
        others = {t.stem: notebook(t, build) for t in chapters() if t.stem not in executed}
        sources.place(build / "book", others | executed, times)
        if args.html:
            sources.website(build, preview=bool(args.chapters))
    (build / "timing.json").write_text(json.dumps(times, indent=1) + "\n")
    for name, entry in times.items():
        print(f"{name:32} {entry['seconds']:7.1f} s  ({entry['profile']}, {entry['hardware']})")
    if late := over_budget(times, args.profile):
        sys.exit("\n".join(["over budget:", *late]))


if __name__ == "__main__":
    main()
