"""The committed notebooks are what a run of their texts gives, and the runner notices when not."""

import json
import shutil
import subprocess

import codepages
import nbformat
import notebooks
import pytest
import run_book
import sources
import student
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


def test_a_chapter_depends_on_its_own_data_and_on_no_other_exercises():
    text = run_book.BOOK / "09-lambda-returns.md"
    names = {path.relative_to(run_book.ROOT).as_posix() for path in run_book.inputs(text)}
    assert {"dreamer_lite/returns.py", "dreamer_lite/check/c09.py", "book/equations.yml"} <= names
    assert {"dreamer_lite/kernels.c", "book/_toc.yml"} <= names  # compiled; what is written
    assert "dreamer_lite/check/c07.py" not in names and "book/solutions/07.md" not in names
    assert run_book.other_check(run_book.ROOT / "dreamer_lite/check/c07.py", "09")


def test_a_page_that_gathers_the_ledger_depends_on_every_run():
    ledger = {path for path in (run_book.BOOK / "data/runs").rglob("*") if path.is_file()}
    assert ledger and ledger <= set(run_book.inputs(run_book.BOOK / "learning.md"))
    assert not ledger & set(run_book.inputs(run_book.BOOK / "09-lambda-returns.md"))


STUDY = """from dreamer_lite import study
study.recorded("tiny", lambda: [{"kl": 2}])"""


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A book of one page with one study, laid out to be run: its text, its study, the layout."""
    book, folder = tmp_path / "book", tmp_path / "_build/book"
    for name, value in dict(ROOT=tmp_path, BOOK=book, CACHE=tmp_path / "executed").items():
        monkeypatch.setattr(run_book, name, value)
    (book / "data/studies").mkdir(parents=True)
    text, kept = book / "01-page.md", book / "data/studies/tiny.json"
    text.write_text((TEXT % "1").replace("print(1)", STUDY))
    kept.write_text('{"rows": [{"kl": 1}]}')
    shutil.copytree(book, folder)
    return text, kept, folder


def test_a_full_run_brings_its_studies_into_the_book_and_a_quick_one_does_not(tiny, monkeypatch):
    text, kept, folder = tiny
    old = kept.read_text()
    monkeypatch.setenv("BOOK_PROFILE", "full")
    assert "'kl': 2" in run_book.run(text, "quick", folder)[0].read_text()
    assert kept.read_text() == old
    shutil.copy(kept, folder / "data/studies")  # as when the book is laid out again
    (folder / "data/studies/other.json").write_text("of a page that does not run now")
    first, _ = run_book.run(text, "full", folder)
    assert "'kl': 2" in first.read_text() and json.loads(kept.read_text())["rows"] == [{"kl": 2}]
    assert [path.name for path in kept.parent.iterdir()] == ["tiny.json"]
    monkeypatch.setattr(run_book, "execute", None)  # the study is kept, so nothing runs again
    assert run_book.run(text, "full", folder)[0] == first


def test_a_full_run_that_fails_keeps_the_studies_it_made(tiny, monkeypatch):
    text, kept, folder = tiny
    text.write_text(text.read_text().replace(STUDY, STUDY + "\n1 / 0"))
    monkeypatch.setenv("BOOK_PROFILE", "full")
    with pytest.raises(SystemExit, match="ZeroDivisionError"):
        run_book.run(text, "full", folder)
    assert json.loads(kept.read_text())["rows"] == [{"kl": 2}]


TIME = dict(seconds=10.0, profile="quick", hardware="a laptop", date="2026-01-01")


def test_a_running_time_that_says_the_same_changes_no_file():
    near, far = TIME | dict(seconds=12.0, date="2026-02-02"), TIME | dict(seconds=20.0)
    assert run_book.steady(TIME, near) == TIME
    assert run_book.steady(TIME, far) == far
    assert run_book.steady(None, near) == near
    assert run_book.steady(TIME, other := near | dict(hardware="another")) == other


def test_a_page_has_the_date_of_the_run_whose_outputs_it_shows(tmp_path):
    text, new = tmp_path / "09-x.md", tmp_path / "new.ipynb"
    for path in (text.with_suffix(".ipynb"), new):
        nbformat.write(executed(), path)
    near = TIME | dict(seconds=12.0, date="2026-02-02")
    assert run_book.kept(text, new, TIME, near) == TIME
    nbformat.write(executed(outputs=[]), new)
    assert run_book.kept(text, new, TIME, near) == TIME | dict(date="2026-02-02")
    assert run_book.kept(text, new, None, near) == near


def test_slow_chapters_are_named():
    assert run_book.over_budget({"a": TIME}, "quick") == []
    assert (
        "a took 61.0 s, at most 60"
        in run_book.over_budget({"a": TIME | {"seconds": 61.0}}, "quick")[0]
    )
    many = {str(i): TIME | {"seconds": 59.0} for i in range(10)}
    assert run_book.over_budget(many, "quick") == [
        "all chapters took 590 s, at most 540 are allowed"
    ]
    assert run_book.over_budget(many, "full") == []


def test_the_processor_time_counts_what_ended_kernels_computed(tmp_path):
    before = run_book.processor_time()
    run_book.execute(chapter(tmp_path, "sum(range(10**6))"), tmp_path)
    assert run_book.processor_time() > before


def test_the_box_states_the_running_time_of_this_very_execution():
    words = "- **Time:** 5. Running time, measured: not measured yet"
    data = {"text/markdown": words, "text/plain": words, "image/png": "measured: x"}
    nb = executed(outputs=[new_output("execute_result", data=data, execution_count=1)])
    told = sources.with_time(nb, TIME).cells[1].outputs[0].data
    assert told["text/markdown"].endswith(
        "measured: 10 s of processor time (quick profile, a laptop), last run on 2026-01-01"
    )
    assert told["text/plain"] == told["text/markdown"] and told["image/png"] == "measured: x"


def test_the_status_page_and_the_boxes_equal_the_timing_record():
    record = json.loads(run_book.TIMING.read_text()) if run_book.TIMING.exists() else {}
    status = (run_book.BOOK / "status.md").read_text(encoding="utf-8")
    assert not record or sources.with_status(status, record) == status
    for name, entry in record.items():
        nb = nbformat.read(run_book.BOOK / f"{name}.ipynb", as_version=4)
        assert sources.with_time(nbformat.from_dict(nb), entry) == nb, name


def test_the_status_page_is_rewritten_between_its_marks_only():
    page = "A\n<!-- timing -->\nold\n<!-- /timing -->\nB\n"
    new = sources.with_status(page, {"09-x": TIME})
    assert new.startswith("A\n") and new.endswith("B\n") and "old" not in new
    assert "| {doc}`09-x` | 10 s | quick | a laptop | 2026-01-01 |" in new
    assert sources.with_status(new, {"09-x": TIME}) == new


def test_the_readme_lists_every_written_chapter():
    readme = (run_book.ROOT / "README.md").read_text(encoding="utf-8")
    missing = [
        t.name for t in run_book.chapters() if f"| [{t.name[:2].lstrip('0')} · " not in readme
    ]
    assert [name for name in missing if name[:2].isdecimal() and name[:2] != "00"] == []


def test_links_between_pages_name_the_file_that_is_laid_out(tmp_path):
    (tmp_path / "08-x.md").write_text(
        "[nine](09-y.md#part) [ten](10-z.ipynb) [web](https://a.b/c.md)"
    )
    (tmp_path / "09-y.ipynb").write_text("[eight](08-x.ipynb)")
    for page in tmp_path.iterdir():
        sources.relink(page)
    eight = "[nine](09-y.ipynb#part) [ten](10-z.ipynb) [web](https://a.b/c.md)"
    assert (tmp_path / "08-x.md").read_text() == eight
    assert (tmp_path / "09-y.ipynb").read_text() == "[eight](08-x.md)"


def test_students_get_all_cells_but_the_solutions():
    nb = executed()
    nb.cells.append(new_code_cell("Solution('9.1')", metadata=dict(tags=["solution"])))
    nb.cells.append(new_code_cell("check('9.1', ...)", metadata=dict(tags=["stub"])))
    kept = student.strip(nb)
    assert [cell.source for cell in kept.cells] == ["# A page", "print(1 + 1)", "check('9.1', ...)"]
    assert len(nb.cells) == 4  # the original is whole


@pytest.mark.parametrize("text", run_book.chapters(), ids=lambda text: text.stem)
def test_no_committed_notebook_for_students_contains_a_solution(text):
    kept = student.strip(nbformat.read(text.with_suffix(".ipynb"), as_version=4))
    assert "dl-solution" not in nbformat.writes(kept)


def test_a_page_of_code_has_an_anchor_for_every_name():
    text = "import x\n\n\n@y\ndef f():\n    pass\n\n\nclass A:\n    def g(self):\n        pass\n"
    assert codepages.names(text) == {4: "f", 9: "A", 10: "A.g"}
    page = codepages.page("dreamer_lite/returns.py")
    assert '<span id="lambda_return">' in page and "<title>dreamer_lite/returns.py</title>" in page


def test_a_layout_keeps_nothing_of_an_earlier_one(tmp_path):
    gone = tmp_path / "data" / "runs" / "gone-s0" / "checkpoints" / "0000001000"
    gone.mkdir(parents=True)
    (gone / "agent.safetensors").write_text("")
    sources.lay_out(tmp_path)
    assert not (tmp_path / "data" / "runs" / "gone-s0").exists()
    assert (tmp_path / "_toc.yml").exists()


def test_a_printed_book_goes_with_the_site_until_its_sources_change(tmp_path, monkeypatch):
    page, pdf = tmp_path / "book/intro.md", tmp_path / "latex/book.pdf"
    offered, built = tmp_path / "html/book.pdf", []

    def build(command, check):
        built.append(command)
        (tmp_path / "html").mkdir()
        (tmp_path / "html/index.html").touch()
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(sources.subprocess, "run", build)
    for folder in (page.parent, pdf.parent):
        folder.mkdir()
    page.write_text("old")
    for _ in range(2):
        sources.website(tmp_path, preview=False)
    assert len(built) == 1 and not offered.exists()
    pdf.write_text("printed")
    for _ in range(2):
        sources.website(tmp_path, preview=False)
    assert len(built) == 2 and offered.read_text() == "printed"
    page.write_text("new")
    sources.website(tmp_path, preview=False)
    assert len(built) == 3 and not pdf.exists() and not offered.exists()
