"""The autograder says what is right and what is wrong with an answer, in every chapter."""

import ast
import contextlib
import io

import lint_book
import pytest
import torch

from dreamer_lite.check import CheckFailed, Exercise, check, core, exercises, judge
from dreamer_lite.check.compare import difference, gradients
from dreamer_lite.page import solution

CHAPTERS = lint_book.pages()
KNOWN = [(page, id) for page in CHAPTERS for id in page.checks]
NAMES = [f"{page.path.stem}-{id}" for page, id in KNOWN]


def pair(rng):
    return torch.randn(3, 2, generator=rng), torch.randn(3, 2, generator=rng)


def minus(x, y):
    return x - y


SWAPPED, ADDED = "has the two the wrong way round.", "adds instead."
EX = Exercise("1.1", minus, {SWAPPED: lambda x, y: y - x, ADDED: lambda x, y: x + y}, pair)


def test_a_right_answer_is_told_so(monkeypatch, capsys):
    monkeypatch.setattr(core, "find", lambda _: EX)
    check("1.1", lambda a, b: -(b - a))
    assert capsys.readouterr().out == "✓ 1.1 right in all 24 cases.\n"


def test_a_classic_mistake_is_called_by_its_name(monkeypatch):
    monkeypatch.setattr(core, "find", lambda _: EX)
    with pytest.raises(CheckFailed, match="the wrong way round") as caught:
        check("1.1", lambda a, b: b - a)
    assert isinstance(caught.value, AssertionError)
    assert caught.value._render_traceback_() == [f"✗ 1.1 {SWAPPED}"]
    assert judge(EX, lambda a, b: a + b).mistake == ADDED


def no_return(x, y):
    x - y


def writes(x, y):
    x -= y
    return x


def unfinished(x, y):
    raise NotImplementedError


@pytest.mark.parametrize(
    "answer, state, message",
    [
        (unfinished, "not begun", "replace the line that raises"),
        (None, "not begun", "waits for your answer"),
        (..., "not begun", "waits for your answer"),
        (3.0, "wrong", "expects a function, got float"),
        (no_return, "wrong", "None (is the return statement missing?)"),
        (writes, "wrong", "changes its argument 1; work on a copy"),
        (lambda x: x, "wrong", "stopped with TypeError"),
        (lambda x, y: (x - y)[0], "wrong", "expected shape [3, 2], got [2]"),
        (lambda x, y: (x - y).T, "wrong", "the transpose of that shape"),
        (lambda x, y: (x - y).flip(0), "wrong", "their order along the first axis is reversed"),
        (lambda x, y: 2 * (x - y), "wrong", "All results are 2 times what they should be"),
        (lambda x, y: (x - y) * float("nan"), "wrong", "got nan"),
        (lambda x, y: x, "wrong", "  argument 2: tensor(["),
    ],
)
def test_any_other_answer_is_told_what_is_wrong(answer, state, message):
    verdict = judge(EX, answer)
    assert verdict.state == state and message in verdict.message


def test_a_reversed_sign_is_noticed_where_no_classic_mistake_matches():
    ex = Exercise("1.1", lambda x: x, {}, lambda rng: (torch.randn(3, generator=rng),))
    assert "the sign is not" in judge(ex, lambda x: -x).message


def test_the_exercise_as_it_was_given_is_no_mistake_yet():
    ex = Exercise("1.1", minus, {ADDED: lambda x, y: x + y}, pair, given=lambda x, y: x * y)
    assert judge(ex, lambda x, y: y * x).state == "not begun"
    assert judge(ex, lambda x, y: x + y).mistake == ADDED


def test_values_are_compared_within_the_tolerance():
    ex = Exercise("1.1", 24.8725, {"that is undiscounted.": 26.0}, tolerance=1e-3)
    assert judge(ex, 24.87).state == "right"
    assert judge(ex, 26).message == "that is undiscounted."
    assert judge(ex, 7.0).message == "7.0 is not the answer; try again."
    assert judge(ex, minus).message == "expects a value, not a function, got function."


def test_gradients_tell_a_stop_in_the_wrong_place():
    ex = Exercise(
        "1.1",
        lambda x, y: x.detach() * y,
        {"stops the wrong side.": lambda x, y: x * y.detach()},
        pair,
        outcome=gradients,
    )
    assert judge(ex, lambda x, y: y * x.detach()).state == "right"
    assert judge(ex, lambda x, y: y.detach() * x).message == "stops the wrong side."
    assert "gradient 1: at [0, 0] expected 0" in judge(ex, lambda x, y: x * y).message


def test_the_same_seed_gives_the_same_cases_and_another_seed_others():
    one, same, other = (EX.cases(seed)[0][0] for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_what_is_always_tried_comes_first():
    ex = Exercise("1.1", minus, {}, pair, always=[(torch.ones(1), torch.ones(1))])
    assert len(ex.cases(0)) == core.CASES + 1 and torch.equal(ex.cases(0)[0][0], torch.ones(1))


def test_nested_results_are_compared_part_by_part():
    want = {"a": (torch.ones(2), 1), "b": "word"}
    assert difference(want, {"a": [torch.ones(2), 1.0], "b": "word"}, 0) == ""
    got = {"a": (torch.tensor([1.0, 2.0]), 1), "b": "word"}
    assert difference(want, got, 0) == "a: entry 0: at [1] expected 1, got 2"
    assert difference(want, {"a": 1}, 0).startswith("expected the keys ['a', 'b']")
    assert difference("word", "words", 0) == "got 'words'"


def test_an_unknown_exercise_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"no exercise '9.99' to check; there is: 9\.\d"):
        check("9.99", 0)
    with pytest.raises(ValueError, match="none in that chapter"):
        check("0.1", 0)


def test_an_exercise_on_functions_needs_cases():
    with pytest.raises(ValueError, match="needs `case`"):
        Exercise("1.1", minus, {})


# Every exercise of every written chapter


def world(page, judged):
    """What a stub may use: the imports of its page, and a `check` that keeps the verdicts."""
    names = {}
    for cell in page.code:
        nodes = (node for node in ast.walk(lint_book.parsed(cell)))
        lines = [ast.unparse(n) for n in nodes if isinstance(n, ast.Import | ast.ImportFrom)]
        exec("\n".join(lines), names)
    return names | {"check": lambda id, answer: judged.append(judge(id, answer))}


def verdicts(page, source):
    """The verdicts of the checks in a piece of code; none if it does not run."""
    judged = []
    names = world(page, judged)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
        exec(source, names)
    return {verdict.id: verdict for verdict in judged}


def stub(page, id):
    return next(cell.source for cell in page.code if f'check("{id}"' in cell.source)


@pytest.mark.parametrize("page, id", KNOWN, ids=NAMES)
def test_a_stub_waits_for_its_reader(page, id):
    assert verdicts(page, stub(page, id))[id].state == "not begun"


@pytest.mark.parametrize("page, id", KNOWN, ids=NAMES)
def test_a_stub_does_not_contain_the_answer(page, id):
    lines = stub(page, id).splitlines()
    uncommented = [line.replace("# ", "", 1) if "# " in line else line for line in lines]
    silent = [line for line in lines if not line.strip().startswith("raise ")]
    both = [line for line in uncommented if not line.strip().startswith("raise ")]
    for source in (uncommented, silent, both):
        verdict = verdicts(page, "\n".join(source)).get(id)
        assert verdict is None or verdict.state != "right"


def test_a_stub_that_hides_the_answer_in_a_comment_is_noticed():
    page = lint_book.Page(lint_book.BOOK / "09-x.md", "---\n---\n")
    text = "from dreamer_lite.returns import lambda_return\n# answer = lambda_return\n"
    source = text.replace("# ", "") + 'check("9.2", answer)'
    assert verdicts(page, source)["9.2"].state == "right"


@pytest.mark.parametrize("page, id", KNOWN, ids=NAMES)
def test_a_solution_passes_its_check(page, id):
    text = solution.section(page.book / f"solutions/{page.number:02d}.md", id)
    assert f"✓ {id} right" in solution.run(text, id)


@pytest.mark.parametrize("page, id", KNOWN, ids=NAMES)
def test_the_right_answer_is_right_and_each_mistake_is_known_by_name(page, id):
    ex = page.checks[id]
    assert len(ex.wrong) >= 2
    for seed in range(3):
        assert judge(ex, ex.right, seed).state == "right"
        for words, mistake in ex.wrong.items():
            assert judge(ex, mistake, seed).mistake == words
        if ex.given is not None:
            assert judge(ex, ex.given, seed).state == "not begun"


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.path.stem)
def test_what_can_be_checked_is_an_exercise_of_its_chapter(page):
    assert set(exercises(page.number)) <= {str(id) for id in page.head["exercises"]}
