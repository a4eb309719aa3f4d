"""How parameters move: gradient clipping and the two update rules of the papers (chapter 12)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dreamer_lite.guard import between, require


def adaptive_clip(grads: list[Tensor], params: list[Tensor], agc: float, floor: float = 1e-3):
    """AGC, per tensor (any shape): g ← g · min(1, agc · max(floor, ‖p‖) / ‖g‖).

    A gradient may not be larger than a share of the weights it moves; the floor lets weights that
    are zero start moving. Source: V3 authors' code `opt.py`.
    """
    fits = [g.shape for g in grads] == [p.shape for p in params]
    got = f"{[list(g.shape) for g in grads]}"
    require(fits, "grads", f"{[list(p.shape) for p in params]}", got, "one for each parameter")
    limits = torch._foreach_norm(params)
    torch._foreach_maximum_(limits, floor)
    torch._foreach_mul_(limits, agc)
    ratios = torch._foreach_div(torch._foreach_norm(grads), limits)  # ‖g‖ / limit
    torch._foreach_maximum_(ratios, 1.0)
    return torch._foreach_div(grads, ratios)


@dataclass(frozen=True)
class LaProp:
    """V3: AGC, then normalize by the gradient's size, then momentum (in this order: not Adam).

        ν ← β₂ν + (1-β₂)g²,   u = g / (√ν̂ + ε),   m ← β₁m + (1-β₁)u,   p ← p - lr·m̂

    Hats are bias-corrected. The learning rate rises linearly from 0: the first step moves nothing.
    """

    lr: float = 4e-5  # learning rate
    agc: float = 0.3  # a gradient may be this share of the weights it moves
    beta1: float = 0.9  # memory of the momentum
    beta2: float = 0.999  # memory of the gradient's size
    eps: float = 1e-20  # keeps the division finite
    warmup: int = 1000  # updates until the learning rate is full

    def __post_init__(self) -> None:
        numbers = {k: getattr(self, k) for k in ("lr", "agc", "eps", "warmup")}
        between(0, math.inf, "V3: 4e-5, 0.3, 1e-20, 1000", **numbers)
        between(0, 1, "V3: 0.9, 0.999", beta1=self.beta1, beta2=self.beta2)

    def rate(self, count: int) -> float:
        """Learning rate after `count` updates."""
        return self.lr * min(1.0, count / self.warmup) if self.warmup else self.lr

    def __call__(self, params, grads, first, second, count: int) -> None:
        """One step on lists of tensors; first, second: moments m and ν; count: updates before."""
        grads = adaptive_clip(grads, params, self.agc) if self.agc else grads
        torch._foreach_mul_(second, self.beta2)
        torch._foreach_addcmul_(second, grads, grads, 1 - self.beta2)
        size = torch._foreach_div(second, 1 - self.beta2 ** (count + 1))
        torch._foreach_sqrt_(size)
        torch._foreach_add_(size, self.eps)
        torch._foreach_lerp_(first, torch._foreach_div(grads, size), 1 - self.beta1)
        rate = self.rate(count) / (1 - self.beta1 ** (count + 1))
        torch._foreach_add_(params, first, alpha=-rate)


@dataclass(frozen=True)
class Adam:
    """V1, V2: clip by the global norm, decay every weight, then Adam with ε inside as in Keras.

    p ← (1-decay)·p;   lr_t = lr·√(1-β₂ᵗ)/(1-β₁ᵗ);   p ← p - lr_t · m / (√ν + ε)

    ε stands beside the uncorrected √ν, so this is not `torch.optim.Adam`, and the decay is not
    multiplied by lr. Source: V1 `tools.py:341-385`, V2 `common/tfutils.py:65-151`.
    """

    lr: float = 1e-4  # learning rate
    clip: float = 100.0  # largest global norm of the gradient
    beta1: float = 0.9  # memory of the momentum
    beta2: float = 0.999  # memory of the gradient's size
    eps: float = 1e-7  # keeps the division finite
    decay: float = 0.0  # share of every weight that is lost per update

    def __post_init__(self) -> None:
        numbers = {k: getattr(self, k) for k in ("lr", "clip", "eps")}
        between(0, math.inf, "V1: 6e-4, 100, 1e-7", **numbers)
        shares = {k: getattr(self, k) for k in ("beta1", "beta2", "decay")}
        between(0, 1, "V2: 0.9, 0.999, 1e-6", **shares)

    def __call__(self, params, grads, first, second, count: int) -> None:
        """One step on lists of tensors; first, second: moments m and ν; count: updates before."""
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
        grads = torch._foreach_mul(grads, self.clip / norm.clamp(min=self.clip))
        if self.decay:
            torch._foreach_mul_(params, 1 - self.decay)
        torch._foreach_lerp_(first, grads, 1 - self.beta1)
        torch._foreach_mul_(second, self.beta2)
        torch._foreach_addcmul_(second, grads, grads, 1 - self.beta2)
        size = torch._foreach_sqrt(second)
        torch._foreach_add_(size, self.eps)
        t = count + 1
        rate = self.lr * (1 - self.beta2**t) ** 0.5 / (1 - self.beta1**t)
        torch._foreach_addcdiv_(params, first, size, value=-rate)


class Optimizer:
    """Named parameters, their moments and a counter; one rule moves them all."""

    def __init__(self, params: dict[str, Tensor], rule: LaProp | Adam):
        require(bool(params), "params", "at least one tensor", f"{params}", "what should it move?")
        self.params, self.rule, self.count = params, rule, 0
        self.first = {k: torch.zeros_like(p) for k, p in params.items()}
        self.second = {k: torch.zeros_like(p) for k, p in params.items()}

    def gradients(self, loss: Tensor, retain: bool = False) -> list[Tensor]:
        """∂loss/∂params of these parameters only: nobody else receives a gradient.  loss []."""
        return list(
            torch.autograd.grad(
                loss, list(self.params.values()), retain_graph=retain, materialize_grads=True
            )
        )

    @torch.no_grad()
    def step(self, grads: list[Tensor]) -> Tensor:
        """Moves the parameters; returns the global gradient norm before clipping, [].

        grads: one tensor for each parameter, in the order of `params`.
        """
        shapes = [list(g.shape) for g in grads]
        expected = [list(p.shape) for p in self.params.values()]
        require(shapes == expected, "grads", f"{expected}", f"{shapes}", "use `gradients(loss)`")
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
        lists = [list(d.values()) for d in (self.params, self.first, self.second)]
        self.rule(lists[0], grads, lists[1], lists[2], self.count)
        self.count += 1
        return norm
