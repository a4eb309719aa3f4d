"""Exercises of chapter 8: the imagination MDP."""

from collections.abc import Callable

import torch
from torch import Tensor

from dreamer_lite.check.compare import gradients
from dreamer_lite.check.core import Exercise
from dreamer_lite.returns import discount_weights, lambda_return


def endings(rng: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """True flags of the starts [N], chances that the world goes on [H,N], and γ."""
    horizon = int(torch.randint(3, 9, (), generator=rng))
    chance = torch.rand(horizon, 4, generator=rng, dtype=torch.float64)
    cont = torch.tensor([True, False, True, True])
    return cont, chance, 0.5 + 0.4 * float(torch.rand((), generator=rng))


def weighed(first: Callable, keep: Callable = Tensor.detach) -> Callable:
    """Products of γ·chance; first(cont, discount) -> the H factors that are multiplied up."""

    def answer(cont, chance, gamma):
        return first(cont.to(chance.dtype), keep(gamma * chance)).cumprod(0)

    return answer


def shifted(cont: Tensor, discount: Tensor) -> Tensor:
    """c₀, d₁, ..., d_{H-1}."""
    return torch.cat([cont[None], discount[:-1]])


MOST = 60  # the longest horizon in question


def doubts(rng: torch.Generator) -> tuple[float, float, float, float]:
    """ε, γ, the error of a dream that left the world, and that of the critic."""
    x = torch.rand(4, generator=rng, dtype=torch.float64)
    eps, gamma = 0.005 + 0.03 * x[0], 0.8 + 0.15 * x[1]
    return float(eps), float(gamma), float(0.5 + x[2]), float(0.5 + 2 * x[3])


def best_horizon(error: Callable, pick: Callable = Tensor.argmin) -> Callable:
    """The horizon from 1 on with the least error(H, ε, γ, lost, critic)."""

    def answer(eps, gamma, lost, critic):
        steps = torch.arange(1, MOST + 1, dtype=torch.float64)
        return int(pick(error(steps, eps, gamma, lost, critic))) + 1

    return answer


def both_errors(steps, eps, gamma, lost, critic):
    """lost · (1 - (1-ε)^H) + critic · γ^H."""
    return lost * (1 - (1 - eps) ** steps) + critic * gamma**steps


def models(rng: torch.Generator) -> tuple[float, float, float, int, float, float]:
    """ε, the reward's error, γ, H, and the largest size of a reward and of a value."""
    x = torch.rand(5, generator=rng, dtype=torch.float64).tolist()
    horizon = int(torch.randint(2, 20, (), generator=rng))
    return 0.01 + 0.2 * x[0], 0.3 * x[1], 0.5 + 0.49 * x[2], horizon, 0.5 + x[3], 1 + 3 * x[4]


def bounded(apart: Callable, first: int = 0, width: float = 2.0) -> Callable:
    """The sum over steps of γ^(k-1+first) (ε_r + width · r_max · apart(ε, k)), and the critic's."""

    def answer(eps, eps_reward, gamma, horizon, reward, value):
        total = sum(
            gamma ** (k - 1 + first) * (eps_reward + width * reward * apart(eps, k))
            for k in range(1, horizon + 1)
        )
        return total + gamma**horizon * width * value * apart(eps, horizon)

    return answer


def parted(eps: float, k: int) -> float:
    """1 - (1-ε)^k: the chance to have left the world by step k, at most."""
    return 1 - (1 - eps) ** k


def tiny_dream(rng: torch.Generator) -> tuple[Tensor, ...]:
    """Posterior states h [T,B,D], z [T,B,Z], flags [T,B]; a recurrent model and a critic."""
    steps, d, z = int(torch.randint(2, 5, (), generator=rng)), 3, 2
    sizes = [(steps, 2, d), (steps, 2, z), (d + z, d + z), (d + z,)]
    h, z, model, critic = (
        torch.randn(size, generator=rng, dtype=torch.float64) / 2 for size in sizes
    )
    cont = torch.ones(steps, 2, dtype=torch.bool)
    cont[-1, 0] = False
    return h, z, cont, model, critic


def same(x: Tensor) -> Tensor:
    """The tensor itself, its history included."""
    return x


def critic_loss(
    start: Callable = same, seen: Callable = same, goal: Callable = Tensor.detach
) -> Callable:
    """The critic's loss in a dream of three steps; what is done to starts, features, targets."""

    def answer(h, z, cont, model, critic):
        states = [start(torch.cat([h, z], -1).flatten(0, 1))]
        for _ in range(3):
            states.append(torch.tanh(states[-1] @ model))
        feat = torch.stack(states)
        reward, discount = feat[1:, :, 0], 0.9 * feat[1:, :, 1].sigmoid()
        value = seen(feat) @ critic
        ret = goal(lambda_return(reward, discount, value[1:], 0.95))
        weight = discount_weights(cont.flatten(), discount)
        return (weight * (ret - value[:-1]) ** 2).mean()

    return answer


EXERCISES = [
    Exercise(
        id="8.1",
        right=(1024, 15360, 43, 12),
        wrong={
            "counts states. A dream of 15 steps has 16 of them, but returns only for the 15 that "
            "are left by an action.": (1024, 16384, 43, 12),
            "flattens with the sequence first. Time is axis 0, so dream n began in row n // 16 of "
            "sequence n % 16.": (1024, 15360, 60, 10),
            "has the right place, but the sequence before the time.": (1024, 15360, 12, 43),
            "starts one dream for each sequence. Every row starts one.": (16, 240, 43, 12),
        },
    ),
    Exercise(
        id="8.2",
        right=weighed(shifted),
        case=endings,
        outcome=gradients,
        wrong={
            "lets the weight of a step contain its own discount. w_t counts the steps before: "
            "w_0 = c_0, w_1 = c_0 d_1.": weighed(lambda c, d: torch.cat([(c * d[0])[None], d[1:]])),
            "trusts every start. A dream from a row where the world ended trains nobody: begin "
            "with c_0.": weighed(lambda c, d: shifted(torch.ones_like(c), d)),
            "has the right numbers, but lets a gradient through: the actor could raise its score "
            "by moving endings. Detach the weights.": weighed(shifted, same),
            "forgets γ. The discount of a step is γ times the chance to go on.": (
                lambda cont, chance, gamma: weighed(shifted)(cont, chance, 1.0)
            ),
            "does not multiply up: past an end everything must count nothing.": (
                lambda cont, chance, gamma: shifted(cont.to(chance.dtype), gamma * chance.detach())
            ),
        },
    ),
    Exercise(
        id="8.3",
        right=best_horizon(both_errors),
        case=doubts,
        always=[(0.02, 0.9, 1.0, 1.0), (0.01, 0.95, 1.0, 1.0)],
        wrong={
            "takes the worst horizon: you want the least error.": best_horizon(
                both_errors, Tensor.argmax
            ),
            "is one too short. Entry 0 of a list that starts at H = 1 is H = 1.": (
                lambda *case: best_horizon(both_errors)(*case) - 1
            ),
            "takes the chance to leave as Hε. It is 1 - (1-ε)^H, which bends.": best_horizon(
                lambda steps, eps, gamma, lost, critic: lost * eps * steps + critic * gamma**steps
            ),
            "does not discount the critic, so that a longer dream could never help.": best_horizon(
                lambda steps, eps, gamma, lost, critic: both_errors(steps, eps, 1.0, lost, critic)
            ),
        },
    ),
    Exercise(
        id="8.4",
        right=bounded(parted),
        case=models,
        wrong={
            "counts the first step as safe. A dream can leave the world on its first step: the "
            "exponent is k, not k - 1.": bounded(lambda eps, k: parted(eps, k - 1)),
            "discounts the first reward. r_1 counts in full.": bounded(parted, first=1),
            "takes r_max for the largest difference of two rewards. They may have opposite signs: "
            "2 r_max.": bounded(parted, width=1.0),
            "grows like kε. That is a bound too, but a looser one: keep (1-ε)^k.": bounded(
                lambda eps, k: k * eps
            ),
            "forgets the critic at the end of the dream.": (
                lambda eps, e, gamma, horizon, r, v: bounded(parted)(eps, e, gamma, horizon, r, 0.0)
            ),
        },
    ),
    Exercise(
        id="8.5",
        right=critic_loss(seen=Tensor.detach),
        given=critic_loss(),
        case=tiny_dream,
        outcome=gradients,
        wrong={
            "closes the door at the starts only. The dream itself is computed with the recurrent "
            "model's weights: the critic still moves those.": critic_loss(start=Tensor.detach),
            "lets the gradient into the target: the return is made of the critic's own values, "
            "and must be a constant.": critic_loss(seen=Tensor.detach, goal=same),
            "stops everything, the critic included: now nobody learns.": (
                lambda *args: critic_loss()(*args).detach()
            ),
            "detaches h and leaves z. Both halves of the state carry a gradient into the model.": (
                lambda h, z, cont, model, critic: critic_loss()(
                    h.detach(), z, cont, model.detach(), critic
                )
            ),
        },
    ),
]
