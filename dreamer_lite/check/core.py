"""Judging an answer: right, not begun, or wrong, and if wrong, which mistake it is.

An answer is a function, compared with the right one on random cases, or a value.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from dreamer_lite.check.compare import copied, difference, is_number, relation

CASES = 24  # random cases per answer
MANY = 64  # numbers: a larger argument is not printed

Outcome = Callable[[Callable, tuple], Any]


def call(f: Callable, args: tuple) -> Any:
    """What is compared unless the exercise says otherwise: the returned value."""
    return f(*args)


@dataclass(frozen=True)
class Exercise:
    """What `check` needs to know.

    id: "9.2".  right: the right answer, a function or a value.
    case: makes the arguments of one random case: case(rng) -> tuple, rng a `torch.Generator`.
    wrong: classic mistakes: what to say -> the function (or value) of who makes that mistake.
    given: what the exercise starts from, if that runs (the bugged function to be mended).
    always: cases that are always tried, before the random ones.
    outcome: what is compared, outcome(f, args); `check.compare.gradients` also compares those.
    tolerance: relative and absolute.
    """

    id: str
    right: Any
    wrong: Mapping[str, Any]
    case: Callable[[torch.Generator], tuple] | None = None
    given: Any = None
    always: Iterable[tuple] = ()
    outcome: Outcome = call
    tolerance: float = 1e-4

    def __post_init__(self):
        if callable(self.right) and not (self.case or self.always):
            raise ValueError(f"exercise {self.id} compares functions, so it needs `case`")

    def cases(self, seed: int) -> list[tuple]:
        """The fixed cases, then the random ones of a seed."""
        rng = torch.Generator().manual_seed(seed)
        count = CASES if self.case else 0
        return [*self.always, *(self.case(rng) for _ in range(count))]


@dataclass(frozen=True)
class Verdict:
    """state: "right", "wrong" or "not begun"; message: what to tell the reader."""

    id: str
    state: str
    message: str
    mistake: str = field(default="")  # the key in `wrong`, if it is a classic one

    def __str__(self) -> str:
        sign = {"right": "✓", "wrong": "✗", "not begun": "…"}[self.state]
        return f"{sign} {self.id} {self.message}"


class CheckFailed(AssertionError):
    """A wrong answer. Notebooks show the message alone, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def check(identifier: str, answer: Any, seed: int = 0) -> None:
    """Judge an answer: prints that it is right or not begun, raises CheckFailed if it is wrong.

    answer: a function or a value, as the exercise asks.  seed: other random cases.
    """
    verdict = judge(identifier, answer, seed)
    if verdict.state == "wrong":
        raise CheckFailed(str(verdict))
    print(verdict)


def judge(identifier: str | Exercise, answer: Any, seed: int = 0) -> Verdict:
    """The verdict on an answer, without printing or raising."""
    ex = identifier if isinstance(identifier, Exercise) else find(identifier)
    if answer is None or answer is ...:
        return Verdict(ex.id, "not begun", "waits for your answer.")
    if callable(ex.right) != callable(answer):
        kind = "a function" if callable(ex.right) else "a value, not a function"
        return Verdict(ex.id, "wrong", f"expects {kind}, got {type(answer).__name__}.")
    return judge_function(ex, answer, seed) if callable(answer) else judge_value(ex, answer)


def find(identifier: str) -> Exercise:
    """The exercise of an id like "9.2"."""
    chapter = str(identifier).partition(".")[0]
    known = exercises(int(chapter)) if chapter.isdecimal() else {}
    if identifier not in known:
        listed = ", ".join(known) or "none in that chapter"
        raise ValueError(f"there is no exercise {identifier!r} to check; there is: {listed}")
    return known[identifier]


def exercises(chapter: int) -> dict[str, Exercise]:
    """All exercises of a chapter that can be checked, by id."""
    name = f"dreamer_lite.check.c{chapter:02d}"
    if find_spec(name) is None:
        return {}
    return {ex.id: ex for ex in import_module(name).EXERCISES}


def judge_value(ex: Exercise, answer: Any) -> Verdict:
    """A number, a word, a tuple of them: compared once."""
    if not difference(ex.right, answer, ex.tolerance):
        return Verdict(ex.id, "right", "right.")
    for words, value in ex.wrong.items():
        if not difference(value, answer, ex.tolerance):
            return Verdict(ex.id, "wrong", words, words)
    return Verdict(ex.id, "wrong", f"{answer!r} is not the answer; try again.")


def judge_function(ex: Exercise, answer: Callable, seed: int) -> Verdict:
    """The answer against the right one, case by case; the first difference ends it."""
    cases = ex.cases(seed)
    for number, args in enumerate(cases, 1):
        expected = result(ex, ex.right, args)
        try:
            got = ex.outcome(answer, mine := copied(args))
        except NotImplementedError:
            return Verdict(ex.id, "not begun", "waits for you: replace the line that raises.")
        except Exception as error:
            words = f"stopped with {type(error).__name__}: {error}\n{shown(args)}"
            return Verdict(ex.id, "wrong", words)
        if number_changed := changed(args, mine):
            words = f"changes its argument {number_changed}; work on a copy."
            return Verdict(ex.id, "wrong", words)
        if found := difference(expected, got, ex.tolerance):
            return explain(ex, answer, cases, (number, args, expected, got, found))
    return Verdict(ex.id, "right", f"right in all {len(cases)} cases.")


def changed(before: tuple, after: tuple) -> int:
    """The number of the first tensor or array that was written to, from 1 on; 0 if none."""
    pairs = enumerate(zip(before, after, strict=True), 1)
    return next((n for n, (a, b) in pairs if is_number(a) and difference(a, b, 0.0)), 0)


def explain(ex: Exercise, answer: Callable, cases: list[tuple], first: tuple) -> Verdict:
    """Why it is wrong: as given, a classic mistake, or the first case that differs."""
    number, args, expected, got, found = first
    if ex.given is not None and same(ex, answer, ex.given, cases):
        return Verdict(ex.id, "not begun", "is still as it was given. Run it, then mend it.")
    for words, mistake in ex.wrong.items():
        if same(ex, answer, mistake, cases):
            return Verdict(ex.id, "wrong", words, words)
    hint = relation(expected, got, ex.tolerance)
    lines = [f"differs in case {number} of {len(cases)}: {found}", *([hint] if hint else [])]
    return Verdict(ex.id, "wrong", "\n".join([*lines, shown(args)]))


def same(ex: Exercise, answer: Callable, other: Callable, cases: list[tuple]) -> bool:
    """Whether two functions agree on every case."""
    pairs = ((result(ex, answer, args), result(ex, other, args)) for args in cases)
    return all(not difference(b, a, ex.tolerance) for a, b in pairs)


def result(ex: Exercise, f: Callable, args: tuple) -> Any:
    """The outcome of a function on a copy of the arguments; the error's name if it stops."""
    try:
        return ex.outcome(f, copied(args))
    except Exception as error:
        return f"stopped with {type(error).__name__}"


def shown(args: tuple) -> str:
    """The arguments of a case, so that it can be tried by hand."""
    lines = (f"  argument {number}: {brief(arg)}" for number, arg in enumerate(args, 1))
    return "\n".join(["The arguments were", *lines])


def brief(arg: Any) -> str:
    """A tensor as rounded lists, a large one as its shape; anything else as it prints."""
    if not isinstance(arg, torch.Tensor):
        return f"{arg:.4g}" if isinstance(arg, float) else repr(arg)
    if arg.numel() > MANY:
        return f"a tensor of shape {list(arg.shape)}"
    values = arg.detach().cpu()
    values = values.double().numpy().round(3) if arg.is_floating_point() else values
    return f"tensor({values.tolist()})"
