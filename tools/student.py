"""Notebooks for students: the same pages without the solutions.

python tools/student.py [folder]      # all chapters into _build/student
"""

import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode


def strip(nb: NotebookNode) -> NotebookNode:
    """A copy without the cells that show a solution; outputs stay, stubs are as they were."""
    copy = nbformat.from_dict(nb)
    copy.cells = [cell for cell in copy.cells if "solution" not in cell.metadata.get("tags", [])]
    return copy


def write(nb: NotebookNode, path: Path) -> None:
    """Put the student's version of a notebook into a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(strip(nb), path)


def main(folder: str = "_build/student") -> None:
    """The committed notebooks, stripped."""
    from sources import chapters

    for text in chapters():
        write(nbformat.read(text.with_suffix(".ipynb"), 4), Path(folder) / f"{text.stem}.ipynb")
    print(f"{len(chapters())} notebooks without solutions in {folder}")


if __name__ == "__main__":
    main(*sys.argv[1:])
