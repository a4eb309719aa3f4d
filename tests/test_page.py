"""What cells show reads the same in every reader, and a careless author is told so."""

import base64
import io
import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure
from PIL import Image, ImageChops

from dreamer_lite import rssm
from dreamer_lite.page import (
    BOXES,
    Lab,
    Quiz,
    Solution,
    agent_drawing,
    box,
    drawing,
    equation,
    files,
    say,
    show,
    table,
    versus,
)
from dreamer_lite.page.box import times
from dreamer_lite.page.drawing import describe
from dreamer_lite.page.files import book_folder, chapter_of
from dreamer_lite.page.lab import module
from dreamer_lite.page.source import code_lines, name, resolve, short_docstrings, source
from dreamer_lite.returns import lambda_return

SAMPLE, BOOK = Path(__file__).with_name("sample"), Path(__file__).parents[1] / "book"
ALT = "Bars for rewards and values and below them the returns"


@pytest.fixture(autouse=True)
def inside(monkeypatch, tmp_path):
    """Each test stands in a book of its own: the model chapter, with the labs of the real one."""
    shutil.copytree(SAMPLE, tmp_path / "book")
    shutil.copytree(BOOK / "labs", tmp_path / "book/labs")
    monkeypatch.chdir(tmp_path / "book")
    return tmp_path / "book"


def forms(output):
    return output._repr_mimebundle_()


def test_a_sentence_is_markdown_and_plain_text():
    assert forms(say(" Two is 2. ")) == {"text/plain": "Two is 2.", "text/markdown": "Two is 2."}
    with pytest.raises(ValueError, match="a sentence"):
        say("  ")


def test_a_table_has_titles_and_aligns_numbers_to_the_right():
    lines = table(["λ", "bias"], [[0.5, 10], [1, 2]]).markdown.splitlines()
    assert lines == ["| λ | bias |", "| :--- | ---: |", "| 0.5 | 10 |", "| 1 | 2 |"]
    assert table(["λ", "bias"], [[0.5, 10]]).plain == "λ    bias\n0.5    10"
    with pytest.raises(ValueError, match="each row needs 2 cells"):
        table(["a", "b"], [[1]])


def test_shown_code_is_the_code_of_the_package():
    shown = show(lambda_return)
    assert source(lambda_return) in shown.plain and source(lambda_return) in shown.markdown
    words = re.sub(r"<[^>]+>", "", shown.html)
    assert "def lambda_return(reward: Tensor" in words and "return torch.stack(" in words


def test_shown_code_says_where_it_stands_and_what_tests_it():
    shown = show(lambda_return)
    assert 'href="../dreamer_lite/returns.py#lambda_return"' in shown.html
    assert 'href="../tests/test_returns.py#test_golden_numbers"' in shown.html
    assert "dreamer_lite/returns.py · tested by tests/test_returns.py::test_golden" in shown.plain


def test_methods_properties_and_several_pieces_can_be_shown():
    shown = show(rssm.RSSM.recur, rssm.State.feat, test="tests/test_rssm.py::test_x")
    assert "def recur(" in shown.plain and "@property\ndef feat(" in shown.plain
    assert shown.plain.startswith("def recur")  # flush left
    assert name(rssm.State.feat) == "State.feat"


def long(x):
    """Too long."""
    x = [
        0, 1, 2, 3, 4, 5, 6, 7,
        0, 1, 2, 3, 4, 5, 6, 7,
        0, 1, 2, 3, 4, 5, 6, 7,
        0, 1, 2, 3, 4, 5, 6, 7,
        0, 1, 2, 3, 4, 5, 6, 7,
        0, 1, 2, 3, 4, 5, 6, 7,
        0, 1, 2, 3, 4, 5, 6, 7,
        0, 1, 2, 3, 4, 5, 6, 7,
        0, 1, 2, 3, 4, 5, 6, 7,
        0, 1, 2, 3, 4, 5, 6, 7,
        0, 1, 2, 3, 4, 5, 6, 7,
        0, 1, 2, 3, 4, 5, 6, 7,
        0, 1, 2, 3, 4, 5, 6, 7,
        0, 1, 2, 3, 4, 5, 6, 7,
        0, 1, 2, 3, 4, 5, 6, 7,
        0, 1, 2, 3, 4, 5, 6, 7,
        0, 1, 2, 3, 4, 5, 6, 7,
        0, 1, 2, 3, 4, 5, 6, 7,
        0, 1, 2, 3, 4, 5, 6, 7,
        0, 1, 2, 3, 4, 5, 6, 7,
        0, 1, 2, 3, 4, 5, 6, 7,
        0, 1, 2, 3, 4, 5, 6, 7,
    ]  # fmt: skip
    return x


def test_code_that_does_not_fit_a_page_is_refused():
    with pytest.raises(ValueError, match="long has 26 lines of code, a page shows at most 25"):
        show(long)
    with pytest.raises(ValueError, match="at least one"):
        show()
    with pytest.raises(ValueError, match="needs a function, method or class, got 3"):
        show(3)


def test_only_lines_of_code_count():
    text = 'def f():\n    """One\n\n    two."""\n\n    # three\n    return (\n        1\n    )\n'
    assert code_lines(text) == 4


def test_docstrings_can_be_cut_to_their_first_line():
    text = 'def f():\n    """One.\n\n    Two.\n    """\n    return 1'
    assert short_docstrings(text) == 'def f():\n    """One. ..."""\n    return 1'
    assert short_docstrings("def f():\n    return 1") == "def f():\n    return 1"


def test_an_equation_shows_its_origin_its_code_and_its_test():
    shown = equation("lambda-return")
    assert shown.plain.startswith("The λ-return: V3, arXiv:2301.04104v2\ndef lambda_return(")
    assert "test_golden_numbers" in shown.html and "Eq." not in shown.plain
    with pytest.raises(ValueError, match="no entry 'mu'; it has lambda-return"):
        equation("mu")


def test_the_number_and_the_missing_test_of_an_equation_are_said(inside):
    path = inside / "equations.yml"
    text = path.read_text().replace("number: null", "number: 7")
    path.write_text(re.sub(r"test: .*", 'untested: "a definition only"', text))
    assert equation("lambda-return").plain.startswith(
        "The λ-return: V3, arXiv:2301.04104v2, Eq. 7\nnot tested: a definition only\n"
    )


def test_a_symbol_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="dreamer_lite.rssm.RSSM.stepp does not exist"):
        resolve("rssm.RSSM.stepp")


def test_every_answer_of_a_quiz_opens_its_own_explanation():
    shown = Quiz("9.1")
    assert shown.html.count("<details>") == 3 and shown.html.count("<strong>Right.</strong>") == 1
    assert "<code>lam</code> = 0" in shown.html and "<em>λ = 1</em>" in shown.html
    assert "<script" not in shown.html and "<details open" not in shown.html


def test_print_keeps_the_answers_of_a_quiz_to_itself():
    shown = Quiz("9.1")
    for text in (shown.plain, shown.markdown):
        assert "b) on v_{t+1}" in text and "Right" not in text and "left behind" not in text


@pytest.mark.parametrize(
    "old, new, message",
    [
        (", right: true", "", "one of them right, got 3 with 0 right"),
        ('left behind."}', 'left behind.", right: true}', "got 3 with 2 right"),
        ("That is the state which is left behind.", "No.", "explain 'on v_t' in 5 words"),
    ],
)
def test_a_quiz_that_teaches_nothing_is_refused(inside, old, new, message):
    path = inside / "quizzes/09.yml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        Quiz("9.1")


def test_text_cannot_break_out_of_a_quiz(inside):
    path = inside / "quizzes/09.yml"
    path.write_text(path.read_text().replace("on v_H only", "<b>on</b>"))
    assert "<b>" not in Quiz("9.1").html


def test_a_solution_is_closed_runs_and_says_that_it_is_right():
    shown = Solution("9.2")
    assert re.search(r"<details class=\"dl-solution dl-open\"><summary>Solution 9.2<", shown.html)
    assert "✓ 9.2 right in all" in shown.html and "highlight-python" in shown.html
    assert "my_return" not in shown.plain and "my_return" not in shown.markdown
    assert r"\(\lambda = 0\)" in Solution("9.1").html


def test_a_solution_that_is_wrong_ends_the_build(inside):
    path = inside / "solutions/09.md"
    path.write_text(path.read_text().replace("(1 - lam) * v + lam * ret", "v"))
    with pytest.raises(AssertionError, match=r"✗ 9\.2 differs in case 1"):
        Solution("9.2")
    with pytest.raises(ValueError, match="no section '## 9.7'; it has 9.1, 9.2, 9.3, 9.4"):
        Solution("9.7")


def test_the_box_says_what_a_chapter_asks_and_gives():
    text = box(9).markdown
    assert "**Question.** How far should a dream count" in text
    assert "write the recursion; prove that it is a mixture; find the off-by-one." in text
    assert "**You need** chapter 8." in text and "`returns.lambda_return`" in text
    assert "115 for the 4 exercises. Running time, measured: not measured yet" in text
    with pytest.raises(ValueError, match=r"one text 77-\*.md"):
        box(77)


def test_the_running_time_is_that_of_the_timing_record(inside):
    (inside / "data").mkdir()
    entry = dict(seconds=12.3, profile="quick", hardware="a laptop", date="2026-01-01")
    (inside / "data/timing.json").write_text(json.dumps({"09-sample": entry}))
    words = "measured: 12 s of processor time (quick profile, a laptop), last run on 2026-01-01"
    assert words in box(9).markdown


def test_reading_takes_longer_where_there_is_more_to_read():
    text = "---\n---\n" + "word " * 1200
    assert times(text) == "about 10 minutes to read"
    assert times(text + "word " * 1200) == "about 20 minutes to read"
    assert times(text + "\n:::{exercise} One ★★\n:::") == (
        "about 10 minutes to read, 20 for the 1 exercises"
    )
    exercises = "\n## Exercises\n" + "word " * 1200 + "\n## Further reading\n"
    assert times(text + exercises) == "about 10 minutes to read"


def test_the_differences_of_a_chapter_are_listed():
    assert (
        "**The first reward**" in versus(9).markdown and "*Here:* not counted" in versus(9).markdown
    )
    with pytest.raises(ValueError, match="no row with `chapter: 8`"):
        versus(8)


def test_a_lab_carries_its_script_its_data_and_its_first_picture():
    shown = Lab("lambda-lab", poster=Figure((2, 1)), alt=ALT, data={"a": "</script>"})
    assert 'data-lab="lambda-lab"' in shown.html and f'alt="{ALT}"' in shown.html
    assert not re.search(r"^\s*(import|export)\b|https?://(?!www\.w3\.org)", shown.html, re.M)
    data = re.search(r'application/json">(.*?)</script>', shown.html)[1]
    assert json.loads(data) == {"a": "</script>"}
    assert Image.open(io.BytesIO(base64.b64decode(forms(shown)["image/png"]))).size[0] == 160
    assert forms(shown)["text/plain"] == f"Lab lambda-lab: {ALT}"


def test_a_lab_that_is_mute_heavy_or_not_inlined_is_refused(inside):
    with pytest.raises(ValueError, match="eight words"):
        Lab("lambda-lab", poster=Figure(), alt="A lab")
    with pytest.raises(ValueError, match="at most 60000 are allowed"):
        Lab("lambda-lab", poster=Figure(), alt=ALT, data={"x": "x" * 60_000})
    with pytest.raises(ValueError, match="there is no lab"):
        module("mu-lab")
    (inside / "labs/odd.js").write_text('import { x } from "./else.js";\n')
    with pytest.raises(ValueError, match="cannot be inlined"):
        module("odd")
    (inside / "labs/odd.js").write_text('const x = "</script>";\n')
    with pytest.raises(ValueError, match="end it early"):
        module("odd")


def test_computed_sentences_have_a_minus_sign_where_python_prints_a_hyphen():
    text = "It fell to -2.5 (-3 to -1), by `x[-1]`, $e^{-1}$, $ -1 $ and in 2-3 steps to E-5."
    found = "It fell to −2.5 (−3 to −1), by `x[-1]`, $e^{-1}$, $ -1 $ and in 2-3 steps to E-5."
    assert say(text).markdown == say(text).plain == found
    assert "−0.5" in table(["x"], [["-0.5"]]).markdown
    assert say("```\nf -1\n```").markdown == "```\nf -1\n```"


def test_the_drawing_fills_the_boxes_of_the_chapters_so_far():
    words = describe(9, set(range(16)))
    assert "New: returns. Built before: world, memory" in words and "yet: none. Still" in words
    assert describe(15, set()).endswith("Still to come: none.")
    assert {n for box in BOXES.values() for n in box.chapters} == set(range(1, 12))


def test_a_box_whose_chapter_is_not_written_is_not_shown_as_built():
    words = "New: returns. Built before: imagination. Not written yet: world, memory"
    assert words in agent_drawing(9).plain  # of the model book only chapters 8 and 9 are written
    one, other = (drawing.svg(9, ready) for ready in ({8}, {4, 8}))
    gone = one.count("not written yet") - other.count("not written yet")
    assert gone == 3  # posterior, prior, and the memory, which chapter 4 builds too


def test_a_box_that_two_chapters_build_is_new_in_both():
    memory = BOXES["memory"]
    found = [drawing.state(memory, n, {4}) for n in (1, 2, 3, 4, 5)]
    assert found == ["Still to come", "New", "Not written yet", "New", "Built before"]


def test_chapters_are_written_once_the_contents_call_them_notebooks(inside):
    assert files.written(inside) == {8, 9}
    lines = "# - file: 02-x.ipynb\n- file: 03-y.ipynb\n- file: 04-z\n- file: speed.ipynb\n"
    (inside / "_toc.yml").write_text(lines)
    assert files.written(inside) == {3}


def test_the_drawing_comes_as_small_vectors_that_are_always_the_same_and_as_a_picture():
    shown = forms(agent_drawing(9))
    assert shown["image/svg+xml"] == forms(agent_drawing(9))["image/svg+xml"]
    assert len(shown["image/svg+xml"].encode()) < 40_000
    assert Image.open(io.BytesIO(base64.b64decode(shown["image/png"]))).size == (910, 450)
    root = ElementTree.fromstring(shown["image/svg+xml"])
    assert root.attrib["role"] == "img" and root[0].text == shown["text/plain"]
    assert not re.search(r"20\d\d-|matplotlib|<metadata", shown["image/svg+xml"])


def luminance(color):
    """Of #rrggbb, as the accessibility guidelines define it."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(*colors):
    dark, light = sorted(map(luminance, colors))
    return (light + 0.05) / (dark + 0.05)


def test_the_drawing_is_legible_on_light_and_dark_pages():
    grounds = re.findall(r'<path d="M 0 324[^"]*"\s*style="fill: ([^";]*)', agent_drawing(9).svg)
    assert grounds == ["none"]  # the page shows through
    assert all(contrast(drawing.GRAY, page) > 3 for page in ("#ffffff", "#14181e", "#111111"))
    assert all(contrast("#111111", look.face) > 7 for look in drawing.LOOKS.values())


def test_the_drawings_on_announced_pages_are_those_of_the_code():
    ready, folder = files.written(BOOK), BOOK / "_assets/agent"
    announced = set(range(1, 16)) - ready
    assert {int(path.stem) for path in folder.iterdir()} == announced
    for chapter in announced:
        new = drawing.png(chapter, ready)
        stored = (folder / f"{chapter:02d}.png").read_bytes()
        ours, theirs = (Image.open(io.BytesIO(x)).convert("L") for x in (new, stored))
        assert ours.size == theirs.size, chapter
        assert ImageChops.difference(ours, theirs).getextrema()[1] < 64, f"draw {chapter} anew"


def test_the_book_is_found_from_inside_and_from_above(inside, monkeypatch):
    assert book_folder() == inside
    monkeypatch.chdir(inside / "labs")
    assert book_folder() == inside
    monkeypatch.chdir(inside.parent)
    assert book_folder() == inside


def test_an_id_of_another_form_is_refused():
    assert chapter_of("9.2") == "09" and chapter_of("12.1") == "12"
    with pytest.raises(ValueError, match='an id looks like "9.2"'):
        chapter_of("nine")
