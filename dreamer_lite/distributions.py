"""The random pieces: what a latent and an action are drawn from (chapters 3, 6 and 10).

One protocol: `sample log_prob entropy kl mode detach`. Written by hand because they are the lesson,
and because the library's validated versions cost two to three times as much inside the time loop.
All maths runs in float32, whatever the precision around it.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Distribution(Protocol):
    """What the rest of the package asks of a distribution over flat vectors [...,n]."""

    def sample(self) -> Tensor: ...
    def mode(self) -> Tensor: ...
    def log_prob(self, x: Tensor) -> Tensor: ...
    def entropy(self) -> Tensor: ...


class DiagNormal(NamedTuple):
    """N(mean, std²), independent per dimension; mean, std [...,n], sums run over n."""

    mean: Tensor
    std: Tensor

    def sample(self) -> Tensor:
        """Reparameterized: mean + std·ε, ε ~ N(0, 1), so gradients reach mean and std.  [...,n]."""
        return self.mean + self.std * torch.randn_like(self.mean)

    def mode(self) -> Tensor:
        return self.mean

    def log_prob(self, x: Tensor) -> Tensor:
        """ln N(x; mean, std²) in nats, summed over n.  [...]."""
        z = (x - self.mean) / self.std
        return (-0.5 * z**2 - self.std.log() - 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self) -> Tensor:
        """½ ln(2πe σ²) in nats, summed over n.  [...]."""
        return (self.std.log() + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)

    def kl(self, other: "DiagNormal") -> Tensor:
        """KL(self ‖ other) = Σ ln(σ₂/σ₁) + (σ₁² + (μ₁-μ₂)²) / 2σ₂² - ½, in nats.  [...]."""
        ratio = (self.std / other.std) ** 2
        shift = ((self.mean - other.mean) / other.std) ** 2
        return 0.5 * (ratio + shift - 1 - ratio.log()).sum(-1)

    def detach(self) -> "DiagNormal":
        return DiagNormal(self.mean.detach(), self.std.detach())


class OneHots(NamedTuple):
    """G independent categoricals of K classes each, given by probs and their logs [...,G,K].

    Samples are one-hot, flat [...,G·K], with the straight-through gradient of the probabilities.
    """

    probs: Tensor
    logp: Tensor

    @staticmethod
    def of(logits: Tensor, unimix: float = 0.0) -> "OneHots":
        """p = (1-u) softmax(logits) + u/K.  logits [...,G,K]; every later use sees the mixture."""
        logits = logits.float()
        if not unimix:
            logp = logits.log_softmax(-1)
            return OneHots(logp.exp(), logp)
        probs = (1 - unimix) * logits.softmax(-1) + unimix / logits.shape[-1]
        return OneHots(probs, probs.log())

    def sample(self) -> Tensor:
        """one_hot(k) + p - sg(p), k ~ p: the value of a die, the gradient of its mean.  [...,G·K].

        The draw inverts the cumulative distribution: one uniform number per group, and no host
        synchronization.
        """
        below = self.probs.detach().cumsum(-1) <= torch.rand_like(self.probs[..., :1])
        last = self.probs.shape[-1] - 1  # rounding may leave the sum of all below 1
        index = below.sum(-1).clamp(max=last)
        return self._straight_through(index)

    def mode(self) -> Tensor:
        """The most likely class of each group, one-hot, straight-through.  [...,G·K]."""
        return self._straight_through(self.probs.argmax(-1))

    def _straight_through(self, index: Tensor) -> Tensor:
        onehot = F.one_hot(index, self.probs.shape[-1]).to(self.probs.dtype)
        if self.probs.requires_grad:
            onehot = onehot + (self.probs - self.probs.detach())  # exactly one-hot in value
        return onehot.flatten(-2)

    def log_prob(self, x: Tensor) -> Tensor:
        """Σ_g ln p_g(x_g) for flat one-hots x [...,G·K], in nats.  [...]."""
        return (x.unflatten(-1, self.logp.shape[-2:]) * self.logp).sum((-2, -1))

    def entropy(self) -> Tensor:
        """-Σ p ln p in nats, summed over the groups.  [...]."""
        return -(self.probs * self.logp).sum((-2, -1))

    def kl(self, other: "OneHots") -> Tensor:
        """KL(self ‖ other) = Σ p₁ (ln p₁ - ln p₂) in nats, summed over the groups.  [...]."""
        return (self.probs * (self.logp - other.logp)).sum((-2, -1))

    def detach(self) -> "OneHots":
        return OneHots(self.probs.detach(), self.logp.detach())


class Choices(NamedTuple):
    """Several independent one-hot choices of different sizes side by side (MultiDiscrete)."""

    parts: tuple[OneHots, ...]

    def sample(self) -> Tensor:
        return torch.cat([p.sample() for p in self.parts], -1)

    def mode(self) -> Tensor:
        return torch.cat([p.mode() for p in self.parts], -1)

    def log_prob(self, x: Tensor) -> Tensor:
        sizes = [p.logp.shape[-1] for p in self.parts]
        return sum(p.log_prob(y) for p, y in zip(self.parts, x.split(sizes, -1), strict=True))

    def entropy(self) -> Tensor:
        return sum(p.entropy() for p in self.parts)


class Bernoulli(NamedTuple):
    """A yes/no event given by its logit [...]."""

    logit: Tensor

    @property
    def mean(self) -> Tensor:
        return self.logit.float().sigmoid()

    def log_prob(self, x: Tensor) -> Tensor:
        """x ln p + (1-x) ln(1-p), also for soft labels x in [0, 1].  [...]."""
        return -F.binary_cross_entropy_with_logits(self.logit.float(), x, reduction="none")


# --- latents: how a network output becomes a distribution over z ------------------------------


@dataclass(frozen=True)
class Gaussian:
    """V1's latent: `size` independent normals, std = softplus(raw) + min_std."""

    size: int = 30  # Z, numbers
    min_std: float = 0.1  # smallest standard deviation

    @property
    def num_params(self) -> int:
        return 2 * self.size

    def __call__(self, params: Tensor) -> DiagNormal:
        """params [...,2·size] = (mean, raw std) -> N(mean, softplus(raw) + min_std)."""
        mean, raw = params.float().chunk(2, -1)
        return DiagNormal(mean, F.softplus(raw) + self.min_std)


@dataclass(frozen=True)
class Categorical:
    """V2's and V3's latent: `groups` dice of `classes` faces; V3 mixes in 1 % uniform."""

    groups: int = 32  # G, dice
    classes: int = 32  # K, faces of each
    unimix: float = 0.0  # share of the uniform distribution

    @property
    def size(self) -> int:
        """Width Z of the flat sample."""
        return self.groups * self.classes

    @property
    def num_params(self) -> int:
        return self.size

    def __call__(self, params: Tensor) -> OneHots:
        """params [...,G·K] are logits -> OneHots with p = (1-u) softmax + u/K."""
        return OneHots.of(params.unflatten(-1, (self.groups, self.classes)), self.unimix)


# --- actions: how the actor's output becomes a distribution over what to do ---------------------


@dataclass(frozen=True)
class BoundedNormal:
    """V3's continuous actor: N(tanh m, σ²) with σ = (max-min)·sigmoid(s + 2) + min.

    Samples are not squashed and may leave [-1, 1]: the environment clips, the log-probability is
    that of the unclipped sample. Source: V3 authors' code `Head.bounded_normal`.
    """

    min_std: float = 0.1  # smallest standard deviation
    max_std: float = 1.0  # largest standard deviation

    def __call__(self, params: Tensor) -> DiagNormal:
        """params [...,2A] = (m, s)."""
        mean, raw = params.float().chunk(2, -1)
        std = (self.max_std - self.min_std) * (raw + 2).sigmoid() + self.min_std
        return DiagNormal(mean.tanh(), std)


def choices(logits: Tensor, sizes: tuple[int, ...], unimix: float) -> OneHots | Choices:
    """One categorical per entry of `sizes`, over adjacent slices of logits [...,Σ sizes]."""
    parts = [OneHots.of(x[..., None, :], unimix) for x in logits.split(list(sizes), -1)]
    return parts[0] if len(parts) == 1 else Choices(tuple(parts))
