"""How much a dream is worth: λ-returns and the weights of its steps (chapters 8 and 9)."""

import torch
from torch import Tensor


def lambda_return(reward: Tensor, discount: Tensor, value: Tensor, lam: float | Tensor) -> Tensor:
    """The exponentially weighted average of all n-step returns.

        Rₜ = rₜ₊₁ + dₜ₊₁ [(1-λ) vₜ₊₁ + λ Rₜ₊₁],   R_H = v_H

    reward, discount, value: [H,...], entry t holds time t+1.  Returns [H,...] for t = 0..H-1.
    λ in [0, 1], one number or [H,...] (0 where a trace must end). Differentiable in all three
    (V1 needs that). Units: reward. Source: V3v2, λ-return; authors' code `agent.py:482-490`.
    """
    if not reward.shape == discount.shape == value.shape:
        raise ValueError(
            "reward, discount and value must have one shape [H,...] (entry t holds time t+1), got "
            f"{list(reward.shape)}, {list(discount.shape)}, {list(value.shape)}; pass value[1:]?"
        )
    lam = lam + torch.zeros_like(reward)
    ret, returns = value[-1], []
    backwards = (x.flip(0) for x in (reward, discount, value, lam))
    for r, d, v, w in zip(*backwards, strict=True):
        ret = r + d * ((1 - w) * v + w * ret)
        returns.append(ret)
    return torch.stack(returns[::-1])


def discount_weights(cont: Tensor, discount: Tensor) -> Tensor:
    """How likely a dream is still running, and how much a step counts:  wₜ = c₀ d₁ d₂ ... dₜ.

    cont [N]: the true continue flag of the start (a terminal start trains nobody);
    discount [H,N]: d₁..d_H.  Returns [H,N] for t = 0..H-1, detached.
    """
    if cont.shape != discount.shape[1:]:
        raise ValueError(
            f"cont must be {list(discount.shape[1:])}, one flag per dream, got {list(cont.shape)}; "
            "flatten [T,B] to [N] as for the start states"
        )
    return torch.cat([cont[None].to(discount.dtype), discount[:-1].detach()]).cumprod(0)
