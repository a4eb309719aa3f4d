"""What the website is built from: a copy of the book with executed notebooks, and extra files.

Beside the pages there are, for each notebook, its version for students (`_student/`), and the code
and tests that the pages point to (`_code/`), so that no link leaves the site.
"""

import contextlib
import fcntl
import filecmp
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import codepages
import nbformat
import student
import yaml
from nbformat import NotebookNode

from dreamer_lite.page.box import timing_words

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
BEGIN, END = "<!-- timing -->\n", "<!-- /timing -->"
SENTENCE = re.compile(r"(Running time, measured: )[^\n\"]*")
PAGE_LINK = re.compile(r"(\]\()([\w-]+)\.(?:md|ipynb)(?=[)#])")
REPOSITORY_LINK = re.compile(r'href=\\?"\.\./((?:dreamer_lite|tests)/[\w/]+\.py)')


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


@contextlib.contextmanager
def alone(build: Path) -> Iterator[None]:
    """One run at a time in a build folder."""
    build.mkdir(parents=True, exist_ok=True)
    with (build / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def lay_out(target: Path) -> None:
    """Make `target` a copy of the book without notebooks and without their texts."""
    skip = {text.relative_to(BOOK) for text in chapters()}
    wanted = {p.relative_to(BOOK): p for p in BOOK.rglob("*") if p.is_file() and not hidden(p)}
    wanted = {name: p for name, p in wanted.items() if name not in skip and p.suffix != ".ipynb"}
    target.mkdir(parents=True, exist_ok=True)
    for old in [p for p in target.rglob("*") if p.is_file()]:
        if old.relative_to(target) not in wanted:
            old.unlink()
    for folder in sorted((p for p in target.rglob("*") if p.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()
    for name, path in wanted.items():
        copy = target / name
        if not copy.exists() or not filecmp.cmp(path, copy, shallow=True):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy)


def package() -> list[Path]:
    """The modules of dreamer_lite."""
    return sorted((ROOT / "dreamer_lite").rglob("*.py"))


def hidden(path: Path) -> bool:
    """Files of editors and tools."""
    return any(part.startswith(".") for part in path.relative_to(BOOK).parts)


def place(target: Path, executed: dict[str, Path], times: dict[str, dict]) -> None:
    """Put the executed notebooks among the sources, and the files that go beside the pages."""
    extra, pointed = target / "_extra", set()
    shutil.rmtree(extra, ignore_errors=True)
    for stem, path in executed.items():
        nb = nbformat.read(path, as_version=4)
        if stem in times:
            nb = with_time(nb, times[stem])
        text = nbformat.writes(nb)
        pointed |= set(REPOSITORY_LINK.findall(text))
        local = REPOSITORY_LINK.sub(lambda m: m[0].replace("../", "_code/") + ".html", text)
        (target / f"{stem}.ipynb").write_text(local + "\n", encoding="utf-8")
        student.write(nb, extra / f"_student/{stem}.ipynb")
    pointed |= {path.relative_to(ROOT).as_posix() for path in package()}  # the API reference does
    codepages.write(sorted(pointed), extra / "_code")
    for page in [*target.glob("*.md"), *target.glob("*.ipynb")]:
        relink(page)
    status = target / "status.md"
    if status.exists() and times:
        status.write_text(with_status(status.read_text(encoding="utf-8"), times), encoding="utf-8")


def relink(page: Path) -> None:
    """Let links between pages, [chapter 8](08-imagination.ipynb), name the file that exists.

    In the repository a chapter is a text and a notebook; here it is one of them.
    """
    text = page.read_text(encoding="utf-8")
    forms = {p.stem: p.name for p in page.parent.glob("*.*") if p.suffix in (".md", ".ipynb")}
    new = PAGE_LINK.sub(lambda m: m[1] + forms.get(m[2], m[0][2:]), text)
    if new != text:
        page.write_text(new, encoding="utf-8")


def with_time(nb: NotebookNode, entry: dict) -> NotebookNode:
    """The notebook whose box states the running time of this very execution."""
    for cell in nb.cells:
        for output in cell.get("outputs", []):
            for kind, text in output.get("data", {}).items():
                if kind.startswith("text/"):
                    new = SENTENCE.sub(lambda m: m[1] + timing_words(entry), text)
                    output["data"][kind] = new
    return nb


def with_status(text: str, times: dict[str, dict]) -> str:
    """The status page with a fresh table between its two marks."""
    head = "| page | running time | profile | machine | last run |\n|---|---:|---|---|---|\n"
    cells = (
        (f"{{doc}}`{name}`", f"{e['seconds']:.0f} s", e["profile"], e["hardware"], e["date"])
        for name, e in times.items()
    )
    rows = "".join(f"| {' | '.join(row)} |\n" for row in cells)
    before, rest = text.split(BEGIN)
    return before + BEGIN + "\n" + head + rows + "\n" + END + rest.split(END)[1]


def website(build: Path, preview: bool) -> None:
    """Build the HTML from clean sources, unless they are those of the last successful build."""
    html, pdf = build / ("_build/html" if preview else "html"), printed(build / "book")
    stamp, key = build / "html.json", digest(build / "book")
    same = stamp.exists() and json.loads(stamp.read_text()) == key
    if not same:  # it was printed from other sources
        pdf.unlink(missing_ok=True)
    if same and html.exists() and (html / pdf.name).exists() == pdf.exists():
        print("the website is up to date")
        return
    stamp.unlink(missing_ok=True)
    shutil.rmtree(html, ignore_errors=True)
    program = "from jupyter_book.cli.main import main; main()"
    output = ["--path-output", str(build)] if preview else []
    strict = ["--all", "-W", "--keep-going", "-n", "--quiet"]
    command = [sys.executable, "-c", program, "build", str(build / "book"), *output, *strict]
    done = subprocess.run(command, check=False)
    if done.returncode or not (html / "index.html").exists():
        sys.exit("the website has warnings or errors, see above")
    stamp.write_text(json.dumps(key))
    if pdf.exists():
        shutil.copy2(pdf, html)
    print(f"the website is at {html / 'index.html'}")


def printed(folder: Path) -> Path:
    """Where `make pdf` puts the book that is made of this folder."""
    return folder.parent / "latex/book.pdf"


def digest(folder: Path) -> str:
    """A hash of all that the website is made from."""
    total = hashlib.sha256()
    names = ("_config.yml", "constraints.txt", "tools/extension.py", "tools/apipages.py")
    tools = [*(ROOT / name for name in names), *package()]
    for path in sorted(p for p in folder.rglob("*") if p.is_file()) + tools:
        total.update(str(path).encode() + path.read_bytes())
    return total.hexdigest()
