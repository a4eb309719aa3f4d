"""How much a dream is worth: λ-returns and the weights of its steps (chapters 8 and 9)."""

import torch
from torch import Tensor

from dreamer_lite.guard import between, floats, require


def lambda_return(reward: Tensor, discount: Tensor, value: Tensor, lam: float | Tensor) -> Tensor:
    """The exponentially weighted average of all n-step returns.

        Rₜ = rₜ₊₁ + dₜ₊₁ [(1-λ) vₜ₊₁ + λ Rₜ₊₁],   R_H = v_H

    reward, discount, value: [H,...], entry t holds time t+1.  Returns [H,...] for t = 0..H-1.
    λ in [0, 1], one number or [H,...] (0 where a trace must end). Differentiable in all three
    (V1 needs that). Units: reward. V1 and V2 write Rₜ = rₜ + dₜ [(1-λ) vₜ₊₁ + λ Rₜ₊₁], for their
    values contain the reward of the state: pass reward[:-1], discount[:-1], value[1:].
    Source: V3v2, λ-return; authors' code V3 `agent.py:482-490`, V2 `common/other.py:77-99`,
    V1 `tools.py:316-338`. ValueError for other shapes, integers, NaN, λ outside of [0, 1].
    """
    refuse_misaligned(reward, discount, value, lam)
    lam = lam + torch.zeros_like(reward)
    ret, returns = value[-1], []
    backwards = (x.flip(0) for x in (reward, discount, value, lam))
    for r, d, v, w in zip(*backwards, strict=True):
        ret = r + d * ((1 - w) * v + w * ret)
        returns.append(ret)
    return torch.stack(returns[::-1])


def refuse_misaligned(reward: Tensor, discount: Tensor, value: Tensor, lam) -> None:
    """Raises ValueError unless these are three float tensors of one shape [H,...], and λ."""
    floats("give float32 numbers", reward=reward, discount=discount, value=value)
    if not reward.shape == discount.shape == value.shape or not reward.dim():
        raise ValueError(
            "reward, discount and value must have one shape [H,...] (entry t holds time t+1), got "
            f"{list(reward.shape)}, {list(discount.shape)}, {list(value.shape)}; pass value[1:]?"
        )
    if isinstance(lam, Tensor):
        shapes = lam.dim() == 0 or lam.shape == reward.shape
        require(shapes, "lam", f"one number or {list(reward.shape)}", lam, "a λ for each step")
    between(0, 1, "0 trusts the critic after one step, 1 only at the horizon", lam=lam)


def discount_weights(cont: Tensor, discount: Tensor) -> Tensor:
    """How likely a dream is still running, and how much a step counts:  wₜ = c₀ d₁ d₂ ... dₜ.

    cont [N]: the true continue flag of the start (a terminal start trains nobody);
    discount [H,N]: d₁..d_H.  Returns [H,N] for t = 0..H-1, detached. c₀ = 1 gives the weights of V1
    and V2. Units: none. Source: V3 authors' code of July 2024; V2 `agent.py:136-165`; V1
    `dreamer.py:190-191`. ValueError for other shapes, integers and NaN.
    """
    refuse_no_weights(cont, discount)
    return torch.cat([cont[None].to(discount.dtype), discount[:-1].detach()]).cumprod(0)


def refuse_no_weights(cont: Tensor, discount: Tensor) -> None:
    """Raises ValueError unless cont [N] are flags or their odds, and discount [H,N] numbers."""
    remedy = "flatten [T,B] to [N] as for the start states of discount"
    floats("give the predicted discounts", discount=discount)
    fits = discount.dim() and cont.shape == discount.shape[1:]
    require(bool(fits), "cont", f"{list(discount.shape[1:])}, one flag per dream", cont, remedy)
    if cont.dtype != torch.bool:
        floats("give bool flags, or odds as float32", cont=cont)
