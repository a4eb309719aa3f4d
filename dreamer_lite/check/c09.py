"""Exercises of chapter 9: λ-returns."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dreamer_lite.check.core import Exercise
from dreamer_lite.returns import lambda_return


def dream(rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor, float]:
    """Rewards, discounts and values r₁..r_H, d₁..d_H, v₁..v_H [H,N], and λ."""
    horizon = int(torch.randint(3, 9, (), generator=rng))
    reward, value = torch.randn(2, horizon, 2, generator=rng, dtype=torch.float64)
    discount = torch.rand(horizon, 2, generator=rng, dtype=torch.float64)
    return reward, discount, value, float(torch.rand((), generator=rng))


def ending_dream(rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor, float]:
    """The same; one of the dreams ends for certain before its horizon: a discount is 0."""
    reward, discount, value, lam = dream(rng)
    discount[1, 0] = 0.0
    return reward, discount, value, lam


def steady_dream(rng: torch.Generator) -> tuple[Tensor, Tensor, float, float]:
    """r₁..r_H [H,N], v₀..v_H [H+1,N], γ and λ, both away from 0."""
    reward, _, value, _ = dream(rng)
    first = torch.randn(1, 2, generator=rng, dtype=torch.float64)
    gamma, lam = (0.3 + 0.6 * torch.rand(2, generator=rng)).tolist()
    return reward, torch.cat([first, value]), gamma, lam


def heads(rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor, float]:
    """What the heads say about s₀..s_H: rewards, discounts, values, all [H+1,N]; and λ."""
    horizon = int(torch.randint(3, 9, (), generator=rng))
    reward, value = torch.randn(2, horizon + 1, 2, generator=rng, dtype=torch.float64)
    discount = torch.rand(horizon + 1, 2, generator=rng, dtype=torch.float64)
    return reward, discount, value, float(torch.rand((), generator=rng))


def backwards(mix: Callable) -> Callable:
    """The recursion with another last line: mix(r, d, v_next, v_own, R_next, λ)."""

    def answer(reward, discount, value, lam):
        ret, found = value[-1], []
        for t in reversed(range(len(reward))):
            own = value[max(t - 1, 0)]
            ret = mix(reward[t], discount[t], value[t], own, ret, lam)
            found.append(ret)
        return torch.stack(found[::-1])

    return answer


def forgets_the_horizon(reward, discount, value, lam):
    """A recursion that starts from 0."""
    ret, found = torch.zeros_like(value[-1]), []
    for r, d, v in zip(reward.flip(0), discount.flip(0), value.flip(0), strict=True):
        ret = r + d * ((1 - lam) * v + lam * ret)
        found.append(ret)
    return torch.stack(found[::-1])


class Operations(TorchDispatchMode):
    """Counts tensor operations."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """One more, then as usual."""
        self.count += 1
        return func(*args, **(kwargs or {}))


def at_once(f: Callable, args: tuple) -> dict[str, Any]:
    """The returns, and whether a dream four times as long takes more operations."""
    *arrays, lam = args
    longer = [x.repeat(4, 1) for x in arrays]
    with Operations() as short:
        found = f(*arrays, lam)
    with Operations() as long:
        f(*longer, lam)
    return {"value": found, "loop over time": long.count > short.count}


def linear_system(chosen: slice, mended: bool = True) -> Callable:
    """R = b + Λ R solved at once, with λ·discount[chosen] above the diagonal of Λ."""

    def answer(reward, discount, value, lam):
        b = reward + (1 - lam) * discount * value
        b = torch.cat([b[:-1], (b + mended * lam * discount * value)[-1:]])
        above = torch.diag_embed(lam * discount[chosen].T, offset=1)
        eye = torch.eye(len(reward), dtype=reward.dtype)
        return torch.linalg.solve(eye - above, b.T[..., None])[..., 0].T

    return answer


def quotients(reward, discount, value, lam):
    """Sums of b, weighted by ratios of one cumulative product."""
    b = reward + (1 - lam) * discount * value
    b = torch.cat([b[:-1], (b + lam * discount * value)[-1:]])
    product = torch.cat([torch.ones_like(b[:1]), (lam * discount[:-1]).cumprod(0)])
    return (b * product).flip(0).cumsum(0).flip(0) / product


def advantages(trace: Callable, base: Callable = lambda v: v[:-1]) -> Callable:
    """Aₜ = Σ_k weight · δ_k by the weights `trace(k - t, last, γ, λ)`; δ uses base(v) for v_t."""

    def answer(reward, value, gamma, lam):
        delta, steps = reward + gamma * value[1:] - base(value), len(reward)
        rows = [
            sum(trace(k - t, k == steps - 1, gamma, lam) * delta[k] for k in range(t, steps))
            for t in range(steps)
        ]
        return torch.stack(rows)

    return answer


def gae(reward: Tensor, value: Tensor, gamma: float, lam: float) -> Tensor:
    """Aₜ = δₜ + γλ Aₜ₊₁."""
    return lambda_return(reward, torch.full_like(reward, gamma), value[1:], lam) - value[:-1]


def shifted_targets(reward: Tensor, discount: Tensor, value: Tensor, lam: float) -> Tensor:
    """The bug of exercise 9.5: the reward of the state that is left."""
    return lambda_return(reward[:-1], discount[1:], value[1:], lam)


EXERCISES = [
    Exercise(
        id="9.1",
        right=(4.0, 3.5),
        wrong={
            "has the two the wrong way round: λ = 0 stops after one step, λ = 1 only at the "
            "horizon.": (3.5, 4.0),
            "uses v₀, the value of the state that is left. After the first step comes v₁.": (
                5.0,
                3.5,
            ),
            "forgets the critic at the end of the dream: at the horizon v₂ stands for all that "
            "is not dreamt.": (4.0, 2.5),
            "discounts the reward r₁ too. d₁ belongs to what comes after s₁.": (3.5, 2.25),
        },
    ),
    Exercise(
        id="9.2",
        right=lambda_return,
        case=dream,
        wrong={
            "takes the value of the state that is left, v_t, where that of the state reached, "
            "v_{t+1}, belongs. Entry t of `value` already holds v_{t+1}.": backwards(
                lambda r, d, v, own, ret, lam: r + d * ((1 - lam) * own + lam * ret)
            ),
            "swaps the two weights: (1-λ) belongs to the value, λ to the return.": backwards(
                lambda r, d, v, own, ret, lam: r + d * (lam * v + (1 - lam) * ret)
            ),
            "discounts the reward too. d belongs to what comes after it.": backwards(
                lambda r, d, v, own, ret, lam: d * (r + (1 - lam) * v + lam * ret)
            ),
            "starts from 0. At the horizon the critic stands for the rest: R_H = v_H.": (
                forgets_the_horizon
            ),
        },
    ),
    Exercise(
        id="9.3",
        right=linear_system(slice(None, -1)),
        case=ending_dream,
        outcome=at_once,
        wrong={
            "has the right returns, but still walks through time. Build I - Λ and solve once.": (
                lambda_return
            ),
            "is off by one above the diagonal: R_t holds λ d_{t+1} R_{t+1}, and entry t of "
            "`discount` is that d_{t+1}.": linear_system(slice(1, None)),
            "starts from 0. At the horizon the critic stands for the rest: the last row of b "
            "also holds λ d_H v_H.": linear_system(slice(None, -1), mended=False),
            "divides by a product of discounts, which is 0 after a sure end.": quotients,
        },
    ),
    Exercise(
        id="9.4",
        right=gae,
        case=steady_dream,
        wrong={
            "has the exponent T-t+1 in the last term; count the steps from t to T-1.": advantages(
                lambda k, last, gamma, lam: (gamma * lam) ** (k + 2 if last else k)
            ),
            "weighs with γ alone. Each step to a later error costs γλ.": advantages(
                lambda k, last, gamma, lam: gamma**k
            ),
            "weighs with λ alone. Each step to a later error costs γλ.": advantages(
                lambda k, last, gamma, lam: lam**k
            ),
            "compares with v_{t+1}, the state reached. The advantage of time t is over v_t.": (
                advantages(lambda k, last, gamma, lam: (gamma * lam) ** k, lambda v: v[1:])
            ),
        },
    ),
    Exercise(
        id="9.5",
        right=lambda r, d, v, lam: lambda_return(r[1:], d[1:], v[1:], lam),
        given=shifted_targets,
        case=heads,
        wrong={
            "has the right rewards now, but the values of the states that are left.": (
                lambda r, d, v, lam: lambda_return(r[1:], d[1:], v[:-1], lam)
            ),
            "shifts the discounts too, so that rewards and discounts agree. That is the form of "
            "V1 and V2, for values that contain r_t; this critic's values do not.": (
                lambda r, d, v, lam: lambda_return(r[:-1], d[:-1], v[1:], lam)
            ),
            "shifts all three. They agree with each other, but entry 0 now holds time 0, which "
            "no action of the dream has caused.": (
                lambda r, d, v, lam: lambda_return(r[:-1], d[:-1], v[:-1], lam)
            ),
        },
    ),
]
