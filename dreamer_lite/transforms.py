"""Scales: squash numbers of any size, and spread one number over two bins (chapter 11).

Rewards of 0.01 and of 10,000 must train the same network with the same learning rate. `symlog`
compresses inputs; `twohot` turns regression into classification over bins spaced by `symexp`.
"""

import torch
from torch import Tensor

from dreamer_lite.guard import floats, require, whole

NUMBERS = "give float32 numbers"  # the remedy in errors about other types


def symlog(x: Tensor) -> Tensor:
    """symlog(x) = sign(x) ln(1 + |x|): near 0 the identity, far away a logarithm.  Any shape.

    Units: those of x in, none out. Source: V3v2, symlog; authors' code `nets.symlog`. ValueError
    for integers and NaN.
    """
    floats(NUMBERS, x=x)
    return x.sign() * x.abs().log1p()


def symexp(x: Tensor) -> Tensor:
    """symexp(x) = sign(x) (e^|x| - 1), the inverse of `symlog`.  Any shape.

    Units: none in, those of `symlog`'s x out. Source: V3v2. ValueError for integers and NaN.
    """
    floats(NUMBERS, x=x)
    return x.sign() * x.abs().expm1()


def identity(x: Tensor) -> Tensor:
    """x, where V2 on Atari has tanh and V3 has symlog.  Any shape."""
    return x


def sigmoid2(x: Tensor) -> Tensor:
    """2σ(x/2), in (0, 2) and 1 at 0: the other way from a number to a deviation.  Any shape.

    Source: V2 authors' code, option `std_act: sigmoid2` of Gaussian latents, `trunc_normal` actors.
    ValueError for integers and NaN.
    """
    floats(NUMBERS, x=x)
    return 2 * (x / 2).sigmoid()


def symexp_bins(count: int = 255, limit: float = 20.0) -> Tensor:
    """`count` bins [K], evenly spaced in symlog space over [-limit, limit]; exactly antisymmetric.

    b_i = symexp(-limit + 2 limit i / (K-1)) for the lower half, and b_{K-1-i} = -b_i, so that the
    sum over a flat distribution cancels to exactly 0 (see `TwoHotHead.mean`). So it is for odd K;
    an even K has 0 twice in the middle. Units: those of the predicted number. Source: V3v2;
    authors' code `Head.symexp_twohot`. ValueError for fewer than two bins and a limit outside of
    (0, 88], above which float32 ends.
    """
    whole(2, "the default is 255 bins", count=count)
    require(0 < limit <= 88, "limit", "in (0, 88]", f"{limit}", "20 is usual, in symlog space")
    if count % 2:
        half = symexp(torch.linspace(-limit, 0, (count - 1) // 2 + 1))
        return torch.cat([half, -half[:-1].flip(0)])
    half = symexp(torch.linspace(-limit, 0, count // 2))
    return torch.cat([half, -half.flip(0)])


def twohot(x: Tensor, bins: Tensor) -> Tensor:
    """Two neighboring bins share weight 1 such that twohot(x, bins) @ bins = x.  [...] -> [...,K].

    Linear in *bin* space. Beyond the end bins all weight sits on the end bin. Not differentiable
    in x (it is a target). bins [K], ascending. Units: bins in those of x, weights none. Source:
    V3v2; authors' code `outs.TwoHot.loss`. ValueError for integers, NaN, and bins that do not
    ascend.
    """
    refuse_unsorted(x, bins)
    x = x.detach().clamp(bins[0], bins[-1])
    above = torch.searchsorted(bins, x.contiguous(), right=True).clamp(1, len(bins) - 1)  # [...]
    below = above - 1
    weight = (x - bins[below]) / (bins[above] - bins[below])  # share of the upper bin
    out = torch.zeros(*x.shape, len(bins), dtype=x.dtype, device=x.device)
    out.scatter_(-1, below[..., None], (1 - weight)[..., None])
    return out.scatter_(-1, above[..., None], weight[..., None])  # [...,K]


def refuse_unsorted(x: Tensor, bins: Tensor) -> None:
    """Raises ValueError unless x are float targets of any shape and bins [K] ascend."""
    floats("give targets as float32, in the units of the bins", x=x, bins=bins)
    rising = bins.dim() == 1 and len(bins) > 1
    if rising and bins.is_cpu:
        rising = bool((bins[1:] >= bins[:-1]).all() and bins[-1] > bins[-2])
    require(rising, "bins", "ascending [K] with K >= 2", bins, "see symexp_bins")
