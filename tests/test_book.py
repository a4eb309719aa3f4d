"""The committed notebooks are what a run of their texts gives, and the runner notices when not."""

import nbformat
import notebooks
import pytest
import run_book
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

TEXT = """---
jupytext:
  text_representation: {extension: .md, format_name: myst}
kernelspec: {display_name: Python 3, language: python, name: python3}
---

# A page

```{code-cell} ipython3
print(%s)
```
"""


WARNS = "__import__('warnings').warn('old')"


def listed():
    """The names in the contents, as paths without their endings."""
    return {(run_book.BOOK / f).with_suffix("") for f in run_book.toc_files(run_book.contents())}


def executed(**changes):
    """A well-formed notebook of one text and one code cell."""
    output = new_output("stream", name="stdout", text="2\n")
    code = new_code_cell("print(1 + 1)", execution_count=1, outputs=[output])
    nb = notebooks.normalize(new_notebook(cells=[new_markdown_cell("# A page"), code]))
    nb.cells[1].update(changes)
    return nb


def test_the_contents_list_exactly_the_pages():
    assert {page.with_suffix("") for page in run_book.BOOK.glob("*.md")} == listed()


def test_every_chapter_is_committed_executed_normalized_and_in_step_with_its_text():
    found = [p for text in run_book.chapters() for p in notebooks.check(text.with_suffix(".ipynb"))]
    assert not found, "\n".join(found)


def test_no_notebook_is_outside_the_contents():
    chapters = {text.with_suffix(".ipynb") for text in run_book.chapters()}
    assert set(run_book.BOOK.glob("*.ipynb")) == chapters


def test_every_page_has_a_section():
    # without one the theme's script throws for want of a table of contents
    for page in run_book.BOOK.glob("*.md"):
        assert "\n## " in page.read_text(), page.name


def test_a_clean_notebook_has_no_problems():
    assert notebooks.problems(executed()) == []


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(execution_count=None), "not run from top to bottom"),
        (dict(execution_count=7), "not run from top to bottom"),
        (dict(id="random"), "not normalized"),
        (dict(outputs=[new_output("stream", name="stderr", text="UserWarning")]), "UserWarning"),
        (dict(outputs=[new_output("error", ename="KeyError", evalue="'x'")]), "KeyError: 'x'"),
    ],
)
def test_a_bad_notebook_is_refused_with_the_reason(changes, message):
    assert message in "\n".join(notebooks.problems(executed(**changes)))


def test_an_exception_that_the_text_announces_is_fine():
    error = new_output("error", ename="ValueError", evalue="as expected")
    nb = executed(outputs=[error])
    nb.cells[1].metadata["tags"] = ["raises-exception"]
    assert notebooks.problems(nb) == []


def test_normalizing_removes_the_clock_the_ids_and_the_dead_widget():
    both = {"text/html": "<p>", notebooks.WIDGET_VIEW: {"model_id": "1f"}}
    nb = executed(id="random", outputs=[new_output("display_data", data=both)])
    nb.metadata.widgets = {"state": {}}
    nb.cells[1].metadata.execution = {"shell.execute_reply": "2026-01-01"}
    notebooks.normalize(nb)
    assert "widgets" not in nb.metadata and "execution" not in nb.cells[1].metadata
    assert nb.cells[1].outputs[0].data == {"text/html": "<p>"}
    assert notebooks.problems(nb) == []


def test_cell_ids_follow_the_text_and_not_the_place():
    cells = [new_code_cell("x"), new_code_cell("x"), new_code_cell("y")]
    one = notebooks.normalize(new_notebook(cells=cells))
    two = notebooks.normalize(new_notebook(cells=[new_code_cell("y"), new_code_cell("x")]))
    ids = [cell.id for cell in one.cells]
    assert len(set(ids)) == 3
    assert [cell.id for cell in two.cells] == [ids[2], ids[0]]


def chapter(folder, code):
    text = folder / "01-page.md"
    text.write_text(TEXT % code)
    return text


def test_a_chapter_runs_and_agrees_with_its_text(tmp_path):
    text = chapter(tmp_path, "1 + 1")
    nb = run_book.execute(text, tmp_path)
    nbformat.write(nb, text.with_suffix(".ipynb"))
    assert nb.cells[-1].outputs[0].text == "2\n"
    assert notebooks.check(text.with_suffix(".ipynb")) == []
    assert run_book.execute(text, tmp_path) == nb
    chapter(tmp_path, "1 + 2")
    assert "differs from 01-page.md" in notebooks.check(text.with_suffix(".ipynb"))[0]


@pytest.mark.parametrize("code, message", [("1 / 0", "ZeroDivisionError"), (WARNS, "old")])
def test_a_chapter_that_fails_or_warns_ends_the_build(tmp_path, code, message):
    with pytest.raises(SystemExit, match=message):
        run_book.execute(chapter(tmp_path, code), tmp_path)


def test_a_changed_file_or_profile_changes_the_fingerprint(tmp_path):
    text = chapter(tmp_path, "1")
    first = run_book.fingerprint([text], "quick")
    assert run_book.fingerprint([text], "quick") == first
    assert run_book.fingerprint([text], "full") != first
    chapter(tmp_path, "2")
    assert run_book.fingerprint([text], "quick") != first
