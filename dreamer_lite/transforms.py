"""Scales: squash numbers of any size, and spread one number over two bins (chapter 11).

Rewards of 0.01 and of 10,000 must train the same network with the same learning rate. `symlog`
compresses inputs; `twohot` turns regression into classification over bins spaced by `symexp`.
"""

import torch
from torch import Tensor


def symlog(x: Tensor) -> Tensor:
    """symlog(x) = sign(x) ln(1 + |x|): near 0 the identity, far away a logarithm.  Any shape.

    Source: V3v2, symlog; authors' code `nets.symlog`.
    """
    return x.sign() * x.abs().log1p()


def symexp(x: Tensor) -> Tensor:
    """symexp(x) = sign(x) (e^|x| - 1), the inverse of `symlog`.  Any shape."""
    return x.sign() * x.abs().expm1()


def symexp_bins(count: int = 255, limit: float = 20.0) -> Tensor:
    """`count` bins [K], evenly spaced in symlog space over [-limit, limit]; exactly antisymmetric.

    b_i = symexp(-limit + 2 limit i / (K-1)) for the lower half, and b_{K-1-i} = -b_i, so that the
    sum over a flat distribution cancels to exactly 0 (see `TwoHotHead.mean`). Units: those of the
    predicted number. Source: V3v2; authors' code `Head.symexp_twohot`.
    """
    if count < 2:
        raise ValueError(f"count must be at least 2 bins, got {count}; the default is 255")
    if count % 2:
        half = symexp(torch.linspace(-limit, 0, (count - 1) // 2 + 1))
        return torch.cat([half, -half[:-1].flip(0)])
    half = symexp(torch.linspace(-limit, 0, count // 2))
    return torch.cat([half, -half.flip(0)])


def twohot(x: Tensor, bins: Tensor) -> Tensor:
    """Two neighboring bins share weight 1 such that twohot(x, bins) @ bins = x.  [...] -> [...,K].

    Linear in *bin* space. Beyond the end bins all weight sits on the end bin. Not differentiable
    in x (it is a target). Source: V3v2; authors' code `outs.TwoHot.loss`.
    """
    x = x.detach().clamp(bins[0], bins[-1])
    above = torch.searchsorted(bins, x.contiguous(), right=True).clamp(1, len(bins) - 1)  # [...]
    below = above - 1
    weight = (x - bins[below]) / (bins[above] - bins[below])  # share of the upper bin
    out = torch.zeros(*x.shape, len(bins), dtype=x.dtype, device=x.device)
    out.scatter_(-1, below[..., None], (1 - weight)[..., None])
    return out.scatter_(-1, above[..., None], weight[..., None])  # [...,K]
