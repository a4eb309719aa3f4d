"""How a network output becomes a number or an event, and what loss trains it (chapters 5 and 11).

One protocol: `num_params`, `mean(params)`, `loss(params, target)`. Means and losses are computed in
float32; losses are per element, the caller averages.
"""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from dreamer_lite.distributions import Bernoulli
from dreamer_lite.transforms import symexp, symexp_bins, symlog, twohot


class NormalHead(nn.Module):
    """N(params, 1): squared error, with V1's and V2's constant.  num_params = 1."""

    num_params = 1

    def mean(self, params: Tensor) -> Tensor:
        """[...,1] -> [...]."""
        return params.float().squeeze(-1)

    def loss(self, params: Tensor, target: Tensor) -> Tensor:
        """-ln N(target; mean, 1) = ½(target - mean)² + ½ ln 2π.  [...,1], [...] -> [...]."""
        return 0.5 * (target.detach() - self.mean(params)) ** 2 + 0.5 * math.log(2 * math.pi)


class TwoHotHead(nn.Module):
    """V3's scalar: a softmax over bins from -4.9e8 to 4.9e8, trained by cross-entropy."""

    def __init__(self, bins: int = 255):
        super().__init__()
        self.num_params = bins
        self.register_buffer("bins", symexp_bins(bins), persistent=False)

    def mean(self, params: Tensor) -> Tensor:
        """E[b] = Σ pᵢ bᵢ = ½ Σ (pᵢ - p_{K-1-i}) bᵢ.  [...,K] -> [...].

        The mirrored form is exactly 0 for a flat softmax; the plain sum is not (the end bins are
        4.9e8 and float32 rounds): it gives -0.25, -0.316 or +1.0 depending on the order.
        """
        p = params.float().softmax(-1)
        return ((p - p.flip(-1)) * self.bins).sum(-1) / 2

    def loss(self, params: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy with twohot(target), in nats.  [...,K], [...] -> [...]."""
        return -(twohot(target.float(), self.bins) * params.float().log_softmax(-1)).sum(-1)


class BernoulliHead(nn.Module):
    """An event with probability σ(params); soft targets allowed.  num_params = 1."""

    num_params = 1

    def mean(self, params: Tensor) -> Tensor:
        """[...,1] -> [...]."""
        return Bernoulli(params.squeeze(-1)).mean

    def loss(self, params: Tensor, target: Tensor) -> Tensor:
        """-ln p(target), in nats.  [...,1], [...] -> [...]."""
        return -Bernoulli(params.squeeze(-1)).log_prob(target.detach())


class PixelHead(nn.Module):
    """Images: x̂ = σ(logits); Σ over pixels of (x - x̂)², V3 without ½ and without constant."""

    def mean(self, logits: Tensor) -> Tensor:
        """[...,H,W,C] -> [...,H,W,C] in [0, 1]."""
        return logits.float().sigmoid()

    def loss(self, logits: Tensor, image: Tensor) -> Tensor:
        """image uint8 [...,H,W,C] -> [...]: summed over pixels, as the KL weights assume."""
        error = self.mean(logits) - image.float() / 255
        return (error**2).sum((-3, -2, -1))


class SymlogHead(nn.Module):
    """Vectors: predicts symlog(x) by Σ (symlog x - output)².  Source: V3v2."""

    def mean(self, output: Tensor) -> Tensor:
        """[...,n] -> [...,n] in the units of x (the authors' `pred` stays in symlog space)."""
        return symexp(output.float())

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """[...,n], [...,n] -> [...]."""
        return F.mse_loss(output.float(), symlog(target), reduction="none").sum(-1)
