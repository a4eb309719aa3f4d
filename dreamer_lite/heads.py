"""How a network output becomes a number or an event, and what loss trains it (chapters 5 and 11).

One protocol: `num_params`, `mean(params)`, `loss(params, target)`. Means and losses are computed in
float32; losses are per element, the caller averages. Targets are never differentiated. ValueError
for integers, NaN and tensors that do not fit together.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamer_lite.distributions import LN_2PI, Bernoulli
from dreamer_lite.guard import floats, pixels, real, whole
from dreamer_lite.transforms import identity, symexp, symexp_bins, symlog, twohot


def unit_normal_loss(mean: Tensor, target: Tensor) -> Tensor:
    """-ln N(target; mean, 1) = ½ (target - mean)² + ½ ln 2π, in nats.  [...], [...] -> [...].

    The constant, 0.919 for each number predicted, is why in V1 and V2 the loss of a color image of
    64×64 ends at 11,292 and not at 0. Source: V1, V2: all predictions but the continue flag.
    """
    alike(mean, target, "mean")
    return 0.5 * (target.detach() - mean) ** 2 + 0.5 * LN_2PI


def fits(params: Tensor, target: Tensor, outputs: int, look: bool = True) -> None:
    """Refuses what would broadcast into a wrong loss: params [...,outputs], target [...]."""
    answers(params, outputs, look)
    floats("one float32 number for each row of params", tuple(params.shape[:-1]), target=target)


def answers(params: Tensor, outputs: int, look: bool = True) -> None:
    """Refuses what no head's network answers, [...,outputs]; look: NaN, too (kernels do not)."""
    check = floats if look else real
    check("give what the head's network answers", (..., outputs), params=params)


def alike(prediction: Tensor, target: Tensor, name: str = "output") -> None:
    """Refuses a prediction (any shape) and a target of different shapes."""
    floats("give what the network answers", **{name: prediction})
    floats(f"one number for each of the {name}", tuple(prediction.shape), target=target)


class NormalHead(nn.Module):
    """N(params, 1): squared error, with V1's and V2's constant.  num_params = 1."""

    num_params = 1

    def mean(self, params: Tensor) -> Tensor:
        """[...,1] -> [...]."""
        answers(params, 1)
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
        4.9e8 and float32 rounds): it gives -0.25, -0.316 or +1.0 depending on the order. Units:
        those of the target. Source: V3 `outs.py:285-309`.
        """
        answers(params, self.num_params)
        p = params.float().softmax(-1)
        return ((p - p.flip(-1)) * self.bins).sum(-1) / 2

    def loss(self, params: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy with twohot(target), in nats.  [...,K], [...] -> [...].  Source: V3v2."""
        fits(params, target, self.num_params)
        return -(twohot(target.float(), self.bins) * params.float().log_softmax(-1)).sum(-1)


class SymlogTwoHotHead(nn.Module):
    """The scalar of V3's first release (arXiv v1, 2023): even bins in symlog space.

    The mean is taken there as well, so random targets decode too low: 0 or 100 with probabilities
    .9 and .1 decode to 0.586. `TwoHotHead` says 10.
    """

    def __init__(self, bins: int = 255):
        super().__init__()
        whole(2, "the default is 255", bins=bins)
        self.num_params = bins
        self.register_buffer("bins", torch.linspace(-20, 20, bins), persistent=False)

    def mean(self, params: Tensor) -> Tensor:
        """symexp(Σ pᵢ bᵢ).  [...,K] -> [...].  Source: V3 authors' code of 2023."""
        answers(params, self.num_params)
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
        answers(params, 1)
        return Bernoulli(params.squeeze(-1)).mean

    def loss(self, params: Tensor, target: Tensor) -> Tensor:
        """-ln p(target), in nats.  [...,1], [...] -> [...]."""
        fits(params, target, 1)
        return -Bernoulli(params.squeeze(-1)).log_prob(target.detach())


# --- observations ------------------------------------------------------------------------------


def raw_image(image: Tensor, like: Tensor) -> Tensor:
    """Pixels 0..255 as they come from the world -> [0, 1], both [...,H,W,C]; refuses other kinds.

    like: what the decoder answers; only its shape is read.
    """
    pixels(
        "give pixels of the replay, of the shape of `like`: logits or output",
        tuple(like.shape),
        image=image,
    )
    return image.float() / 255


class PixelHead(nn.Module):
    """Images: x̂ = σ(logits); Σ over pixels of (x - x̂)², V3 without ½ and without constant."""

    def mean(self, logits: Tensor) -> Tensor:
        """[...,H,W,C] -> [...,H,W,C] in [0, 1]."""
        floats("give what the decoder answers", (..., "H", "W", "C"), logits=logits)
        return logits.float().sigmoid()

    def loss(self, logits: Tensor, image: Tensor) -> Tensor:
        """image uint8 [...,H,W,C] -> [...]: summed over pixels, as the KL weights assume.

        Units: squared ones of a pixel in [0, 1]; beside the KL each counts like a nat.
        """
        error = self.mean(logits) - raw_image(image, logits)
        return (error**2).sum((-3, -2, -1))


class NormalPixelHead(nn.Module):
    """Images in V1 and V2: N(output, 1) of x/255 - ½, with the constant of every pixel."""

    def mean(self, output: Tensor) -> Tensor:
        """output + ½, clipped to be shown.  [...,H,W,C] -> [...,H,W,C] in [0, 1]."""
        floats("give what the decoder answers", (..., "H", "W", "C"), output=output)
        return (output.float() + 0.5).clamp(0, 1)

    def loss(self, output: Tensor, image: Tensor) -> Tensor:
        """image uint8 [...,H,W,C] -> [...], in nats, summed over pixels."""
        floats("give what the decoder answers", (..., "H", "W", "C"), output=output)
        target = raw_image(image, output) - 0.5
        return unit_normal_loss(output.float(), target).sum((-3, -2, -1))


class SymlogHead(nn.Module):
    """Vectors: predicts symlog(x) by Σ (symlog x - output)².  Source: V3v2."""

    squash = staticmethod(symlog)  # what the encoder sees of a vector

    def mean(self, output: Tensor) -> Tensor:
        """[...,n] -> [...,n] in the units of x (the authors' `pred` stays in symlog space)."""
        floats("give what the decoder answers", (..., "n"), output=output)
        return symexp(output.float())

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Σ (symlog target - output)², in squared units of symlog.  [...,n], [...,n] -> [...]."""
        alike(output, target)
        return F.mse_loss(output.float(), symlog(target.detach()), reduction="none").sum(-1)


class NormalVectorHead(nn.Module):
    """Vectors in V2 (and, ours, in V1): N(output, 1) of x as it is."""

    squash = staticmethod(identity)

    def mean(self, output: Tensor) -> Tensor:
        """[...,n] -> [...,n]."""
        floats("give what the decoder answers", (..., "n"), output=output)
        return output.float()

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """[...,n], [...,n] -> [...], in nats."""
        alike(output, target)
        return unit_normal_loss(output.float(), target).sum(-1)
