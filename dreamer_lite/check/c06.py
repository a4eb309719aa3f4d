"""Exercises of chapter 6: Gaussian or categorical latents."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamer_lite.check.compare import detached
from dreamer_lite.check.core import Exercise

# --- samples and what they send back -------------------------------------------------------------


def through(f: Callable, args: tuple) -> dict[str, Any]:
    """The value, and the gradient by the first argument of its weighted sum.

    A plain sum would hide a mistake: one-hots always sum to 1.
    """
    logits, *rest = args
    value = f(logits.requires_grad_(), *rest)
    parts = value if isinstance(value, tuple | list) else (value,)
    parts = [x for x in parts if isinstance(x, Tensor)]
    total = sum((torch.arange(1.0, x.numel() + 1).sin().view_as(x) * x).sum() for x in parts)
    found = torch.zeros_like(logits)
    if isinstance(total, Tensor) and total.requires_grad:
        found = torch.autograd.grad(total, logits)[0]
    logits.requires_grad_(False)
    return {"value": detached(value), "gradient": found}


def mixed(logits: Tensor, unimix: float) -> Tensor:
    """p = (1-u) softmax + u/K.  [...,K]."""
    return (1 - unimix) * logits.softmax(-1) + unimix / logits.shape[-1]


def drawn(probs: Tensor, noise: Tensor) -> Tensor:
    """One-hots by inverting the cumulative distribution.  [...,K], [...,1] -> [...,K]."""
    classes = probs.shape[-1]
    below = (probs.cumsum(-1) <= noise).sum(-1)
    return F.one_hot(below.clamp(max=classes - 1), classes).float()


def sampler(
    draw: Callable = mixed, back: Callable = mixed, value: Callable = drawn, flat: bool = True
) -> Callable:
    """A sample whose face, gradient, value and shape can each be somebody's mistake."""

    def sample(logits: Tensor, noise: Tensor, unimix: float) -> Tensor:
        p = back(logits, unimix)
        z = value(draw(logits, unimix), noise) + p - p.detach()
        return z.flatten(-2) if flat else z

    return sample


def plain(logits: Tensor, unimix: float) -> Tensor:
    """The softmax without the mixture.  [...,K]."""
    return logits.softmax(-1)


def stopped(logits: Tensor, unimix: float) -> Tensor:
    """The probabilities as constants.  [...,K]."""
    return mixed(logits, unimix).detach()


def dice_case(rng: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """Logits [B,G,K], uniform numbers [B,G,1], a share of the uniform distribution."""
    groups, classes = (int(torch.randint(2, 5, (), generator=rng)) for _ in range(2))
    logits = 2 * torch.randn(6, groups, classes + 1, generator=rng)
    noise = torch.rand(6, groups, 1, generator=rng)
    return logits, noise, 0.1 * float(torch.randint(1, 6, (), generator=rng))


# --- the largest KL ------------------------------------------------------------------------------


def worst_kl(groups: int, classes: int, unimix: float) -> float:
    """G (1-u) ln(1 + K (1-u)/u): two dice that are sure of different faces."""
    return groups * (1 - unimix) * math.log(1 + classes * (1 - unimix) / unimix)


def worst_case(rng: torch.Generator) -> tuple[int, int, float]:
    """Groups, classes, unimix."""
    groups, classes = (int(torch.randint(2, 33, (), generator=rng)) for _ in range(2))
    return groups, classes, 10 ** (-3 * float(torch.rand((), generator=rng)) - 0.1)


def one_face(groups: int, classes: int, unimix: float) -> float:
    """Only the term of the face that q is sure of."""
    most, least = 1 - unimix + unimix / classes, unimix / classes
    return groups * most * math.log(most / least)


def others_share(groups: int, classes: int, unimix: float) -> float:
    """As if the chosen face got no part of the mixture."""
    most, least = 1 - unimix, unimix / (classes - 1)
    return groups * (most - least) * math.log(most / least)


# --- straight-through on a quadratic loss --------------------------------------------------------


def back(probs: Tensor, w: Tensor) -> Tensor:
    """Σ_j w_j ∂p_j/∂logits for p = softmax.  [K], [K] -> [K]."""
    return probs * (w - (probs * w).sum())


def two_gradients(logits: Tensor, A: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Of f(z) = z'Az + b'z: the mean of straight-through, and the gradient of the mean of f."""
    p = logits.softmax(-1)
    return back(p, (A + A.T) @ p + b), back(p, A.diagonal() + b)


def taken_as(straight: Callable, exact: Callable) -> Callable:
    """Two gradients from what each takes for the gradient at z: (p, A, b) -> [K]."""

    def answer(logits: Tensor, A: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        p = logits.softmax(-1)
        return back(p, straight(p, A, b)), back(p, exact(p, A, b))

    return answer


def at_mean(p: Tensor, A: Tensor, b: Tensor) -> Tensor:
    """∂f/∂z at z = p.  [K]."""
    return (A + A.T) @ p + b


def at_faces(p: Tensor, A: Tensor, b: Tensor) -> Tensor:
    """f at each face.  [K]."""
    return A.diagonal() + b


def without_softmax(logits: Tensor, A: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients by the probabilities in place of the logits."""
    p = logits.softmax(-1)
    return at_mean(p, A, b), at_faces(p, A, b)


def quadratic_case(rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [K], A [K,K], b [K]."""
    classes = int(torch.randint(2, 6, (), generator=rng))
    return tuple(torch.randn(*s, generator=rng) for s in ((classes,), (classes,) * 2, (classes,)))


# --- a roll with two bugs ------------------------------------------------------------------------


def right_gradient(onehot: Tensor, p: Tensor) -> Tensor:
    """onehot + p - sg(p)."""
    return onehot + (p - p.detach())


def reversed_gradient(onehot: Tensor, p: Tensor) -> Tensor:
    """The stop-gradient on the wrong term."""
    return onehot + (p.detach() - p)


def roll(join: Callable[[Tensor, Tensor], Tensor], weigh: Callable) -> Callable:
    """Samples and their log-probabilities; `weigh` gives the probabilities of the latter."""

    def answer(logits: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        p = mixed(logits, 0.01)
        onehot = drawn(p, noise)
        return join(onehot, p), (onehot * weigh(logits, 0.01).log()).sum(-1)

    return answer


def roll_case(rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Logits [B,G,K], uniform numbers [B,G,1]."""
    return dice_case(rng)[:2]


EXERCISES = [
    Exercise(
        id="6.1",
        right=(2.0, -0.25, -0.625, 0.875),
        tolerance=2e-3,
        wrong={
            "has the value of f·p, the mean loss. z is exactly one-hot: only the face that is up "
            "counts.": (4.5, -0.25, -0.625, 0.875),
            "is REINFORCE: the loss of the face that is up, times the gradient of ln p. "
            "Straight-through asks for the slope of f·z in all directions.": (2.0, -1.0, 1.5, -0.5),
            "stops at z: that is the gradient by z. Carry it on to the logits, through p.": (
                2.0,
                4.0,
                2.0,
                8.0,
            ),
            "has the sign reversed: onehot + sg(p) - p would do that.": (2.0, 0.25, 0.625, -0.875),
            "has no gradient. onehot is a constant, but p is not, and only one of the two p is "
            "stopped.": (2.0, 0.0, 0.0, 0.0),
        },
    ),
    Exercise(
        id="6.2",
        right=sampler(),
        case=dice_case,
        outcome=through,
        wrong={
            "has the right values and no gradient: straight-through is missing.": (
                sampler(back=stopped)
            ),
            "sends back the gradient of the plain softmax. The die was rolled with the mixture, so "
            "its probabilities are the mixture's.": sampler(back=plain),
            "rolls by the plain softmax: the mixture belongs to every use.": sampler(draw=plain),
            "leaves out the mixture altogether.": sampler(draw=plain, back=plain),
            "gives the probabilities in place of a roll.": sampler(value=lambda p, _: p.detach()),
            "sends the gradient back with its sign reversed: it is p that stays, and sg(p) that is "
            "subtracted.": lambda logits, noise, unimix: (
                2 * sampler()(logits, noise, unimix).detach() - sampler()(logits, noise, unimix)
            ),
            "keeps the dice apart: flatten the last two axes to [...,G·K].": sampler(flat=False),
        },
    ),
    Exercise(
        id="6.3",
        right=worst_kl,
        case=worst_case,
        wrong={
            "is the bound of the page. No two mixed dice reach it, for q is mixed too.": (
                lambda groups, classes, unimix: groups * math.log(classes / unimix)
            ),
            "is that of one die; the KL of all of them is the sum.": (
                lambda groups, classes, unimix: worst_kl(1, classes, unimix)
            ),
            "forgets a term: at the face that p is sure of, q has u/K, and the logarithm is "
            "negative.": one_face,
            "gives all of u to the other faces. Mixing gives each face u/K, the chosen one "
            "too.": others_share,
        },
    ),
    Exercise(
        id="6.4",
        right=two_gradients,
        case=quadratic_case,
        wrong={
            "takes 2Ap for the slope. A need not be symmetric: it is (A + A')p.": (
                taken_as(lambda p, A, b: 2 * A @ p + b, at_faces)
            ),
            "has the mean of straight-through twice. The exact gradient knows f at the faces "
            "only.": taken_as(at_mean, at_mean),
            "has the two the wrong way round.": taken_as(at_faces, at_mean),
            "stops at p: carry both on to the logits, p_k (w_k - p·w).": without_softmax,
        },
    ),
    Exercise(
        id="6.5",
        right=roll(right_gradient, mixed),
        given=roll(reversed_gradient, plain),
        case=roll_case,
        outcome=through,
        wrong={
            "has the right gradient now, but the log-probability still knows nothing of the "
            "mixture.": roll(right_gradient, plain),
            "has the right log-probability now, but the gradient still points the wrong way: "
            "stop the p that is subtracted.": roll(reversed_gradient, mixed),
            "stops both p: no gradient is left.": roll(lambda onehot, p: onehot, mixed),
            "stops neither p nor subtracts it: z is not one-hot any more.": (
                roll(lambda onehot, p: onehot + p, mixed)
            ),
        },
    ),
]
