"""What a committed notebook must look like, and how to get it there.

    python tools/notebooks.py normalize book/*.ipynb      # rewrite what differs from run to run
    python tools/notebooks.py check book/*.ipynb          # name what is wrong; exit status 1

A chapter is a pair: `NN-name.md` holds the text and the code (this is what people review),
`NN-name.ipynb` holds the same plus the outputs of an execution from top to bottom.
"""

import hashlib
import sys
from collections import Counter
from pathlib import Path

import jupytext
import nbformat
from jupytext.compare import NotebookDifference, compare_notebooks
from nbformat import NotebookNode

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def normalize(nb: NotebookNode) -> NotebookNode:
    """Remove what differs between two executions of the same text: ids, versions, clocks."""
    nb.nbformat, nb.nbformat_minor = 4, 5
    nb.metadata.pop("widgets", None)
    nb.metadata.pop("language_info", None)
    nb.metadata["kernelspec"] = dict(display_name="Python 3", language="python", name="python3")
    seen = Counter()
    for cell in nb.cells:
        cell["id"] = cell_id(cell, seen)
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            drop_dead_widgets(output)
    return nb


def cell_id(cell: NotebookNode, seen: Counter) -> str:
    """A name made from the cell's text, so that inserting a cell renames no other."""
    digest = hashlib.sha256((cell.cell_type + cell.source).encode()).hexdigest()[:8]
    seen[digest] += 1
    return digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"


def drop_dead_widgets(output: NotebookNode) -> None:
    """A stored live widget has no kernel behind it: keep the HTML that works without one."""
    data = output.get("data", {})
    if "text/html" in data:
        data.pop(WIDGET_VIEW, None)


def problems(nb: NotebookNode) -> list[str]:
    """Why these outputs are not those of one clean, normalized run from top to bottom."""
    code = [cell for cell in nb.cells if cell.cell_type == "code" and cell.source.strip()]
    counts = [cell.execution_count for cell in code]
    found = []
    if counts != list(range(1, len(code) + 1)):
        found.append(f"not run from top to bottom (cell counts {counts}); run `make notebooks`")
    for cell in code:
        found += [f"{fault} in the cell {first_line(cell)!r}" for fault in faults(cell)]
    if normalize(nbformat.from_dict(nb)) != nb:
        found.append("not normalized; run `python tools/notebooks.py normalize`")
    return found


def faults(cell: NotebookNode) -> list[str]:
    """Exceptions and anything on stderr, where warnings go."""
    expected = "raises-exception" in cell.metadata.get("tags", [])
    found = []
    for output in cell.outputs:
        if output.output_type == "error" and not expected:
            found.append(f"{output.ename}: {output.evalue}")
        if output.get("name") == "stderr":
            found.append(f"text on stderr: {output.text.strip()}")
    return found


def first_line(cell: NotebookNode) -> str:
    """To recognize a cell in a message."""
    return cell.source.strip().splitlines()[0]


def differences(path: Path) -> list[str]:
    """How the notebook's cells differ from those of its text."""
    text = path.with_suffix(".md")
    if not text.exists():
        return [f"has no text {text.name} beside it"]
    try:
        compare_notebooks(jupytext.read(path), jupytext.read(text), fmt="md:myst")
    except NotebookDifference as difference:
        return [f"differs from {text.name}; run `make notebooks`\n{difference}"]
    return []


def check(path: Path) -> list[str]:
    """Everything that keeps this notebook from being committed."""
    return problems(nbformat.read(path, as_version=4)) + differences(path)


def main(command: str, *names: str) -> int:
    """Apply `normalize` or `check` to each notebook."""
    paths = sorted({Path(name).with_suffix(".ipynb") for name in names})
    paths = [path for path in paths if path.exists()]
    if command == "normalize":
        for path in paths:
            nbformat.write(normalize(nbformat.read(path, as_version=4)), path)
        return 0
    assert command == "check", f"unknown command {command}: say normalize or check"
    found = [f"{path}: {problem}" for path in paths for problem in check(path)]
    print("\n".join(found), end="\n" if found else "")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
