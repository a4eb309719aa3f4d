"""Exercises of chapter 7: the KL loss."""

from collections.abc import Callable

import torch
from torch import Tensor

from dreamer_lite.check.compare import gradients
from dreamer_lite.check.core import Exercise
from dreamer_lite.distributions import OneHots


def logits(rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Logits of posterior and prior [T,B,G,K]; some moments cost more than 1 nat, some less."""
    steps = int(torch.randint(2, 5, (), generator=rng))
    q, p = 2 * torch.randn(2, steps, 3, 2, 3, generator=rng, dtype=torch.float64)
    near = torch.arange(3 * steps).view(steps, 3, 1, 1) % 2 == 0
    return q, torch.where(near, q + 0.2 * p, p)


def dice(x: Tensor) -> OneHots:
    """The distributions that logits [T,B,G,K] stand for."""
    logp = x.log_softmax(-1)
    return OneHots(logp.exp(), logp)


def price(q: Tensor, p: Tensor) -> Tensor:
    """KL(q ‖ p) of every die.  [T,B,G]."""
    q, p = dice(q), dice(p)
    return (q.probs * (q.logp - p.logp)).sum(-1)


Floor = Callable[[Tensor], Tensor]


def per_moment(kl: Tensor, free: float = 1.0) -> Tensor:
    """V3's floor.  [T,B,G] -> []."""
    return kl.sum(-1).clamp(min=free).mean()


def on_mean(kl: Tensor, free: float = 1.0) -> Tensor:
    """V1's and V2's.  [T,B,G] -> []."""
    return kl.sum(-1).mean().clamp(min=free)


def per_die(kl: Tensor, free: float = 1.0) -> Tensor:
    """Nobody's on purpose.  [T,B,G] -> []."""
    return kl.clamp(min=free).sum(-1).mean()


def no_floor(kl: Tensor) -> Tensor:
    """[T,B,G] -> []."""
    return kl.sum(-1).mean()


def balanced(floor: Floor, dyn: float, rep: float) -> Callable[[Tensor, Tensor], Tensor]:
    """dyn · floor(KL(sg q ‖ p)) + rep · floor(KL(q ‖ sg p)), from logits."""

    def loss(q: Tensor, p: Tensor) -> Tensor:
        return dyn * floor(price(q.detach(), p)) + rep * floor(price(q, p.detach()))

    return loss


v3 = balanced(per_moment, 1.0, 0.1)


def moved(loss: Callable, q: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """How far each moment pulls at its posterior and at its prior.  [T,B], [T,B]."""
    q, p = q.clone().requires_grad_(), p.clone().requires_grad_()
    found = torch.autograd.grad(loss(q, p), [q, p], allow_unused=True)
    zero = torch.zeros(q.shape[:2], dtype=q.dtype)
    first, second = (zero if g is None else g.abs().sum((-2, -1)) for g in found)
    return first, second


def at_rest(loss: Callable, q: Tensor, p: Tensor) -> Tensor:
    """Which moments pull at neither side.  [T,B] bool."""
    first, second = moved(loss, q, p)
    return (first == 0) & (second == 0)


LOSSES = [
    v3,
    balanced(on_mean, 0.8, 0.2),
    balanced(per_die, 1.0, 0.1),
    balanced(no_floor, 1.0, 1.0),
    balanced(per_moment, 1.0, 0.0),
    balanced(per_moment, 0.0, 1.0),
]


def loss_and_logits(rng: torch.Generator) -> tuple[Callable, Tensor, Tensor]:
    """One of several losses, and logits to try it on."""
    return LOSSES[int(torch.randint(len(LOSSES), (), generator=rng))], *logits(rng)


def v2(q: Tensor, p: Tensor, balance: float, free: float) -> Tensor:
    """danijar/dreamerv2@07d906e dreamerv2/common/nets.py:162-180, forward=False, free_avg=True."""
    if balance == 0.5:
        return per_moment(price(q, p), free)
    return balanced(lambda kl: on_mean(kl, free), balance, 1 - balance)(q, p)


def without_branch(q: Tensor, p: Tensor, balance: float, free: float) -> Tensor:
    """The general branch everywhere."""
    return balanced(lambda kl: on_mean(kl, free), balance, 1 - balance)(q, p)


def balance_case(rng: torch.Generator) -> tuple[Tensor, Tensor, float, float]:
    """Logits, a balance and a floor; half of the balances are 0.5."""
    q, p = logits(rng)
    index = int(torch.randint(6, (), generator=rng))
    return q, p, (0.5, 0.8, 0.5, 0.3, 0.5, 0.9)[index], (0.0, 0.5, 1.0)[index % 3]


def half_branch(floor: Callable, scale: float = 1.0) -> Callable:
    """V2's function with another special branch."""

    def loss(q, p, balance, free):
        if balance == 0.5:
            return scale * floor(price(q, p), free)
        return without_branch(q, p, balance, free)

    return loss


def reported(floor: Floor, log: Callable[[Tensor, Tensor], Tensor]) -> Callable:
    """A loss and what it writes to the log."""

    def answer(q: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        return balanced(floor, 1.0, 0.1)(q, p), log(q, p).detach()

    return answer


def news(q: Tensor, p: Tensor) -> Tensor:
    """The mean KL(q ‖ p) before any floor.  []."""
    return no_floor(price(q, p))


def reverse(q: Tensor, p: Tensor) -> Tensor:
    """The mean KL(p ‖ q).  []."""
    return news(p, q)


EXERCISES = [
    Exercise(
        id="7.1",
        right=(0.56, -0.0707),
        tolerance=2e-3,
        wrong={
            "has the weights swapped: α belongs to the term whose posterior is stopped, and "
            "that one moves the prior.": (0.14, -0.2828),
            "forgets the weights α and 1-α.": (0.7, -0.3535),
            "has the signs of q - p. The gradient points uphill; the step goes the other way.": (
                -0.56,
                0.0707,
            ),
            "gives the posterior the gradient of the prior's form, q - p. Its own gradient also "
            "weighs each face by q.": (0.56, -0.14),
        },
    ),
    Exercise(
        id="7.2",
        right=v3,
        case=logits,
        outcome=gradients,
        wrong={
            "takes the mean first and then the floor. That is V1 and V2: one quiet batch frees "
            "its only surprise. V3 raises each moment's KL to the floor, then averages.": (
                balanced(on_mean, 1.0, 0.1)
            ),
            "gives every die its own free nat. Sum over the dice (axis -1) before the floor.": (
                balanced(per_die, 1.0, 0.1)
            ),
            "has the weights swapped: 1 belongs to the term that stops the posterior.": (
                balanced(per_moment, 0.1, 1.0)
            ),
            "has the right value, but nothing is stopped: both sides are pulled by both terms.": (
                lambda q, p: 1.1 * per_moment(price(q, p))
            ),
            "measures KL(p ‖ q). The average is over what the posterior believes.": (
                lambda q, p: v3(p, q)
            ),
            "has no floor: add the free nat.": balanced(no_floor, 1.0, 0.1),
        },
    ),
    Exercise(
        id="7.3",
        right=at_rest,
        case=loss_and_logits,
        always=[(loss, *logits(torch.Generator().manual_seed(i))) for i, loss in enumerate(LOSSES)],
        wrong={
            "looks at the prior only. A loss with dyn = 0 moves the posterior alone.": (
                lambda loss, q, p: moved(loss, q, p)[1] == 0
            ),
            "looks at the posterior only. A loss with rep = 0 moves the prior alone.": (
                lambda loss, q, p: moved(loss, q, p)[0] == 0
            ),
            "calls a moment at rest when one of its sides is. Both must be.": (
                lambda loss, q, p: (moved(loss, q, p)[0] == 0) | (moved(loss, q, p)[1] == 0)
            ),
            "reads the answer off the KL. That is what V3 should do, not what this loss does: "
            "look at the gradient.": (lambda loss, q, p: price(q, p).sum(-1) < 1),
            "has it the wrong way round: True is for moments that stay.": (
                lambda loss, q, p: ~at_rest(loss, q, p)
            ),
        },
    ),
    Exercise(
        id="7.4",
        right=v2,
        case=balance_case,
        outcome=gradients,
        wrong={
            "has no special branch: at balance 0.5 the authors' function takes the plain KL.": (
                without_branch
            ),
            "has the two weights swapped: `balance` is α, the weight of the half that moves the "
            "prior.": lambda q, p, balance, free: v2(q, p, 1 - balance, free),
            "has the branch, but halves it. The authors' branch is the whole plain KL; that is "
            "why it jumps.": half_branch(per_moment, 0.5),
            "puts the floor on the mean in the special branch too. There it is on each moment.": (
                half_branch(on_mean)
            ),
        },
    ),
    Exercise(
        id="7.5",
        right=reported(per_moment, news),
        given=reported(per_die, reverse),
        case=logits,
        outcome=gradients,
        wrong={
            "has the right loss now, but still logs KL(p ‖ q).": reported(per_moment, reverse),
            "has the right log now, but still gives each die its own free nat.": (
                reported(per_die, news)
            ),
            "sums before the floor, but takes the mean before it too.": reported(on_mean, news),
            "logs the KL after the floor, which hides whether it is ever below.": (
                reported(per_moment, lambda q, p: per_moment(price(q, p)))
            ),
        },
    ),
]
