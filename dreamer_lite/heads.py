"""How a network output becomes a number or an event, and what loss trains it (chapters 5 and 11).

One protocol: `num_params`, `mean(params)`, `loss(params, target)`. Means and losses are computed in
float32; losses are per element, the caller averages. Targets are never differentiated.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamer_lite.distributions import LN_2PI, Bernoulli
from dreamer_lite.guard import between, floats, pixels, shaped, width
from dreamer_lite.transforms import identity, symexp, symexp_bins, symlog, twohot


def unit_normal_loss(mean: Tensor, target: Tensor) -> Tensor:
    """-ln N(target; mean, 1) = ½ (target - mean)² + ½ ln 2π, in nats.  [...], [...] -> [...].

    The constant, 0.919 for each number predicted, is why the image loss of V1 and V2 ends at
    11,292 and not at 0. Source: V1, V2: all predictions but the continue flag.
    """
    shaped(target, "target", mean.shape, "one number for each prediction")
    return 0.5 * (target.detach() - mean) ** 2 + 0.5 * LN_2PI


def fits(params: Tensor, target: Tensor, outputs: int) -> None:
    """Refuses what would broadcast into a wrong loss: params [...,outputs], target [...]."""
    width(params, "params", outputs, "give what the head's network answers")
    shaped(target, "target", params.shape[:-1], "one number for each prediction")
    floats("give float32 numbers", target=target)


class NormalHead(nn.Module):
    """N(params, 1): squared error, with V1's and V2's constant.  num_params = 1."""

    num_params = 1

    def mean(self, params: Tensor) -> Tensor:
        """[...,1] -> [...]."""
        width(params, "params", 1, "give what the head's network answers")
        return params.float().squeeze(-1)

    def loss(self, params: Tensor, target: Tensor) -> Tensor:
        """-ln N(target; mean, 1), in nats.  [...,1], [...] -> [...]."""
        fits(params, target, 1)
        return unit_normal_loss(self.mean(params), target)


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
        width(params, "params", self.num_params, "give what the head's network answers")
        p = params.float().softmax(-1)
        return ((p - p.flip(-1)) * self.bins).sum(-1) / 2

    def loss(self, params: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy with twohot(target), in nats.  [...,K], [...] -> [...]."""
        fits(params, target, self.num_params)
        return -(twohot(target.float(), self.bins) * params.float().log_softmax(-1)).sum(-1)


class SymlogTwoHotHead(nn.Module):
    """The scalar of V3's first release (arXiv v1, 2023): even bins in symlog space.

    The mean is taken there as well, so random targets decode too low: 0 or 100 with probabilities
    .9 and .1 decode to 0.586. `TwoHotHead` says 10.
    """

    def __init__(self, bins: int = 255):
        super().__init__()
        between(2, math.inf, "the default is 255", bins=bins)
        self.num_params = bins
        self.register_buffer("bins", torch.linspace(-20, 20, bins), persistent=False)

    def mean(self, params: Tensor) -> Tensor:
        """symexp(Σ pᵢ bᵢ).  [...,K] -> [...]."""
        width(params, "params", self.num_params, "give what the head's network answers")
        return symexp((params.float().softmax(-1) * self.bins).sum(-1))

    def loss(self, params: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy with twohot(symlog(target)), in nats.  [...,K], [...] -> [...]."""
        fits(params, target, self.num_params)
        goal = twohot(symlog(target.float()), self.bins)
        return -(goal * params.float().log_softmax(-1)).sum(-1)


class BernoulliHead(nn.Module):
    """An event with probability σ(params); soft targets allowed.  num_params = 1."""

    num_params = 1

    def mean(self, params: Tensor) -> Tensor:
        """[...,1] -> [...]."""
        width(params, "params", 1, "give what the head's network answers")
        return Bernoulli(params.squeeze(-1)).mean

    def loss(self, params: Tensor, target: Tensor) -> Tensor:
        """-ln p(target), in nats.  [...,1], [...] -> [...]."""
        fits(params, target, 1)
        return -Bernoulli(params.squeeze(-1)).log_prob(target.detach())


# --- observations ------------------------------------------------------------------------------


def raw_image(image: Tensor, like: Tensor) -> Tensor:
    """Pixels 0..255 [...,H,W,C] as they come from the world -> [0, 1]; refuses other kinds."""
    remedy = "give the pixels of the replay, [..., H, W, C]"
    pixels(remedy, image=image)
    shaped(image, "image", like.shape, remedy)
    return image.float() / 255


class PixelHead(nn.Module):
    """Images: x̂ = σ(logits); Σ over pixels of (x - x̂)², V3 without ½ and without constant."""

    def mean(self, logits: Tensor) -> Tensor:
        """[...,H,W,C] -> [...,H,W,C] in [0, 1]."""
        return logits.float().sigmoid()

    def loss(self, logits: Tensor, image: Tensor) -> Tensor:
        """image uint8 [...,H,W,C] -> [...]: summed over pixels, as the KL weights assume."""
        error = self.mean(logits) - raw_image(image, logits)
        return (error**2).sum((-3, -2, -1))


class NormalPixelHead(nn.Module):
    """Images in V1 and V2: N(output, 1) of x/255 - ½, with the constant of every pixel."""

    def mean(self, output: Tensor) -> Tensor:
        """output + ½, clipped to be shown.  [...,H,W,C] -> [...,H,W,C] in [0, 1]."""
        return (output.float() + 0.5).clamp(0, 1)

    def loss(self, output: Tensor, image: Tensor) -> Tensor:
        """image uint8 [...,H,W,C] -> [...], in nats, summed over pixels."""
        target = raw_image(image, output) - 0.5
        return unit_normal_loss(output.float(), target).sum((-3, -2, -1))


class SymlogHead(nn.Module):
    """Vectors: predicts symlog(x) by Σ (symlog x - output)².  Source: V3v2."""

    squash = staticmethod(symlog)  # what the encoder sees of a vector

    def mean(self, output: Tensor) -> Tensor:
        """[...,n] -> [...,n] in the units of x (the authors' `pred` stays in symlog space)."""
        return symexp(output.float())

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """[...,n], [...,n] -> [...]."""
        shaped(target, "target", output.shape, "the vector that was observed")
        floats("give the vector that was observed", target=target)
        return F.mse_loss(output.float(), symlog(target), reduction="none").sum(-1)


class NormalVectorHead(nn.Module):
    """Vectors in V2 (and, ours, in V1): N(output, 1) of x as it is."""

    squash = staticmethod(identity)

    def mean(self, output: Tensor) -> Tensor:
        """[...,n] -> [...,n]."""
        return output.float()

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """[...,n], [...,n] -> [...], in nats."""
        shaped(target, "target", output.shape, "the vector that was observed")
        floats("give the vector that was observed", target=target)
        return unit_normal_loss(output.float(), target).sum(-1)
