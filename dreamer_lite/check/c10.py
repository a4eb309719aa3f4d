"""Exercises of chapter 10: actor and critic."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dreamer_lite.behavior import ReturnScale, actor_loss
from dreamer_lite.check.compare import gradients
from dreamer_lite.check.core import Exercise


def dream(rng: torch.Generator) -> tuple:
    """Returns, values, log-probabilities, entropies and weights [H,N]; S from 2 to 6; η."""
    horizon = int(torch.randint(2, 7, (), generator=rng))
    ret, value, logp = 3 * torch.randn(3, horizon, 3, generator=rng, dtype=torch.float64)
    entropy, weight = torch.rand(2, horizon, 3, generator=rng, dtype=torch.float64)
    scale, eta = torch.rand(2, generator=rng).tolist()
    return ret, value, -logp.abs(), entropy, weight, 2 + 4 * scale, 0.1 + eta


def v3(ret, value, logp, entropy, weight, scale, eta) -> Tensor:
    """V3's loss by the package."""
    return actor_loss(ret, value, logp, entropy, weight, rho=1.0, eta=eta, scale=scale)


def another(objective: Callable) -> Callable:
    """A loss with another objective(A, ret, value, logp, entropy, S, η), A not yet detached."""

    def loss(ret, value, logp, entropy, weight, scale, eta):
        advantage = (ret - value) / scale
        terms = objective(advantage, ret, value, logp, entropy, scale, eta)
        return -(weight * terms).mean()

    return loss


def unweighted(ret, value, logp, entropy, weight, scale, eta) -> Tensor:
    """Every step counts alike."""
    return v3(ret, value, logp, entropy, torch.ones_like(weight), scale, eta)


def estimates(rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two estimates of one gradient from each of 50 dreams [N], pathwise and REINFORCE."""
    common, own, other = torch.randn(3, 50, generator=rng, dtype=torch.float64)
    sizes = 0.5 + 3 * torch.rand(2, generator=rng, dtype=torch.float64)
    return 1 + sizes[0] * own + 0.4 * common, 1 + sizes[1] * other + 0.4 * common


def far_apart(rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """The same where one of them is best left out."""
    path, _ = estimates(rng)
    return path, 10 * path + 0.1 * torch.randn(50, generator=rng, dtype=torch.float64)


def variances(path: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of both, and their covariance.  [N], [N] -> [] three times."""
    table = torch.cov(torch.stack([path, score]))
    return table[0, 0], table[1, 1], table[0, 1]


def unclamped(path: Tensor, score: Tensor) -> Tensor:
    """The minimum of the parabola, wherever it lies."""
    p, s, both = variances(path, score)
    return (p - both) / (p + s - 2 * both)


def best_share(path: Tensor, score: Tensor) -> Tensor:
    """The ρ in [0, 1] with the least variance.  [N], [N] -> []."""
    return unclamped(path, score).clamp(0, 1)


def independent(path: Tensor, score: Tensor) -> Tensor:
    """The same without the covariance."""
    p, s, _ = variances(path, score)
    return p / (p + s)


def by_deviation(path: Tensor, score: Tensor) -> Tensor:
    """Standard deviations in place of variances."""
    p, s, both = (x.abs().sqrt() for x in variances(path, score))
    return ((p - both) / (p + s - 2 * both)).clamp(0, 1)


def width(rng: torch.Generator) -> tuple[float]:
    """A range of returns from 1.1 to about 400."""
    return (1.1 * math.exp(6 * float(torch.rand((), generator=rng))),)


def first_heard(range_: float) -> float:
    """Updates until range · (1 - 0.99^k) exceeds 1."""
    if range_ <= 1:
        return math.inf
    k = math.floor(math.log(1 - 1 / range_) / math.log(0.99)) + 1
    return float(k)


def stream(rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Returns and values of some updates in a row [K,N], in the thousands."""
    updates = int(torch.randint(3, 9, (), generator=rng))
    return tuple(2000 * torch.randn(2, updates, 20, generator=rng))


def one_ruler(divide: Callable) -> Callable:
    """A scale for the whole run; divide(ret, value, scale) makes the advantages of an update."""

    def answer(returns: Tensor, values: Tensor) -> Tensor:
        scale = ReturnScale()
        pairs = zip(returns, values, strict=True)
        return torch.stack([divide(ret, value, scale) for ret, value in pairs])

    return answer


def late(ret: Tensor, value: Tensor, scale: ReturnScale) -> Tensor:
    """Reads S before it has seen these returns."""
    before = scale.value()
    scale.update(ret)
    return (ret - value) / before


def new_rulers(returns: Tensor, values: Tensor) -> Tensor:
    """The bug of exercise 10.5: every update makes a new scale."""
    found = []
    for ret, value in zip(returns, values, strict=True):
        scale = ReturnScale()
        found.append((ret - value) / scale.update(ret))
    return torch.stack(found)


def without_memory(returns: Tensor, values: Tensor) -> Tensor:
    """The range of each batch alone."""
    ends = torch.quantile(returns, torch.tensor([0.05, 0.95]), dim=1, keepdim=True)
    return (returns - values) / (ends[1] - ends[0]).clamp(min=1)


EXERCISES = [
    Exercise(
        id="10.1",
        right=(5, 1),
        wrong={
            "is the answer for REINFORCE. With ρ = 0 the gradient passes through the dream on its "
            "way to the actor.": (1, 1),
            "takes what the gradient passes for what it moves. Every optimizer differentiates for "
            "its own weights only.": (5, 5),
            "counts a part that this agent lacks, or both critics. There is no continue head, and "
            "the returns end in the slow copy.": (6, 1),
            "counts both. There is no continue head, and the returns end in the slow copy alone.": (
                7,
                1,
            ),
            "forgets the actor itself.": (4, 1),
        },
    ),
    Exercise(
        id="10.2",
        right=v3,
        case=dream,
        outcome=gradients,
        wrong={
            "has the wrong sign: the objective is to grow, and a loss is made smaller.": (
                lambda *terms: -v3(*terms)
            ),
            "punishes entropy. It is a bonus: more of it must lower the loss.": another(
                lambda A, ret, value, logp, ent, S, eta: A.detach() * logp - eta * ent
            ),
            "has the right value, but lets gradients into the returns and values. Stop them at the "
            "advantage.": another(lambda A, ret, value, logp, ent, S, eta: A * logp + eta * ent),
            "uses the return where the advantage belongs. The baseline is missing.": another(
                lambda A, ret, value, logp, ent, S, eta: (ret / S).detach() * logp + eta * ent
            ),
            "divides the return by S but not the value: subtract first.": another(
                lambda A, ret, value, logp, ent, S, eta: (
                    (ret / S - value).detach() * logp + eta * ent
                )
            ),
            "divides the entropy as well. Then η would again mean something else in every game.": (
                another(lambda A, ret, value, logp, ent, S, eta: A.detach() * logp + eta * ent / S)
            ),
            "forgets the weights: steps after a likely end count less.": unweighted,
        },
    ),
    Exercise(
        id="10.3",
        right=best_share,
        case=estimates,
        always=[far_apart(torch.Generator().manual_seed(0))],
        wrong={
            "is the share of the dynamics. V2's code has that one, its paper's ρ is the share of "
            "REINFORCE.": lambda path, score: 1 - best_share(path, score),
            "forgets that both come from the same dreams: their covariance counts.": independent,
            "may leave the range from 0 to 1.": unclamped,
            "weighs by standard deviations. It is variances that add up.": by_deviation,
        },
    ),
    Exercise(
        id="10.4",
        right=first_heard,
        case=width,
        always=[(10.0,), (0.5,), (1.0,)],
        wrong={
            "counts one update too few: after that many, S is still 1.": (
                lambda range_: first_heard(range_) - 1
            ),
            "takes a running mean that is debiased. This one starts at 0 and stays low for long.": (
                lambda range_: 1.0 if range_ > 1 else math.inf
            ),
            "lets the range grow in a straight line, a hundredth of it per update.": (
                lambda range_: math.floor(100 / range_) + 1.0 if range_ > 1 else math.inf
            ),
            "has no answer for ranges that never exceed 1. Say `math.inf`.": (
                lambda range_: first_heard(range_) if range_ > 1 else 0.0
            ),
        },
    ),
    Exercise(
        id="10.5",
        right=one_ruler(lambda ret, value, scale: (ret - value) / scale.update(ret)),
        given=new_rulers,
        case=stream,
        wrong={
            "keeps one scale now, but reads it before it has seen the returns of this update.": (
                one_ruler(late)
            ),
            "keeps one scale now, but divides the return alone. Subtract the value first.": (
                one_ruler(lambda ret, value, scale: ret / scale.update(ret) - value)
            ),
            "has no memory: it takes the range of each batch as it is. The package's scale is a "
            "running mean.": without_memory,
        },
    ),
]
