"""The rules for chapters: every written chapter keeps them, and each rule can say no."""

import ast
import shutil
from collections import Counter
from pathlib import Path

import jupytext
import lint_book
import nbformat
import pytest
from lint_book import Page
from nbformat.v4 import new_code_cell, new_notebook, new_output

BOOK = Path(__file__).with_name("sample")
SAMPLE = BOOK / "09-sample.md"
CHAPTERS = lint_book.pages()


def sample(*changes):
    """The complaints about the model chapter after replacing texts by others."""
    text = SAMPLE.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text, f"the sample does not contain {old!r}"
        text = text.replace(old, new)
    return lint_book.complaints(Page(SAMPLE, text, BOOK, checks={"9.2": None}))


def test_the_model_chapter_keeps_all_rules():
    assert sample() == []


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.path.stem)
def test_every_written_chapter_keeps_all_rules(page):
    found = lint_book.complaints(page)
    assert not found, "\n".join(found)


BROKEN = {
    # front matter
    "a missing field": ("widget: lambda-lab\n", "", "front matter lacks `widget`"),
    "two objectives": (", find the off-by-one]", "]", "needs 3 objectives, has 2"),
    "no question": ("trust the critic?\nobj", "trust the critic.\nobj", "question mark"),
    "a later prerequisite": ("requires: [8]", "requires: [12]", "numbers of earlier chapters"),
    "an unwritten prerequisite": ("requires: [8]", "requires: [3, 8]", "are not written, [3]"),
    "an unknown paper": ("{key: sample2020", "{key: nobody1999", "its key in references.bib"),
    "an absent widget": ("widget: lambda-lab", "widget: kl-lab", "`widget` is 'kl-lab'"),
    "an absent symbol": ("[returns.lambda_return]", "[returns.mu_return]", "returns.mu_return"),
    # the template
    "a missing section": ("## By hand", "## By foot", "no section '## By hand'"),
    "no box": ("box(9)", "print(9)", "needs a cell `box(9)`"),
    "no drawing": ("agent_drawing(9)\n```", "print(9)\n```", "'Summary' needs a cell"),
    "no differences": ("versus(9)", "print(9)", "'Paper versus code' needs a cell"),
    "a quiz too late": ("## The recursion", "## Experiment", "needs a quiz in the middle"),
    # equations
    "an unlisted equation": ("equations: [lambda-return]", "equations: []", "front matter []"),
    "another formula": (r"\lambda R_{t+1} \right]", r"\lambda R_{t} \right]", "reads otherwise"),
    "no code for it": ('equation("lambda-return")', "pass", 'a cell equation("lambda-return")'),
    "no link to it": ("[the λ-return](#eq-lambda-return)", "it", "never linked to"),
    "a label of another form": ("$$ (eq-lambda-return)", "$$ (lambda)", "must begin with eq-"),
    # numbers
    "a typed result": ("What was it worth?", "It was worth 24.87 points.", "number 24.87 is typed"),
    "a typed percentage": ("What was it worth?", "It gained 40 %.", "number 40 % is typed"),
    "a typed thousand": ("What was it worth?", "It took 12,000 steps.", "number 12,000 is typed"),
    "a typed integer": ("What was it worth?", "It scored 817.", "number 817 is typed"),
    "a result in a formula": ("for $\\lambda = 0$", "for $\\lambda = 0.3$", "number 0.3 is typed"),
    "a result typed in say": ("is one half.", "is 0.5.", "number 0.5 is typed"),
    "a constant in braces": ("is one half.", "is {0.5}.", "number 0.5 is typed"),
    "a formatted constant": ("is one half.", "is {12_000:,}.", "number 12,000 is typed"),
    "a sum of constants": ("is one half.", "is {0.25 + 0.25:.2f}.", "number 0.50 is typed"),
    "a constant and its unit": ("is one half.", "is {40} %.", "number 40 % is typed"),
    "a stale number": ("All papers take λ = 0.95.", "", "`numbers` lists 0.95"),
    "a number without reason": ("the λ of all three papers", "lambda", "0.95 needs a reason"),
    # notation
    "an unlisted symbol": ("$\\lambda = 0$", "$\\lambda = \\kappa$", "symbol kappa is not"),
    "an unused symbol": ("numbers: {", "symbols: {kappa: a loss}\nnumbers: {", "no formula uses"),
    # figures
    "a short alternative text": ("A rising line of returns over the six steps of one short dream",
                                 "A line", "'A line' has fewer than eight words"),
    "a mute drawing": ("as boxes and arrows, with the returns highlighted", "",
                       "'Drawing of the whole agent' has fewer than eight words"),
    "no caption": ("**Figure 9.1.** The", "The", "comes no caption"),
    "a wrong number": ("**Figure 9.1.** The", "**Figure 9.3.** The", "expected ['9.1']"),
    "an unused figure": ("to follow in Figure 9.1.", "to follow.", "Figure 9.1 is never"),
    # markup
    "a role": ("[glossary](glossary.md)", "{doc}`glossary`", "role {doc} does not show"),
    "an unknown directive": (":::{prf:theorem}", ":::{literalinclude}", "{literalinclude} is not"),
    "a fence of ticks": (":::{exercise} The two ends ★", "```{exercise} The two ends ★\n```",
                         "needs a colon fence"),
    "HTML": ("A return is a reward", "A <b>return</b> is a reward", "raw HTML <b>"),
    # exercises
    "three exercises": ('"9.3", "9.4"]', '"9.3"]', "needs at least 4 exercises, has 3"),
    "another label": (":label: ex-9-3", ":label: ex-9-7", "expected ['9.1', '9.2', '9.3', '9.4']"),
    "no grade": ("The two ends ★\n", "The two ends\n", "exercise 9.1 has no grade"),
    "no bug to find": ("here? (find the bug)\n", "here? ★\n", "has no find-the-bug exercise"),
    "no solution": ('Solution("9.3")', "print()", 'exercise 9.3 has no cell Solution("9.3")'),
    "an open solution": ("[solution, remove-input]", "[remove-input]", "needs the tags solution"),
    "an unmarked stub": (":tags: [stub]\n", "", "needs the tag stub"),
    "no check": ('check("9.2", my_return)', "my_return", "no stub cell with check"),
    # the rest
    "a quiz that is not shown": ('Quiz("9.1")', "print()", "quizzes shown []"),
    "an unknown link": ("https://example.org/sample", "https://example.org/x", "add it to"),
    "no links": ("](https://example.org/sample)", "](glossary.md)", "cites nothing"),
    "no checks": ("assert (", "print(", "one per equation, two at least"),
}  # fmt: skip


@pytest.mark.parametrize("old, new, complaint", BROKEN.values(), ids=BROKEN)
def test_a_broken_chapter_is_refused_with_the_reason(old, new, complaint):
    found = sample((old, new))
    assert any(complaint in text for text in found), found


def test_every_rule_has_said_no():
    said = {rule.__name__ for rule in lint_book.RULES}
    pages = [(old, new) for old, new, _ in BROKEN.values()]
    for change in pages:
        text = SAMPLE.read_text(encoding="utf-8").replace(*change)
        page = Page(SAMPLE, text, BOOK, checks={"9.2": None})
        said -= {rule.__name__ for rule in lint_book.RULES if attempt(rule, page)}
    assert not said


def attempt(rule, page):
    try:
        return rule(page)
    except (KeyError, TypeError):  # rules after the first rely on complete front matter
        return []


def test_right_answers_that_all_stand_at_one_place_are_refused(tmp_path):
    book = shutil.copytree(BOOK, tmp_path / "book")
    one = (book / "quizzes/09.yml").read_text()
    two = one.replace('"9.1"', '"9.2"')
    text = SAMPLE.read_text().replace('Quiz("9.1")', 'Quiz("9.1")\nQuiz("9.2")')
    (book / "quizzes/09.yml").write_text(one + two)
    assert "stand at one place" in lint_book.quizzes(Page(SAMPLE, text, book))[0]
    first = two.index("    - ")
    moved = two[:first] + "    - {text: never, why: It always depends on one.}\n" + two[first:]
    (book / "quizzes/09.yml").write_text(one + moved)
    assert lint_book.quizzes(Page(SAMPLE, text, book)) == []


def test_no_place_holds_more_than_half_of_the_right_answers():
    rows = [page.data(f"quizzes/{page.number:02d}.yml") for page in CHAPTERS]
    found = Counter(place for quizzes in rows for place in lint_book.places(quizzes))
    assert found.total() >= len(CHAPTERS) and max(found.values()) <= found.total() / 2, found


def test_letters_are_found_in_formulas_only():
    text = "A $x_t + \\mathrm{cat}$ `$q$` and\n$$\n\\hat\\gamma_{\\text{old}} = K\n$$\n"
    assert lint_book.letters(text) == {"x", "t", "gamma", "K"}


def test_a_number_is_typed_unless_a_name_or_a_call_made_it():
    call = ast.parse("""say("1.5 " f"a {x:.2f} b {2.5}{-3.5:+} {y} " + f"{len('4.5')}")""")
    assert lint_book.literal(call.body[0].value) == ["1.5 a ", " b 2.5-3.5 ", " ", "", ""]


def test_a_symbol_may_be_declared_on_its_page():
    change = (r"for $\lambda = 0$", r"for $\lambda = \kappa$")
    assert sample(change, ("numbers: {", "symbols: {kappa: a bound}\nnumbers: {")) == []


def test_a_letter_has_one_meaning_unless_it_is_listed_for_one_chapter():
    assert lint_book.contract(CHAPTERS) == []


def test_two_meanings_of_a_letter_are_noticed(tmp_path):
    book = shutil.copytree(BOOK, tmp_path / "book")
    gate, share = ({"u": f"the {name}"} for name in ("gate", "share"))
    four, six = (
        Page(book / f"0{n}-x.md", f"---\nsymbols: {own}\n---\n", book)
        for n, own in ((4, gate), (6, share))
    )
    found = lint_book.contract([four, six])
    assert [text.split(":")[0] for text in found] == ["u in chapter 4", "u in chapter 6"]
    rows = "| $u$ | 4 | the gate |\n| $u$, $\\varphi$ | 6, 7 | the share |\n"
    with (book / "notation.md").open("a") as file:
        file.write(f"\n{lint_book.LOCAL}\n\n| letter | chapter | meaning |\n|---|---|---|\n{rows}")
    assert lint_book.contract([four]) == []
    assert ["phi in chapter 6" in text for text in lint_book.contract([four, six])] == [True]
    other = Page(four.path, "---\nsymbols: {u: another gate}\n---\n", book)
    assert "'another gate'" in lint_book.contract([other])[0]


def test_a_letter_of_another_chapter_is_not_known():
    change = (r"for $\lambda = 0$", r"for $\lambda = u$")
    assert sample(change) == ["symbol u is not in notation.md, nor in `symbols`"]
    six = next(page for page in CHAPTERS if page.number == 6)
    bare = Page(six.path, six.text.replace("  u: the unimix\n", ""))
    assert lint_book.notation(bare) == ["symbol u is not in notation.md, nor in `symbols`"]


@pytest.mark.parametrize("text", [page.path for page in CHAPTERS], ids=lambda path: path.stem)
def test_a_chapter_shows_no_mute_picture_and_no_markup(text):
    found = lint_book.outputs(nbformat.read(text.with_suffix(".ipynb"), as_version=4))
    assert not found, "\n".join(found)


def test_a_mute_picture_and_markup_in_a_sentence_are_noticed():
    data = [{"image/png": "x"}, {"text/markdown": "see {doc}`notation`"}, {"text/markdown": "fine"}]
    nb = new_notebook(
        cells=[new_code_cell("draw()", outputs=[new_output("display_data", data=d) for d in data])]
    )
    assert len(lint_book.outputs(nb)) == 2
    nb.cells[0].metadata.mystnb = {"image": {"alt": "one two three four five six seven eight"}}
    assert lint_book.outputs(nb) == ["markup in a computed sentence: draw()"]


def test_cells_are_those_that_jupytext_sees():
    text = SAMPLE.read_text(encoding="utf-8")
    theirs = jupytext.reads(text, fmt="md:myst").cells
    ours = Page(SAMPLE, text, BOOK).cells
    assert [(c.cell_type, c.source, c.metadata) for c in ours] == [
        (c.cell_type, c.source, dict(c.metadata)) for c in theirs
    ]


def test_a_pinned_line_of_code_may_be_linked():
    line = "https://github.com/danijar/dreamer/blob/56d4d44/dreamer.py"
    assert sample(("[glossary](glossary.md)", f"[code]({line})")) == []
    assert sample(("[glossary](glossary.md)", f"[code]({line.replace('56d4d44', 'master')})"))


def test_years_versions_code_and_labels_are_no_results():
    text = "In 2020, `x = 0.25` of arXiv:1912.01603v3, Figure 9.1, [a](b.md#x-1.5), 18 of 64."
    assert lint_book.result_like(lint_book.bare(text)) == []


ROW = dict(name="R", paper="V3", version="v2", latex="R", symbol="returns.lambda_return",
           test="tests/test_returns.py::test_golden_numbers")  # fmt: skip


def test_every_row_of_the_table_of_equations_holds():
    rows = Page(lint_book.BOOK / "09-x.md", "-").data("equations.yml")
    found = [text for name, row in rows.items() for text in lint_book.row_problems(name, row)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "change, complaint",
    [
        (dict(latex=""), "lacks `latex`"),
        (dict(symbol="returns.nothing"), "does not exist"),
        (dict(symbol="training.train"), "lines, > 25"),
        (dict(test="tests/test_returns.py::test_nothing"), "there is no test"),
        (dict(test=None), "needs either a `test` or"),
        (dict(test=None, untested="no"), "must give a reason"),
        (dict(symbol=None), "has no symbol"),
    ],
)
def test_a_broken_row_is_refused_with_the_reason(change, complaint):
    assert lint_book.row_problems("r", ROW) == []
    assert complaint in "\n".join(lint_book.row_problems("r", ROW | change))


def test_no_chapter_needs_itself_in_the_end():
    requires = {page.number: page.head["requires"] for page in CHAPTERS}
    assert lint_book.cycle(requires) == []
    assert lint_book.cycle({4: [3], 5: [4], 3: [5]}) == [4, 3, 5, 4]
    assert lint_book.cycle({2: [1], 3: [1, 2]}) == []
