"""Exercises of chapter 13: the full Atari run."""

from collections.abc import Callable

import torch
from torch import Tensor

from dreamer_lite.check.core import Exercise


def some_scores(rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Scores [n] of four to twelve runs, one far from the others, and 200 draws of indices."""
    count = int(torch.randint(4, 13, (), generator=rng))
    x = 80 + 10 * torch.randn(count, generator=rng, dtype=torch.float64)
    x[0] += 300
    return x, torch.randint(count, (200, count), generator=rng)


def middle(x: Tensor) -> Tensor:
    """The interquartile mean.  [...,n] -> [...]."""
    ordered, cut = x.sort(-1).values, x.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(-1)


def ends(statistic: Callable, level: float = 0.95) -> Callable:
    """Bootstrap interval of a statistic [draws,n] -> [draws], the draws being given."""

    def interval(x: Tensor, chosen: Tensor) -> tuple[float, float]:
        found = statistic(x[chosen])
        tail = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=found.dtype)
        return tuple(found.quantile(tail).tolist())

    return interval


def unsorted(drawn: Tensor) -> Tensor:
    """Cuts off the first and the last quarter as they stand."""
    cut = drawn.shape[-1] // 4
    return drawn[..., cut : drawn.shape[-1] - cut].mean(-1)


def two_errors(x: Tensor, chosen: Tensor) -> tuple[float, float]:
    """Mean of the draws plus and minus two of their standard deviations."""
    found = middle(x[chosen])
    return float(found.mean() - 2 * found.std()), float(found.mean() + 2 * found.std())


def screens(rng: torch.Generator) -> tuple[Tensor]:
    """Four gray screens [4,128,128]."""
    return (255 * torch.rand(4, 128, 128, generator=rng, dtype=torch.float64),)


def blocks(image: Tensor) -> Tensor:
    """Means of 2 by 2 pixels.  [...,128,128] -> [...,64,64]."""
    return image.unflatten(-1, (64, 2)).unflatten(-3, (64, 2)).mean((-3, -1))


def frame(frames: Tensor) -> Tensor:
    """The maximum of the last two, then averaged.  [4,128,128] -> [64,64]."""
    return blocks(frames[2:].amax(0))


def run(rng: torch.Generator) -> tuple:
    """Steps, ratio, batch, length, warm-up, seconds per step and per update."""
    steps = int(torch.randint(5_000, 200_000, (), generator=rng))
    ratio, batch, length = (2 ** int(torch.randint(3, 9, (), generator=rng)) for _ in range(3))
    act, learn = torch.rand(2, generator=rng, dtype=torch.float64).tolist()
    return steps, ratio, batch, length, 1024, 0.001 + 0.02 * act, 0.1 + learn


def hours(steps, ratio, batch, length, warmup, act, learn) -> float:
    """Play and updates, one after the other."""
    updates = ratio * (steps - warmup) / (batch * length)
    return (steps * act + updates * learn) / 3600


def log(rng: torch.Generator) -> tuple:
    """A log of a run: steps, frames, and scores in some of its lines; a repeat."""
    repeat = int(torch.randint(2, 6, (), generator=rng))
    rows = []
    for line in range(12):
        row = {"step": 2000 * line, "frame": 2000 * line * repeat}
        if float(torch.rand((), generator=rng)) < 0.6 or line == 5:
            row["episode/score"] = float(torch.randn((), generator=rng))
        rows.append(row)
    return rows, repeat


def read(place: Callable) -> Callable:
    """(place(row, repeat), score) of each line that has a score."""

    def pairs(rows: list, repeat: int = 4) -> list[tuple]:
        ended = [row for row in rows if row.get("episode/score") is not None]
        return [(place(row, repeat), row["episode/score"]) for row in ended]

    return pairs


EXERCISES = [
    Exercise(
        id="13.1",
        right=(50_000_000, 1_562_500),
        wrong={
            "takes frames for agent steps. A step holds its action for four frames.": (
                200_000_000,
                6_250_000,
            ),
            "counts one update per agent step and ratio. An update trains on 16 · 64 rows.": (
                50_000_000,
                1_600_000_000,
            ),
            "divides by the batch alone. A sequence has 64 rows.": (50_000_000, 100_000_000),
            "has the ratio upside down: it is replayed rows per step played.": (50_000_000, 1526),
            "multiplies where the repeat divides: there are fewer steps than frames.": (
                800_000_000,
                25_000_000,
            ),
        },
    ),
    Exercise(
        id="13.2",
        right=ends(middle),
        case=some_scores,
        wrong={
            "is the interval of the mean. Cut off a quarter at either end of each draw.": ends(
                lambda drawn: drawn.mean(-1)
            ),
            "is the interval of the median.": ends(lambda drawn: drawn.quantile(0.5, dim=-1)),
            "cuts before it sorts, so it throws away any runs instead of the extreme ones.": (
                ends(unsorted)
            ),
            "leaves 5 % out at either end. That is the middle 90 %.": ends(middle, 0.9),
            "takes two standard deviations. The draws need not be normal; count their quantiles.": (
                two_errors
            ),
        },
    ),
    Exercise(
        id="13.3",
        right=frame,
        case=screens,
        wrong={
            "takes the maximum of all four frames. The first two are not looked at.": (
                lambda frames: blocks(frames.amax(0))
            ),
            "takes the last frame alone. What was drawn in the one before is lost.": (
                lambda frames: blocks(frames[3])
            ),
            "averages the two frames. A flickering object becomes half as bright.": (
                lambda frames: blocks(frames[2:].mean(0))
            ),
            "averages areas before it takes the maximum. The order counts.": (
                lambda frames: blocks(frames[2:]).amax(0)
            ),
            "takes every second pixel. A thin object can vanish.": (
                lambda frames: frames[2:].amax(0)[::2, ::2]
            ),
        },
    ),
    Exercise(
        id="13.4",
        right=hours,
        case=run,
        always=[(2024, 32, 16, 32, 1024, 0.01, 1.0)],
        tolerance=1e-6,
        wrong={
            "forgets the warm-up: no updates are due before it is over.": (
                lambda steps, ratio, batch, length, warmup, act, learn: hours(
                    steps, ratio, batch, length, 0, act, learn
                )
            ),
            "counts the updates alone. Playing takes time, too.": (
                lambda steps, ratio, batch, length, warmup, act, learn: hours(
                    steps, ratio, batch, length, warmup, 0.0, learn
                )
            ),
            "makes `ratio` updates per step. The ratio counts rows, an update holds many.": (
                lambda steps, ratio, batch, length, warmup, act, learn: hours(
                    steps, ratio, 1, 1, warmup, act, learn
                )
            ),
            "rounds the number of updates. The formula of the page does not.": (
                lambda steps, ratio, batch, length, warmup, act, learn: (
                    (steps * act + ratio * (steps - warmup) // (batch * length) * learn) / 3600
                )
            ),
            "is in seconds.": lambda *numbers: 3600 * hours(*numbers),
        },
    ),
    Exercise(
        id="13.5",
        right=read(lambda row, repeat: row["frame"]),
        given=read(lambda row, repeat: row["frame"] * repeat),
        case=log,
        wrong={
            "draws agent steps now, by the name or by a division. The published curves are over "
            "frames.": (read(lambda row, repeat: row["step"])),
            "keeps the lines in which no episode ended. They have no score.": (
                lambda rows, repeat=4: [(row["frame"], row.get("episode/score")) for row in rows]
            ),
        },
    ),
]
