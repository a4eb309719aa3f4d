"""Exercises of chapter 14: looking into the dream."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dreamer_lite.check.core import Exercise

WHITE = [20, 22, 24, 27, 27, 29, 31, 33]  # true columns of exercise 14.1
DREAMT = [20, 22, 27, 26, 28, 32, 34, 37]  # and the dreamt ones


def apart(first: int, lasting: bool = True) -> int:
    """The step, counted from `first`, at which the two columns part by more than 2 pixels."""
    gap = [abs(a - b) > 2 for a, b in zip(WHITE, DREAMT, strict=True)]
    fits = all if lasting else (lambda rest: rest[0])
    return next(k for k in range(len(gap)) if fits(gap[k:])) + first


def tiny_model(rng: torch.Generator) -> tuple:
    """Frames [T,B,E], prev_action [T,B,A], how many are seen, and a linear model W, V, P."""
    steps = int(torch.randint(4, 8, (), generator=rng))
    context = int(torch.randint(1, steps - 1, (), generator=rng))
    sizes = [(steps, 2, 3), (steps, 2, 2), (5, 4), (4 + 3, 3), (4, 3)]
    x, a, w, v, p = (torch.randn(s, generator=rng, dtype=torch.float64) / 2 for s in sizes)
    return x, a, context, w, v, p


def opened(
    seen: Callable = lambda t, context: t < context,
    action: Callable = lambda a, t: a[t],
    carried: Callable = lambda chosen, looked: chosen,
) -> Callable:
    """Open loop in the linear model: h = tanh([z, a] W), z = [h, x] V if seen, else h P.

    seen(t, C): whether x_t is looked at.  action(a, t): which one leads to row t.
    carried(z shown, z looked): which z the memory gets.
    """

    def answer(x, prev_action, context, w, v, p):
        z, shown = torch.zeros_like(x[0]), []
        for t in range(len(x)):
            h = torch.tanh(torch.cat([z, action(prev_action, t)], -1) @ w)
            looked = torch.cat([h, x[t]], -1) @ v
            chosen = looked if seen(t, context) else h @ p
            shown.append(chosen)
            z = carried(chosen, looked)
        return torch.stack(shown)

    return answer


def reset_at_closing(x, prev_action, context, w, v, p):
    """Dreams from an empty state instead of the last one seen."""
    right = opened()(x, prev_action, context, w, v, p)[:context]
    z, shown = torch.zeros_like(x[0]), []
    for t in range(context, len(x)):
        z = torch.tanh(torch.cat([z, prev_action[t]], -1) @ w) @ p
        shown.append(z)
    return torch.cat([right, torch.stack(shown)])


def promises(rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards said and paid [N], and edges of bins, so that one bin is often empty."""
    said = torch.rand(40, generator=rng, dtype=torch.float64) * 2 - 0.5
    paid = torch.randint(-1, 2, (40,), generator=rng).double()
    return said, paid, torch.tensor([-2.0, -0.6, 0.0, 0.5, 1.0, 2.0], dtype=torch.float64)


def gap(weigh: Callable, part: Callable = abs) -> Callable:
    """Σ weight · |mean said − mean paid| over the bins with something in them."""

    def answer(said, paid, edges):
        where = torch.bucketize(said, edges[1:-1], right=True)
        total = 0.0
        for i in range(len(edges) - 1):
            inside = where == i
            if inside.any():
                difference = float(said[inside].mean() - paid[inside].mean())
                total += weigh(inside, where) * part(difference)
        return total

    return answer


def by_count(inside, where):
    """The share of the promises in this bin."""
    return float(inside.double().mean())


def by_bin(inside, where):
    """All bins with something in them alike."""
    return 1 / len(where.unique())


def pairwise(said, paid, edges):
    """The mean distance of single promises from what was paid."""
    return float((said - paid).abs().mean())


def measured(rng: torch.Generator) -> tuple[float, int]:
    """A gain in dB that averaging M samples brought, below the largest possible, and M."""
    count = int(torch.randint(2, 17, (), generator=rng))
    return float(torch.rand((), generator=rng)) * 10 * math.log10(2 * count / (count + 1)), count


def shared(best: Callable, ratio: Callable = lambda gain: 10 ** (-gain / 10)) -> Callable:
    """(left − best) / (1 − best), where `left` is the share of the error that averaging leaves."""

    def answer(gain, count):
        return (ratio(gain) - best(count)) / (1 - best(count))

    return answer


def half(count: int) -> float:
    """What averaging leaves of an error that is all luck."""
    return (1 + 1 / count) / 2


def dreamt_rewards(carry: str = "prior", after: int = 0, read: str = "prior") -> Callable:
    """Rewards of a dream in the linear model; which z is carried on, and which one is read."""

    def answer(z, actions, frames, w, v, p, reward):
        said = []
        for a, x in zip(actions, frames, strict=True):
            h = torch.tanh(torch.cat([z, a], -1) @ w)
            found = {"prior": h @ p, "posterior": torch.cat([h, x], -1) @ v}
            said.append((found[read] if after == 0 else z) @ reward)
            z = found[carry]
        return torch.stack(said)

    return answer


def tiny_dream(rng: torch.Generator) -> tuple[Tensor, ...]:
    """z [B,3], actions [H,B,2], frames [H,B,3] and a linear model W, V, P with a reward [3]."""
    steps = int(torch.randint(3, 6, (), generator=rng))
    sizes = [(2, 3), (steps, 2, 2), (steps, 2, 3), (5, 4), (7, 3), (4, 3), (3,)]
    return tuple(torch.randn(s, generator=rng, dtype=torch.float64) / 2 for s in sizes)


EXERCISES = [
    Exercise(
        id="14.1",
        right=apart(1),
        wrong={
            "is the first time that they part, but one step later they are close again. You want "
            "the step from which on they stay apart.": apart(1, lasting=False),
            "counts steps from 0. The first dreamt step is step 1.": apart(0),
            "is the step at which they are farthest apart. They part before.": 8,
        },
    ),
    Exercise(
        id="14.2",
        right=opened(),
        case=tiny_model,
        wrong={
            "looks at every frame, so nothing is dreamt. From row C on the latent comes from the "
            "memory alone.": opened(seen=lambda t, context: True),
            "looks at one frame too many: C frames are rows 0 to C - 1.": opened(
                seen=lambda t, context: t <= context
            ),
            "takes the action that leaves row t for the one that led there. prev_action[t] belongs "
            "to row t.": opened(action=lambda a, t: a[(t + 1) % len(a)]),
            "shows the dream, but remembers what it would have seen: every step is a forecast of "
            "one step only.": opened(carried=lambda chosen, looked: looked),
            "forgets at the closing of the eyes. The dream begins in the last seen state.": (
                reset_at_closing
            ),
        },
    ),
    Exercise(
        id="14.3",
        right=gap(by_count),
        case=promises,
        wrong={
            "lets gaps of opposite sign cancel. Take the size of each.": gap(by_count, float),
            "counts all bins alike. A bin weighs as much as the promises in it.": gap(by_bin),
            "compares promise by promise. A promise of 0.3 is never paid 0.3: compare the means of "
            "a bin.": pairwise,
            "squares the gaps. The gap is a mean distance, in points.": gap(
                by_count, lambda x: x * x
            ),
        },
    ),
    Exercise(
        id="14.4",
        right=shared(half),
        case=measured,
        always=[(0.0, 4), (10 * math.log10(2 * 4 / 5), 4)],
        tolerance=1e-3,
        wrong={
            "takes the mean to be free of luck. The truth has luck of its own: (1 + 1/M)/2 is "
            "left, not 1/(2M).": shared(lambda count: 1 / (2 * count)),
            "is the share of luck. You want what is left.": (
                lambda gain, count: 1 - shared(half)(gain, count)
            ),
            "takes decibels of amplitudes, with 20. PSNR has 10, since it is made of squares.": (
                shared(half, lambda gain: 10 ** (-gain / 20))
            ),
        },
    ),
    Exercise(
        id="14.5",
        right=dreamt_rewards(),
        given=dreamt_rewards(carry="posterior"),
        case=tiny_dream,
        wrong={
            "still sees: now the reward is read from the posterior too.": dreamt_rewards(
                "posterior", read="posterior"
            ),
            "carries the prior on, but reads the reward from the posterior. Both must be blind.": (
                dreamt_rewards(read="posterior")
            ),
            "reads the reward of the state that is left, not of the one arrived at.": (
                dreamt_rewards(after=1)
            ),
        },
    ),
]
