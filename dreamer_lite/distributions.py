"""The random pieces: what a latent and an action are drawn from (chapters 3, 6 and 10).

One protocol: `sample mode log_prob entropy`; latents have `kl` and `detach`, too. Written by hand
because they are the lesson, and because the library's validated versions cost two to three times
as much inside the time loop. All maths runs in float32, whatever the precision around it.
ValueError for integers, NaN and tensors that do not fit together.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamer_lite.guard import between, floats, real, require, shaped, whole
from dreamer_lite.transforms import sigmoid2

LN_2PI = math.log(2 * math.pi)  # ln 2π


class Distribution(Protocol):
    """What the rest of the package asks of a distribution over flat vectors [...,n]."""

    def sample(self) -> Tensor:
        """A draw, differentiable where the distribution allows it.  [...,n]."""

    def mode(self) -> Tensor:
        """The likeliest vector.  [...,n]."""

    def log_prob(self, x: Tensor) -> Tensor:
        """ln p(x) in nats, summed over n.  [...,n] -> [...]."""

    def entropy(self) -> Tensor:
        """-E ln p in nats, summed over n.  [...]."""


def sound(p: tuple[Tensor, ...]) -> None:
    """Refuses a distribution whose tensors [...] differ in shape or are no floats.

    NaN was refused where it was made of what a network answers; samples stand in the loop over
    time.
    """
    if any(x.shape != p[0].shape or not x.is_floating_point() for x in p):
        remedy = f"a {type(p).__name__} has {' and '.join(p._fields)} of one shape"
        real(remedy, tuple(p[0].shape), **p._asdict())


def alike(x: Tensor, p: tuple[Tensor, ...], name: str = "x") -> None:
    """Refuses what no distribution over [...,n] gives: another n, other axes, integers, NaN.

    Fine are further axes, several samples for each row, and an axis of 1, one sample for all rows.
    """
    sound(p)
    floats("give a vector of float32 numbers for each row", **{name: x})
    axes = list(zip(x.shape[::-1], p[0].shape[::-1], strict=False))  # the last one first
    fits = all(a == b or i and 1 in (a, b) for i, (a, b) in enumerate(axes))
    require(fits, name, f"{list(p[0].shape)}", x, "give a vector for each row, time first")


def same(p: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> None:
    """Refuses two distributions over [...,n] of which the other is not like the first."""
    alike(other[0], p, "other")
    sound(other)


class DiagNormal(NamedTuple):
    """N(mean, std²), independent per dimension; mean, std [...,n], sums run over n."""

    mean: Tensor
    std: Tensor

    def sample(self) -> Tensor:
        """mean + std·ε, ε ~ N(0, 1): reparameterized, so gradients reach mean and std.  [...,n].

        Units: those of mean and std. Source: Kingma and Welling 2014.
        """
        sound(self)
        return self.mean + self.std * torch.randn_like(self.mean)

    def mode(self) -> Tensor:
        """The mean.  [...,n]."""
        return self.mean

    def log_prob(self, x: Tensor) -> Tensor:
        """ln N(x; mean, std²) in nats, summed over n.  [...]."""
        alike(x, self)
        z = (x - self.mean) / self.std
        return (-0.5 * z**2 - self.std.log() - 0.5 * LN_2PI).sum(-1)

    def entropy(self) -> Tensor:
        """½ ln(2πe σ²) in nats, summed over n.  [...]."""
        sound(self)
        return (self.std.log() + 0.5 * (LN_2PI + 1)).sum(-1)

    def kl(self, other: "DiagNormal") -> Tensor:
        """KL(self ‖ other) = Σ ln(σ₂/σ₁) + (σ₁² + (μ₁-μ₂)²) / 2σ₂² - ½, in nats.  [...]."""
        same(self, other)
        ratio = (self.std / other.std) ** 2
        shift = ((self.mean - other.mean) / other.std) ** 2
        return 0.5 * (ratio + shift - 1 - ratio.log()).sum(-1)

    def detach(self) -> "DiagNormal":
        """The same without gradient.  [...,n]."""
        return DiagNormal(self.mean.detach(), self.std.detach())


class Squashed(NamedTuple):
    """a = tanh x, x ~ N(loc, scale²): V1's actions, inside (-1, 1); loc, scale [...,n].

    Mode and entropy have no formula; both are read from 100 samples, as in the authors' code.
    Source: V1 `tools.py:222-247` (SampleDist), `tools.py:290-313` (TanhBijector).
    """

    loc: Tensor
    scale: Tensor

    def before(self, *count: int) -> Tensor:
        """x = loc + scale·ε: samples before tanh, reparameterized.  [*count,...,n]."""
        sound(self)
        return self.loc + self.scale * torch.randn_like(self.loc.expand(*count, *self.loc.shape))

    def at(self, x: Tensor) -> Tensor:
        """ln p(tanh x) = ln N(x; loc, scale²) - Σ ln |da/dx|, exact where tanh rounds to 1.  [...].

        ln |da/dx| = ln(1 - tanh² x) = 2 (ln 2 - x - softplus(-2x)). In nats, summed over n.
        """
        alike(x, self)
        slope = 2 * (math.log(2) - x - F.softplus(-2 * x))
        return DiagNormal(self.loc, self.scale).log_prob(x) - slope.sum(-1)

    def sample(self) -> Tensor:
        """tanh(loc + scale·ε), reparameterized.  [...,n]."""
        return self.before().tanh()

    def mode(self) -> Tensor:
        """The likeliest of 100 samples, for each row its own.  [...,n].

        (The authors' code takes the index of the batch's first element for all.)
        """
        x = self.before(100)
        best = self.at(x).argmax(0)[None, ..., None].expand_as(x[:1])
        return x.gather(0, best)[0].tanh()

    def log_prob(self, a: Tensor) -> Tensor:
        """ln p(a) in nats, summed over n; ±1 counts as the nearest number inside.  [...]."""
        alike(a, self, "a")
        return self.at(a.clamp(-1 + 2**-24, 1 - 2**-24).atanh())

    def entropy(self) -> Tensor:
        """-E ln p(a) in nats, over 100 samples.  [...]."""
        return -self.at(self.before(100)).mean(0)


class Truncated(NamedTuple):
    """N(loc, scale²) cut off at ±1 and scaled up to mass 1: V2's actions; loc, scale [...,n].

    Source: V2 `common/dists.py:72-87`, whose sampling lets gradients ignore the cut.
    """

    loc: Tensor
    scale: Tensor

    def edges(self) -> tuple[Tensor, Tensor]:
        """Both ends in standard deviations: α = (-1 - loc)/scale, β = (1 - loc)/scale.  [...,n]."""
        return (-1 - self.loc) / self.scale, (1 - self.loc) / self.scale

    def mass(self) -> Tensor:
        """Z = Φ(β) - Φ(α), what the plain normal has inside.  [...,n]."""
        low, high = self.edges()
        return torch.special.ndtr(high) - torch.special.ndtr(low)

    def sample(self) -> Tensor:
        """loc + scale·ε with ε held fixed, ending just inside of ±1.  [...,n].

        ε = Φ⁻¹(Φ(α) + u Z): gradients d/dloc = 1 and d/dscale = ε, as TensorFlow's, not those of
        the exact reparameterization. Clipping is straight-through.
        """
        sound(self)
        with torch.no_grad():
            low = torch.special.ndtr(self.edges()[0])
            noise = torch.special.ndtri(low + torch.rand_like(low) * self.mass())
            noise = ((self.loc + self.scale * noise).clamp(-1, 1) - self.loc) / self.scale
        a = self.loc + self.scale * noise
        return a + (a.clamp(-1 + 1e-6, 1 - 1e-6) - a).detach()

    def mode(self) -> Tensor:
        """loc, which tanh keeps inside.  [...,n]."""
        return self.loc.clamp(-1, 1)

    def log_prob(self, a: Tensor) -> Tensor:
        """ln N(a; loc, scale²) - ln Z in nats, summed over n; -∞ outside of [-1, 1].  [...]."""
        alike(a, self, "a")
        plain = -0.5 * ((a - self.loc) / self.scale) ** 2 - self.scale.log() - 0.5 * LN_2PI
        return (plain - self.mass().log()).masked_fill(a.abs() > 1, -math.inf).sum(-1)

    def entropy(self) -> Tensor:
        """ln(√(2πe) scale Z) + (α φ(α) - β φ(β)) / 2Z in nats, summed over n.  [...]."""
        sound(self)
        (low, high), mass = self.edges(), self.mass()
        tails = [x * (-0.5 * x**2).exp() / math.sqrt(2 * math.pi) for x in (low, high)]
        plain = 0.5 * (LN_2PI + 1) + self.scale.log() + mass.log()
        return (plain + (tails[0] - tails[1]) / (2 * mass)).sum(-1)


class OneHots(NamedTuple):
    """G independent categoricals of K classes each, given by probs and their logs [...,G,K].

    Samples are one-hot, flat [...,G·K], with the straight-through gradient of the probabilities.
    """

    probs: Tensor
    logp: Tensor

    @staticmethod
    def of(logits: Tensor, unimix: float = 0.0) -> "OneHots":
        """p = (1-u) softmax(logits) + u/K.  logits [...,G,K]; every later use sees the mixture.

        Units: none. Source: V3v2, 1 % uniform.
        """
        floats("dice need numbers; of a latent they are its params", (..., "G", "K"), logits=logits)
        between(0, 1, "V2 has 0, V3 0.01", unimix=unimix)
        logits = logits.float()
        if not unimix:
            logp = logits.log_softmax(-1)
            return OneHots(logp.exp(), logp)
        probs = (1 - unimix) * logits.softmax(-1) + unimix / logits.shape[-1]
        return OneHots(probs, probs.log())

    def sample(self) -> Tensor:
        """one_hot(k) + p - sg(p), k ~ p: the value of a die, the gradient of its mean.  [...,G·K].

        The draw inverts the cumulative distribution: one uniform number per group, and no host
        synchronization. Units: none. Source: V2, straight-through gradients.
        """
        sound(self)
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
        self.refuse_unlike(x)
        return (x.unflatten(-1, self.logp.shape[-2:]) * self.logp).sum((-2, -1))

    def refuse_unlike(self, x: Tensor) -> None:
        """Raises ValueError for what is no flat one-hots [...,G·K] of these dice."""
        faces = math.prod(self.probs.shape[-2:])
        remedy = "give flat one-hots of the dice in probs, as `sample` does"
        real(remedy, (..., faces), x=x)
        alike(x.unflatten(-1, self.probs.shape[-2:]), self)

    def entropy(self) -> Tensor:
        """-Σ p ln p in nats, summed over the groups.  [...]."""
        sound(self)
        return -(self.probs * self.logp).sum((-2, -1))

    def kl(self, other: "OneHots") -> Tensor:
        """KL(self ‖ other) = Σ p₁ (ln p₁ - ln p₂) in nats, summed over the groups.  [...].

        Source: V2 and V3v2, their KL between posterior and prior.
        """
        same(self, other)
        return (self.probs * (self.logp - other.logp)).sum((-2, -1))

    def detach(self) -> "OneHots":
        """The same without gradient.  [...,G,K]."""
        return OneHots(self.probs.detach(), self.logp.detach())


class Choices(NamedTuple):
    """Several one-hot choices [...,A] of different sizes side by side (MultiDiscrete)."""

    parts: tuple[OneHots, ...]

    def sample(self) -> Tensor:
        """One one-hot for each choice, side by side.  [...,A]."""
        return torch.cat([p.sample() for p in self.parts], -1)

    def mode(self) -> Tensor:
        """The most likely class of each choice.  [...,A]."""
        return torch.cat([p.mode() for p in self.parts], -1)

    def log_prob(self, x: Tensor) -> Tensor:
        """Σ ln p over the choices, in nats.  x [...,A] -> [...]."""
        sizes = [p.logp.shape[-1] for p in self.parts]
        real("give the one-hots side by side, as `sample` does", (..., sum(sizes)), x=x)
        return sum(p.log_prob(y) for p, y in zip(self.parts, x.split(sizes, -1), strict=True))

    def entropy(self) -> Tensor:
        """Σ of the entropies, in nats.  [...]."""
        return sum(p.entropy() for p in self.parts)


class Bernoulli(NamedTuple):
    """A yes/no event given by its logit [...]."""

    logit: Tensor

    @property
    def mean(self) -> Tensor:
        """σ(logit), the probability of yes.  [...]."""
        floats("give what the network answers", logit=self.logit)
        return self.logit.float().sigmoid()

    def log_prob(self, x: Tensor) -> Tensor:
        """x ln p + (1-x) ln(1-p) in nats, also for soft labels x in [0, 1].  [...]."""
        self.refuse_no_label(x)
        return -F.binary_cross_entropy_with_logits(self.logit.float(), x, reduction="none")

    def refuse_no_label(self, x: Tensor) -> None:
        """Raises ValueError unless x [...] has a label in [0, 1] for each event."""
        floats("give what the network answers", logit=self.logit)
        shaped(x, "x", tuple(self.logit.shape), "one label for each logit")
        between(0, 1, "a label, a head's target, is the probability of yes", x=x)


# --- latents: how a network output becomes a distribution over z ------------------------------


@dataclass(frozen=True)
class Gaussian:
    """V1's latent: `size` independent normals, std = softplus(raw) + min_std.

    V2's option of Gaussian latents has std = sigmoid2 in its place. Noise is drawn for every
    sequence of a batch anew; V1's code shares one draw. Source: V1 `models.py:58-81`.
    """

    size: int = 30  # Z, numbers
    min_std: float = 0.1  # smallest standard deviation
    std: Callable[[Tensor], Tensor] = F.softplus  # from a number to a deviation

    def __post_init__(self) -> None:
        whole(1, "V1 has 30", size=self.size)
        between(0, math.inf, "V1 has 0.1", min_std=self.min_std)
        require(callable(self.std), "std", "a function", self.std, "V1 has softplus, V2 sigmoid2")

    @property
    def num_params(self) -> int:
        """A mean and a raw deviation for each number."""
        return 2 * self.size

    def __call__(self, params: Tensor) -> DiagNormal:
        """params [...,2·size] = (mean, raw std) -> N(mean, softplus(raw) + min_std)."""
        floats("give mean and raw deviation side by side", (..., self.num_params), params=params)
        mean, raw = params.float().chunk(2, -1)
        return DiagNormal(mean, self.std(raw) + self.min_std)


@dataclass(frozen=True)
class Categorical:
    """V2's and V3's latent: `groups` dice of `classes` faces; V3 mixes in 1 % uniform."""

    groups: int = 32  # G, dice
    classes: int = 32  # K, faces of each
    unimix: float = 0.0  # share of the uniform distribution

    def __post_init__(self) -> None:
        whole(1, "V2 has 32", groups=self.groups)
        whole(2, "a die of one face says nothing; V2 has 32", classes=self.classes)
        between(0, 1, "V2 has 0, V3 0.01", unimix=self.unimix)

    @property
    def size(self) -> int:
        """Width Z of the flat sample."""
        return self.groups * self.classes

    @property
    def num_params(self) -> int:
        """A logit for each face of each die."""
        return self.size

    def __call__(self, params: Tensor) -> OneHots:
        """params [...,G·K] are logits -> OneHots with p = (1-u) softmax + u/K."""
        real("give groups · classes logits", (..., self.num_params), params=params)
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

    def __post_init__(self) -> None:
        between(0, math.inf, "V3 has 0.1 and 1", min_std=self.min_std, max_std=self.max_std)
        between(self.min_std, math.inf, "V3 has 0.1 and 1", max_std=self.max_std)

    def __call__(self, params: Tensor) -> DiagNormal:
        """params [...,2A] = (m, s)."""
        mean, raw = halves(params)
        std = (self.max_std - self.min_std) * (raw + 2).sigmoid() + self.min_std
        return DiagNormal(mean.tanh(), std)


@dataclass(frozen=True)
class TanhNormal:
    """V1's continuous actor: tanh of N(c tanh(m/c), σ²), σ = softplus(s + s₀) + min, c = 5.

    s₀ = ln(e^init - 1) makes the first deviation `init_std`: nearly every first action is close to
    -1 or 1. Source: V1 authors' code `models.py:142-169`.
    """

    init_std: float = 5.0  # deviation before tanh while the network says 0
    min_std: float = 1e-4  # smallest deviation before tanh
    mean_scale: float = 5.0  # c, largest mean before tanh

    def __post_init__(self) -> None:
        between(0, math.inf, "V1 has 1e-4", min_std=self.min_std)
        remedy = "V1 has 5 for both"
        between(1e-6, 100, remedy, init_std=self.init_std, mean_scale=self.mean_scale)

    def __call__(self, params: Tensor) -> Squashed:
        """params [...,2A] = (m, s)."""
        mean, raw = halves(params)
        first = math.log(math.expm1(self.init_std))
        return Squashed(
            self.mean_scale * (mean / self.mean_scale).tanh(),
            F.softplus(raw + first) + self.min_std,
        )


@dataclass(frozen=True)
class TruncNormal:
    """V2's continuous actor: N(tanh m, σ²) on [-1, 1] only, σ = 2 sigmoid((s + s₀)/2) + min.

    Source: V2 authors' code `common/nets.py:383-388`.
    """

    min_std: float = 0.1  # smallest standard deviation
    init_std: float = 0.0  # s₀, added before the sigmoid

    def __post_init__(self) -> None:
        between(0, math.inf, "V2 has 0.1", min_std=self.min_std)
        between(-math.inf, math.inf, "V2 has 0", init_std=self.init_std)

    def __call__(self, params: Tensor) -> Truncated:
        """params [...,2A] = (m, s)."""
        mean, raw = halves(params)
        return Truncated(mean.tanh(), sigmoid2(raw + self.init_std) + self.min_std)


def halves(params: Tensor) -> tuple[Tensor, Tensor]:
    """The two outputs of a continuous actor: [...,2A] -> [...,A], [...,A] in float32."""
    even = params.dim() > 0 and params.shape[-1] % 2 == 0
    require(even, "params", "[..., 2A]", params, "give mean and raw deviation side by side")
    floats("give what the network answers", params=params)
    return params.float().chunk(2, -1)


def choices(logits: Tensor, sizes: tuple[int, ...], unimix: float) -> OneHots | Choices:
    """One categorical per entry of `sizes`, over adjacent slices of logits [...,Σ sizes]."""
    real(f"give one logit for each of the choices {sizes}", (..., sum(sizes)), logits=logits)
    parts = [OneHots.of(x[..., None, :], unimix) for x in logits.split(list(sizes), -1)]
    return parts[0] if len(parts) == 1 else Choices(tuple(parts))
