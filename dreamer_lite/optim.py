"""How parameters move: gradient clipping and the two update rules of the papers (chapter 12).

ValueError for numbers out of range, for gradients that do not fit to the parameters, and (on the
CPU: a GPU would have to wait) for those that are no longer numbers, before anything is moved.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dreamer_lite.guard import between, floats, real, require, whole


def adaptive_clip(grads: list[Tensor], params: list[Tensor], agc: float, floor: float = 1e-3):
    """AGC, per tensor (any shape): g ← g · min(1, agc · max(floor, ‖p‖) / ‖g‖).

    A gradient may not be larger than a share of the weights it moves; the floor lets weights that
    are zero start moving. Source: V3 authors' code `opt.py`.
    """
    refuse_unlike(grads, params, agc, floor)
    limits = norms("params", params)
    torch._foreach_maximum_(limits, floor)
    torch._foreach_mul_(limits, agc)
    ratios = torch._foreach_div(norms("grads", grads), limits)  # ‖g‖ / limit
    torch._foreach_maximum_(ratios, 1.0)
    return torch._foreach_div(grads, ratios)


def refuse_unlike(grads: list[Tensor], params: list[Tensor], *amounts: float) -> None:
    """Raises ValueError unless there is a gradient for each parameter, of its shape (any shape)."""
    got, expected = [g.shape for g in grads], [p.shape for p in params]
    if got != expected:
        got, expected = ([list(shape) for shape in shapes] for shapes in (got, expected))
        require(
            False, "grads", f"{expected}", f"{got}", "use `gradients(loss)`: one for each of params"
        )
    between(
        0, math.inf, "V3 has 0.3 and 1e-3", **dict(zip(("agc", "floor"), amounts, strict=False))
    )


def norms(name: str, tensors: list[Tensor]) -> list[Tensor]:
    """‖x‖ of each tensor (any shape), [].  ValueError for integers, NaN and ∞ (on the CPU)."""
    real("give float32 numbers", **{name: tensors[0]})
    sizes = torch._foreach_norm(tensors)
    if sizes[0].is_cpu and not math.isfinite(torch.stack(sizes).sum().item()):
        count = sum(not x.isfinite() for x in sizes)
        got = f"NaN or ∞ in {count} of {len(sizes)} tensors"
        require(False, name, "finite numbers", got, "find the loss that is, or learn more slowly")
    return sizes


@dataclass(frozen=True)
class LaProp:
    """V3: AGC, then normalize by the gradient's size, then momentum (in this order: not Adam).

        ν ← β₂ν + (1-β₂)g²,          u = g / (√ν_hat + ε)
        m ← β₁m + (1-β₁)u,           p ← p - lr·m_hat

    _hat: corrected for the beginning at 0. The learning rate rises linearly from 0, so the first
    step moves nothing. Source: V3 authors' code `opt.py`.
    """

    lr: float = 4e-5  # learning rate
    agc: float = 0.3  # a gradient may be this share of the weights it moves
    beta1: float = 0.9  # memory of the momentum
    beta2: float = 0.999  # memory of the gradient's size
    eps: float = 1e-20  # keeps the division finite
    warmup: int = 1000  # updates until the learning rate is full

    def __post_init__(self) -> None:
        numbers = {k: getattr(self, k) for k in ("lr", "agc", "eps")}
        between(0, math.inf, "V3: 4e-5, 0.3, 1e-20", **numbers)
        between(0, 1 - 1e-6, "V3: 0.9, 0.999", beta1=self.beta1, beta2=self.beta2)
        whole(0, "V3 has 1000", warmup=self.warmup)

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
    """V1, V2: clip by the global norm, decay every weight, then Adam with the ε of Keras.

        p ← (1-decay)·p,   lr_t = lr·√(1-β₂ᵗ)/(1-β₁ᵗ)
        p ← p - lr_t · m / (√ν + ε)

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
        require(self.clip > 0, "clip", "above 0", f"{self.clip}", "math.inf clips nothing")
        between(0, 1 - 1e-6, "V2: 0.9, 0.999", beta1=self.beta1, beta2=self.beta2)
        between(0, 1, "V2 has 1e-6", decay=self.decay)

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
        real("integers cannot move", **params)
        self.params, self.rule, self.count = params, rule, 0
        self.first = {k: torch.zeros_like(p) for k, p in params.items()}
        self.second = {k: torch.zeros_like(p) for k, p in params.items()}

    def gradients(self, loss: Tensor, retain: bool = False) -> list[Tensor]:
        """∂loss/∂params of these parameters only: nobody else receives a gradient.  loss []."""
        floats("the sum of all losses, each a mean", (), loss=loss)
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
        refuse_unlike(grads, list(self.params.values()))
        norm = torch.linalg.vector_norm(torch.stack(norms("grads", grads)))
        lists = [list(d.values()) for d in (self.params, self.first, self.second)]
        self.rule(lists[0], grads, lists[1], lists[2], self.count)
        self.count += 1
        return norm
