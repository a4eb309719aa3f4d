"""Exercises of chapter 11: symlog and twohot."""

import torch
from torch import Tensor

from dreamer_lite.check.core import Exercise
from dreamer_lite.transforms import symexp, symexp_bins, symlog, twohot


def numbers(rng: torch.Generator) -> tuple[Tensor]:
    """Numbers of both signs, small and large."""
    return (3 * torch.randn(6, generator=rng),)


def few_bins(rng: torch.Generator) -> Tensor:
    """Between 5 and 21 symexp bins, up to symexp of 1 to 5."""
    count = 5 + 2 * int(torch.randint(0, 9, (), generator=rng))
    return symexp_bins(count, 1 + 4 * float(torch.rand((), generator=rng)))


def targets(rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Targets inside, outside and exactly on some bins."""
    bins = few_bins(rng)
    inside = bins[-1] * (2 * torch.rand(5, generator=rng) - 1)
    return torch.cat([inside, 2 * bins[[0, -1]], bins[[0, 1, -1]]]), bins


def visits(rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """What a state paid, some of it beyond the bins, and the bins."""
    bins = few_bins(rng)
    samples = bins[-1] * torch.randn(7, generator=rng)
    return torch.cat([samples, 30 * bins[-1:]]), bins


def lotteries(rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Prizes of both signs, and chances."""
    prize = symexp(1 + 4 * torch.rand(6, generator=rng))
    return prize * torch.tensor([1, -1, 1, -1, 1, -1]), torch.rand(6, generator=rng)


def limits(rng: torch.Generator) -> tuple[int, float]:
    """An odd number of bins, and where they end in symlog space."""
    count = 5 + 2 * int(torch.randint(0, 9, (), generator=rng))
    return count, 1 + 4 * float(torch.rand((), generator=rng))


def flipped(y: Tensor, bins: Tensor) -> Tensor:
    """Weights in proportion to distance."""
    return crowded(y.clamp(bins[0], bins[-1]), bins, lambda y, low, high: (high - y) / (high - low))


def squeezed_share(y: Tensor, bins: Tensor) -> Tensor:
    """Weights that are linear in symlog space."""
    return twohot(symlog(y), symlog(bins))


def unclipped(y: Tensor, bins: Tensor) -> Tensor:
    """Weights that go on beyond the ends."""
    return crowded(y, bins, lambda y, low, high: (y - low) / (high - low))


def crowded(y: Tensor, bins: Tensor, share) -> Tensor:
    """Two weights by a rule for the share of the upper bin, share(y, low, high)."""
    above = torch.searchsorted(bins, y, right=True).clamp(1, len(bins) - 1)[:, None]
    upper = share(y[:, None], bins[above - 1], bins[above])
    out = torch.zeros(len(y), len(bins)).scatter(1, above - 1, 1 - upper)
    return out.scatter(1, above, upper)


def nearest(y: Tensor, bins: Tensor) -> Tensor:
    """One-hot weights."""
    return torch.eye(len(bins))[(y[:, None] - bins).abs().argmin(1)]


def even_bins(count: int, limit: float) -> Tensor:
    """The bug of exercise 11.5: bins that are even in plain units."""
    end = symexp(torch.tensor(float(limit)))
    return torch.linspace(-1, 1, count) * end


def narrow_bins(count: int, limit: float) -> Tensor:
    """Bins that are even between symlog(-limit) and symlog(limit)."""
    return symlog(torch.tensor(float(limit))) * torch.linspace(-1, 1, count)


EXERCISES = [
    Exercise(
        id="11.1",
        right=symexp,
        case=numbers,
        always=[(torch.tensor([0.0, -0.0, 1e-3]),)],
        wrong={
            "forgets the 1 that symlog added: 0 must stay 0.": lambda x: x.sign() * x.abs().exp(),
            "loses the sign inside: e^x is small for negative x, e^|x| is not.": (
                lambda x: x.exp() - 1
            ),
            "has no sign: the results for x and -x must be opposite.": lambda x: x.abs().expm1(),
            "is symlog once more, not its inverse.": symlog,
            "subtracts the 1 in the exponent: e^(|x|-1) instead of e^|x| - 1.": (
                lambda x: x.sign() * (x.abs() - 1).exp()
            ),
        },
    ),
    Exercise(
        id="11.2",
        right=twohot,
        case=targets,
        wrong={
            "gives the nearer bin the smaller weight. The upper share is (y - b_k) / (b_{k+1} - "
            "b_k).": flipped,
            "shares in symlog space. Then the mean of the weights is not y; share in plain "
            "units.": squeezed_share,
            "goes on beyond the end bins, with negative weights. Bring y into the range first.": (
                unclipped
            ),
            "puts all weight on the nearest bin. That is one-hot, and loses what lies between.": (
                nearest
            ),
        },
    ),
    Exercise(
        id="11.3",
        right=lambda samples, bins: samples.clamp(bins[0], bins[-1]).mean(),
        case=visits,
        wrong={
            "is the mean of all samples. Beyond the last bin there is only the last bin.": (
                lambda samples, bins: samples.mean()
            ),
            "cuts the mean instead of the samples. Each sample is cut before it is averaged.": (
                lambda samples, bins: samples.mean().clamp(bins[0], bins[-1])
            ),
            "is the squeezed mean, the answer of the first V3.": (
                lambda samples, bins: symexp(symlog(samples.clamp(bins[0], bins[-1])).mean())
            ),
            "is the median. That would be the answer of absolute errors.": (
                lambda samples, bins: samples.clamp(bins[0], bins[-1]).median()
            ),
        },
    ),
    Exercise(
        id="11.4",
        right=lambda prize, chance: symexp(chance * symlog(prize)),
        case=lotteries,
        wrong={
            "is the mean. The critic of 2023 takes the mean of symlog(y) instead.": (
                lambda prize, chance: chance * prize
            ),
            "forgets to leave symlog space.": lambda prize, chance: chance * symlog(prize),
            "forgets the 1 that symlog added: a lottery without a prize is worth 0.": (
                lambda prize, chance: prize.sign() * (1 + prize.abs()) ** chance
            ),
            "squeezes the mean, symlog(E[y]), instead of averaging the squeezed, E[symlog(y)].": (
                lambda prize, chance: symlog(chance * prize)
            ),
        },
    ),
    Exercise(
        id="11.5",
        right=symexp_bins,
        given=even_bins,
        case=limits,
        wrong={
            "has even bins in symlog space, and forgets to map them back by symexp.": (
                lambda count, limit: torch.linspace(-limit, limit, count)
            ),
            "applies symlog to the limits. They are in symlog space already.": narrow_bins,
            "maps the right even bins the wrong way: symlog instead of symexp.": (
                lambda count, limit: symlog(torch.linspace(-limit, limit, count))
            ),
        },
    ),
]
