"""Pictures of what an agent learned: its dreams beside the truth, and learning curves (chapter 14).

    rows      x_0 ... x_{C-1} │ x_C ... x_{T-1}     recorded; after C only actions count
    states    s ~ q(z | h, x) │ s ~ p(z | h)        seen, then dreamt
    frames    decode(s)       │ decode(s)           beside the recorded ones

Figures are matplotlib's, on white, so that they read the same on paper and on a dark page.
ValueError for frames that are not uint8 [...,H,W,C], and rows or actions of other shapes.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from dreamer_lite.agent import Dreamer
from dreamer_lite.guard import between, flags, floats, instances, pixels, require, whole
from dreamer_lite.logger import read_metrics
from dreamer_lite.replay import Sequence
from dreamer_lite.rssm import State
from dreamer_lite.spaces import is_image
from dreamer_lite.training import make_envs

# --- an agent and its experience -----------------------------------------------------------------


def device_of(agent: Dreamer) -> torch.device:
    """Where the agent computes."""
    return next(agent.parameters()).device


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draws that depend on `seed` alone, and leave the caller's random numbers as they were."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def record(
    agent: Dreamer, env_id: str, steps: int, seed: int = 0, *, streams: int = 1, mode: bool = False
) -> Sequence:
    """Plays without learning and keeps the rows.  [steps, streams, ...] on the CPU."""
    whole(1, "how many rows are wanted?", steps=steps)
    world = make_envs(agent.cfg, env_id, streams, seed)
    row, state, rows = world.reset(), agent.initial(streams), []
    with seeded(seed):
        for _ in range(steps):
            rows.append(row)
            action, state = agent.act(row, state, mode)
            row = world.step(action)
    world.close()
    return as_sequence(rows)


def as_sequence(rows: list) -> Sequence:
    """T `envs.Row` of N streams -> one Sequence [T,N,...]."""
    require(bool(rows), "rows", "at least one row", "none", "play first, see `record`")
    obs = {k: torch.as_tensor(np.stack([r.obs[k] for r in rows])) for k in rows[0].obs}
    return Sequence(obs, *(torch.as_tensor(np.stack(x)) for x in list(zip(*rows, strict=True))[1:]))


def at(sequence: Sequence, *index) -> Sequence:
    """Every field [T,B,...] at the same index, e.g. `at(s, slice(5))` for the first rows."""
    obs = {k: x[index] for k, x in sequence.obs.items()}
    return Sequence(obs, *(x[index] for x in sequence[1:]))


def starts(is_first: Tensor, length: int) -> list[tuple[int, int]]:
    """(t, stream) of all windows of `length` rows without a reset after the first.  [T,B]."""
    flags("rows have time first, see `replay.Sequence`", ("T", "B"), is_first=is_first)
    whole(1, "rows of a window", length=length)
    if length > len(is_first):
        return []
    resets = is_first.long().cumsum(0)  # [T,B]: equal at both ends of a window without one inside
    same = resets[length - 1 :] == resets[: len(resets) - length + 1]
    return [(int(t), int(b)) for b, t in same.T.nonzero()]


def clips(
    agent: Dreamer, sequence: Sequence, length: int | None = None, count: int = 4
) -> tuple[Sequence, State]:
    """`count` windows within episodes, spread evenly, and the agent's memory before each.

    sequence [T,B,...] -> Sequence [length, count, ...], State [count, .].
    length: by default that of the longest piece of an episode, at most 50 rows.
    """
    instances(Sequence, "see `record`", sequence=sequence)
    whole(1, "how many windows are wanted?", count=count)
    first = sequence.is_first.cpu()
    length = length or max(n for n in range(1, min(50, len(first)) + 1) if starts(first, n))
    found = starts(first, length)
    if not found:
        raise ValueError(
            f"length must be at most that of the longest episode, got {length}; no recorded "
            "episode has as many rows, so lower it or record more"
        )
    chosen = [found[i] for i in np.linspace(0, len(found) - 1, count).round().astype(int)]
    time, stream = (torch.tensor(x) for x in zip(*chosen, strict=True))
    before = memory(agent, sequence, time, stream)
    rows = time + torch.arange(length)[:, None]  # [length,count]
    return at(sequence, rows, stream), before


@torch.no_grad()
def memory(agent: Dreamer, sequence: Sequence, time: Tensor, stream: Tensor) -> State:
    """What the agent knew before row `time` of `stream`, having seen all rows up to it.  [N,.]."""
    before, _ = agent.world_model.observe(to(sequence, device_of(agent)), None)
    known = (time > 0).to(before.h.device)[:, None]
    return before.map(lambda x: x[(time - 1).clamp(min=0), stream] * known)


def to(sequence: Sequence, device: torch.device) -> Sequence:
    """The same rows [T,B,...] on another device."""
    obs = {k: x.to(device) for k, x in sequence.obs.items()}
    return Sequence(obs, *(x.to(device) for x in sequence[1:]))


# --- dreams --------------------------------------------------------------------------------------


class OpenLoop(NamedTuple):
    """A recorded sequence as the model sees it (`context` rows) and as it goes on alone."""

    truth: np.ndarray  # uint8 [T,N,H,W,C]
    model: np.ndarray  # uint8 [T,N,H,W,C]
    error: np.ndarray  # uint8 [T,N,H,W,C], 128 + (model - truth) / 2: 128 where they agree
    reward: np.ndarray  # float32 [T,N], predicted
    cont: np.ndarray  # float32 [T,N], predicted probability that the episode goes on
    value: np.ndarray  # float32 [T,N]
    context: int


class Imagined(NamedTuple):
    """Dreams from one or more states; index 0 is the start itself, seen through the decoder."""

    frames: np.ndarray  # uint8 [H+1,N,H,W,C]
    actions: np.ndarray  # float32 [H,N,A]
    reward: np.ndarray  # float32 [H+1,N], predicted on arriving
    discount: np.ndarray  # float32 [H+1,N], γ · P(the episode goes on)
    value: np.ndarray  # float32 [H+1,N]


def image_key(agent: Dreamer, key: str | None = None) -> str:
    """The observation to show: `key`, or the agent's first image."""
    images = sorted(k for k, shape in agent.obs.items() if is_image(shape))
    if not images or key not in (None, *images):
        raise ValueError(
            f"dreams are shown as images: key must be one of {images}, got {key!r}; the agent "
            f"observes {agent.obs}"
        )
    return key or images[0]


@torch.no_grad()
def open_loop(
    agent: Dreamer,
    sequence: Sequence,
    context: int,
    start: State | None = None,
    key: str | None = None,
) -> OpenLoop:
    """Watches `context` rows, then closes the eyes and follows the recorded actions.

    sequence [T,N,...] without resets after its first row (see `clips`); start [N,.]: the memory
    before it, by default empty. Every prediction is one sample of the model, not its mean.
    Source: V1, its figure of open loop predictions.
    """
    key = image_key(agent, key)
    check(sequence, context)
    rows, model = to(sequence, device_of(agent)), agent.world_model
    seen, _ = model.observe(at(rows, slice(context)), start)
    dreamt = model.rssm.follow(seen.map(lambda x: x[-1]), rows.prev_action[context:])
    states = State(torch.cat([seen.h, dreamt.h]), torch.cat([seen.z, dreamt.z]))
    frames, reward, discount, value = predict(agent, states, key)
    truth, cont = sequence.obs[key].cpu().numpy(), discount / agent.cfg.model.gamma
    return OpenLoop(truth, frames, error(truth, frames), reward, cont, value, context)


@torch.no_grad()
def watch(agent: Dreamer, sequence: Sequence, rows: int, start: State | None = None) -> State:
    """The agent's state after the first `rows` rows of a sequence [T,N,...].  [N,.]."""
    whole(1, "at least one row must be seen", rows=rows)
    seen = to(at(sequence, slice(rows)), device_of(agent))
    return agent.world_model.observe(seen, start)[0].map(lambda x: x[-1])


def check(sequence: Sequence, context: int) -> None:
    """Refuse rows [T,B,...] that cannot be compared with a dream."""
    flags(
        "rows have time first, like reward",
        tuple(sequence.reward.shape),
        is_first=sequence.is_first,
    )
    length = len(sequence.is_first)
    some = isinstance(context, int) and 0 < context < length
    few = f"1 to {length - 1} of the {length} rows"
    require(some, "context", few, f"{context}", "the model sees some rows and dreams the others")
    if sequence.is_first[1:].any():
        raise ValueError(
            "sequence must stay within one episode, got a reset after its first row, which no "
            "dream can foresee; cut it with clips()"
        )


@torch.no_grad()
def imagine(
    agent: Dreamer,
    state: State,
    horizon: int,
    actions: Tensor | None = None,
    samples: int = 1,
    key: str | None = None,
) -> Imagined:
    """`samples` dreams of `horizon` steps from each state.  state [B,.] -> N = B·samples dreams.

    actions [horizon,A] or [horizon,N,A] are followed; None: the policy acts. Dreams of one state
    stand side by side: dream n began in state n // samples.
    """
    key, rssm = image_key(agent, key), agent.world_model.rssm
    whole(1, "dreams of each state", samples=samples, horizon=horizon)
    start = state.map(lambda x: x.repeat_interleave(samples, 0))
    if actions is None:
        states, actions = rssm.imagine(agent.behavior.policy, start, horizon)
    else:
        actions = given(actions, horizon, len(start.h), agent.action.size).to(start.h)
        ahead = rssm.follow(start, actions)
        states = State(*(torch.cat([a[None], b]) for a, b in zip(start, ahead, strict=True)))
    frames, reward, discount, value = predict(agent, states, key)
    return Imagined(frames, actions.cpu().numpy(), reward, discount, value)


def given(actions: Tensor, horizon: int, dreams: int, size: int) -> Tensor:
    """The actions to follow, the same for all dreams if they have no axis for them.  [H,N,A]."""
    expected = (horizon, dreams, size)
    floats("one flat action of numbers for each step", actions=actions)
    if actions.ndim == 2:
        actions = actions[:, None].expand(-1, dreams, -1)
    if tuple(actions.shape) != expected:
        raise ValueError(
            f"actions must be [H,A] or [H,N,A] = {expected}, got {[*actions.shape]}; one flat "
            "action for each step, time first"
        )
    return actions


def predict(agent: Dreamer, states: State, key: str) -> tuple[np.ndarray, ...]:
    """Frames uint8 [...,H,W,C], reward, discount and value [...] that the agent reads in states."""
    model, feat = agent.world_model, states.feat
    frames = (model.reconstruct(states)[key] * 255).round().byte()
    numbers = model.reward(feat), model.discount(feat), agent.behavior.value(feat)
    return tuple(x.cpu().numpy() for x in (frames, *numbers))


def comparable(truth: np.ndarray, model: np.ndarray) -> None:
    """Refuses frames that are not both uint8 [...,H,W,C], or differ in shape."""
    pixels("give frames as they are recorded, 0..255", truth=truth, model=model)
    same = truth.shape == model.shape
    require(same, "model", f"uint8 {list(truth.shape)}", model, "compare the same moments as truth")


def error(truth: np.ndarray, model: np.ndarray) -> np.ndarray:
    """128 + (model - truth) / 2, uint8 [...,H,W,C]: darker where the model is too dark."""
    comparable(truth, model)
    return ((model.astype(np.int16) - truth) // 2 + 128).astype(np.uint8)


def psnr(truth: np.ndarray, model: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio -10 log₁₀ mean((model - truth)² / 255²), in dB.

    uint8 [...,H,W,C] -> [...]. A difference below the rounding to bytes is not resolved, so equal
    frames have 58.9 dB, not infinity. Source: the usual definition, for pixels in [0, 1].
    """
    comparable(truth, model)
    difference = (model.astype(np.float64) - truth) / 255
    rounding = 1 / 12 / 255**2  # variance of a number rounded to a byte
    return -10 * np.log10(np.maximum((difference**2).mean((-3, -2, -1)), rounding))


def describe(loop: OpenLoop) -> str:
    """What a reader who cannot see the picture should know; also its caption."""
    decibel, seen = psnr(loop.truth, loop.model).mean(1), loop.context
    return (
        f"Recorded frames above the model's and their difference. The model sees {seen} frames "
        f"(reconstructed with {decibel[:seen].mean():.1f} dB), then follows the recorded actions "
        f"for {len(decibel) - seen} steps without looking: {decibel[seen]:.1f} dB after the first "
        f"and {decibel[-1]:.1f} dB after the last."
    )


# --- still pictures ------------------------------------------------------------------------------

DIVERGING = matplotlib.colormaps["RdBu_r"]  # blue: too dark, white: right, red: too bright


def rgb(frames: np.ndarray) -> np.ndarray:
    """Gray or color uint8 [...,H,W,C] -> [...,H,W,3]."""
    pixels("give frames as they are recorded, 0..255", frames=frames)
    colors = frames.shape[-1] in (1, 3)
    require(colors, "frames", "uint8 [..., H, W, 1 or 3]", frames, "show one channel at a time")
    return frames if frames.shape[-1] == 3 else np.repeat(frames[..., :1], 3, -1)


def error_rgb(frames: np.ndarray, gain: float = 2.0) -> np.ndarray:
    """The `error` of an OpenLoop in colors that do not need red-green vision.  [...,H,W,3].

    Averaged over the channels; full color at 1/gain of the range of a pixel.
    """
    pixels("give the `error` of two films", frames=frames)
    between(0, float("inf"), "2 is usual", gain=gain)
    signed = (frames.mean(-1) - 128) / 255  # [-½, ½]
    return DIVERGING(signed * gain + 0.5, bytes=True)[..., :3]


def spread(start: int, stop: int, columns: int) -> list[int]:
    """Up to `columns` whole numbers from `start` to `stop` - 1, both included, evenly spaced."""
    whole(start + 1, "give a range that is not empty", stop=stop)
    whole(1, "how many pictures are wanted?", columns=columns)
    return sorted({round(t) for t in np.linspace(start, stop - 1, min(columns, stop - start))})


def grid(rows: int, widths: list[float], inches: float) -> tuple[Figure, np.ndarray]:
    """A white figure of panels without ticks, in columns of these widths.  Axes [rows,columns]."""
    size = inches * sum(widths) + 0.3, inches * rows + 0.8
    figure = Figure(size, facecolor="white", layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    axes = figure.subplots(rows, len(widths), squeeze=False, width_ratios=widths)
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
    return figure, axes


def strip(loop: OpenLoop, stream: int = 0, columns: int = 10) -> Figure:
    """Truth, dream and error over time, with predicted reward, continue and value below.

    Left of the gap the model has seen the frames above; right of it, columns count the steps since.
    """
    seen = spread(0, loop.context, 2)
    times = seen + spread(loop.context, len(loop.truth), columns - len(seen))
    widths = [1.0] * len(times)
    widths.insert(len(seen), 0.15)
    figure, axes = grid(3, widths, 1.0)
    for ax in axes[:, len(seen)]:
        ax.set_visible(False)
    axes = np.delete(axes, len(seen), 1)
    rows = rgb(loop.truth), rgb(loop.model), error_rgb(loop.error)
    for line, name, frames in zip(axes, ("truth", "model", "error"), rows, strict=True):
        line[0].set_ylabel(name, fontsize=10)
        for ax, t in zip(line, times, strict=True):
            ax.imshow(frames[t, stream], interpolation="nearest")
    for top, bottom, t in zip(axes[0], axes[-1], times, strict=True):
        top.set_title("seen" if t < loop.context else when(t, loop.context), fontsize=9)
        numbers = loop.reward[t, stream], loop.cont[t, stream], loop.value[t, stream]
        bottom.set_xlabel(legend(*map(float, numbers)), fontsize=7.5)
    return figure


def when(time: int, context: int) -> str:
    """How many steps ago the model last saw a frame."""
    return f"+{time - context + 1}"


def legend(reward: float, cont: float, value: float) -> str:
    """What the model predicts at a frame; never "-0.00"."""
    numbers = (round(x, 2) + 0.0 for x in (reward, cont, value))
    return "\n".join(f"{name} {x:.2f}" for name, x in zip("rcv", numbers, strict=True))


def storyboard(dream: Imagined, gamma: float, columns: int = 8) -> Figure:
    """One row per dream; predicted reward r, continue c and value v under each frame.

    gamma: the agent's, for c = discount / gamma.
    """
    times = spread(0, len(dream.frames), columns)
    figure, axes = grid(dream.frames.shape[1], [1.0] * len(times), 1.35)
    for n, line in enumerate(axes):
        line[0].set_ylabel(f"dream {n + 1}", fontsize=9)
        for ax, t in zip(line, times, strict=True):
            ax.imshow(rgb(dream.frames[t, n]), interpolation="nearest")
            read = dream.reward[t, n], dream.discount[t, n] / gamma, dream.value[t, n]
            ax.set_xlabel(legend(*map(float, read)), fontsize=7.5)
    for ax, t in zip(axes[0], times, strict=True):
        ax.set_title(f"+{t}" if t else "start", fontsize=9)
    return figure


def save_figure(figure: Figure, path: Path | str, dpi: int = 150) -> None:
    """Write a PNG, the same bytes for the same figure."""
    figure.savefig(path, dpi=dpi, bbox_inches="tight", metadata={"Software": None})


# --- moving pictures -----------------------------------------------------------------------------


def film(loop: OpenLoop, width: int = 128) -> np.ndarray:
    """Truth, dream and error side by side, a row per stream, under a line of text.

    width: pixels of a panel, at least; pixels of the game stay sharp squares.  uint8 [T,H',W',3].
    """
    panels = rgb(loop.truth), rgb(loop.model), error_rgb(loop.error)
    gap = np.full((*loop.truth.shape[:3], 1, 3), 255, np.uint8)
    frames = np.concatenate([panels[0], gap, panels[1], gap, panels[2]], -2)  # [T,N,H,W',3]
    frames = np.pad(frames, [(0, 0), (0, 0), (0, 1), (0, 0), (0, 0)], constant_values=255)
    frames = enlarge(frames.reshape(len(frames), -1, *frames.shape[3:]), width, loop.truth.shape[3])
    times = range(len(frames))
    notes = ["model sees" if t < loop.context else f"dream {when(t, loop.context)}" for t in times]
    return np.stack([headed(frames[t], ["truth", notes[t], "error"]) for t in times])


def enlarge(frames: np.ndarray, width: int, now: int) -> np.ndarray:
    """Every pixel as a square, so that `now` pixels take at least `width`.  [T,H,W,3]."""
    pixels("give a film in color, see `rgb`", ("T", "H", "W", 3), frames=frames)
    whole(1, "pixels", width=width, now=now)
    factor = -(-width // now)
    return frames.repeat(factor, 1).repeat(factor, 2)


def headed(frame: np.ndarray, titles: list[str], height: int = 20) -> np.ndarray:
    """A frame [H,W,3] under a white band with centered titles, one per panel."""
    pixels("give a picture in color, see `rgb`", ("H", "W", 3), frame=frame)
    image = Image.new("RGB", (frame.shape[1], frame.shape[0] + height), "white")
    image.paste(Image.fromarray(frame), (0, height))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(14)
    for i, title in enumerate(titles):
        middle = (i + 0.5) * frame.shape[1] / len(titles)
        draw.text((middle, height / 2), title, fill="black", font=font, anchor="mm")
    return np.asarray(image)


def save_video(frames: np.ndarray, path: Path | str, fps: float = 10, scale: int = 1) -> Path:
    """Write frames uint8 [T,H,W,1 or 3] as an endless GIF or WebP, `scale` times enlarged."""
    path = Path(path)
    if path.suffix not in (".gif", ".webp"):
        raise ValueError(f"path must end in .gif or .webp, got {path.name!r}; rename it")
    pixels("give a film, time first", ("T", "H", "W", "C"), frames=frames)
    between(1e-3, 1000, "10 is usual", fps=fps)
    whole(1, "1 keeps the size", scale=scale)
    large = enlarge(rgb(frames), scale * frames.shape[2], frames.shape[2])
    images = [Image.fromarray(x) for x in large]
    options = {"lossless": True} if path.suffix == ".webp" else {}
    images[0].save(
        path, save_all=True, append_images=images[1:], duration=round(1000 / fps), loop=0, **options
    )
    return path


# --- learning curves -----------------------------------------------------------------------------

# Okabe and Ito's colors without yellow, each with a dash of its own: never color alone.
STYLES = (
    *(("#0072B2", "-"), ("#D55E00", "--"), ("#009E73", "-."), ("#CC79A7", ":")),
    *(("#56B4E9", "--"), ("#E69F00", "-"), ("#000000", ":")),
)
# What a curve may be drawn over
AXES = {"frame": "frames", "step": "agent steps", "update": "updates", "hours": "hours"}
# What a curve may show
METRICS = {"episode/score": "score of training episodes", "eval/score": "score of evaluation"}


class Curve(NamedTuple):
    """A metric over runs that differ in their seed; mean, low and high [P] at the points x [P]."""

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    seeds: int


def summarize(paths: list[Path | str], x: str, metric: str, points: int = 200) -> Curve:
    """Runs on a common axis: only where all of them have numbers, linear in between."""
    if x not in AXES:
        raise ValueError(f"x must be one of {', '.join(AXES)}, got {x!r}; a run logs these")
    require(bool(paths), "paths", "at least one run", "none", "give folders of runs")
    whole(1, "200 is usual", points=points)
    runs = [series(path, x, metric) for path in paths]
    low, high = max(r[0, 0] for r in runs), min(r[0, -1] for r in runs)
    if low > high:
        raise ValueError(f"the runs {[str(p) for p in paths]} have no {x} in common")
    grid = np.linspace(low, high, points)
    values = np.stack([np.interp(grid, *r) for r in runs])  # [seeds,P]
    return Curve(grid, values.mean(0), values.min(0), values.max(0), len(runs))


def series(path: Path | str, x: str, metric: str) -> np.ndarray:
    """The lines of a run that have the metric.  [2,P]: x and metric."""
    rows = read_metrics(path)
    found = [(r[x], r[metric]) for r in rows if r.get(metric) is not None]
    if not found:
        known = sorted({k for r in rows for k in r})
        raise ValueError(f"{path} has no numbers of {metric!r}; it has {', '.join(known)}")
    return np.array(found, np.float64).T


def curve(
    runs: Mapping[str, list[Path | str]] | list[Path | str],
    x: str = "frame",
    metric: str = "episode/score",
) -> Figure:
    """Mean over seeds, band from the worst to the best, of groups {label: folders} of runs.

    x: frame, step, update or hours. A list of folders is one group.
    """
    require(bool(runs), "runs", "at least one run", "none", "give folders of runs")
    groups = runs if isinstance(runs, Mapping) else {"": runs}
    figure = Figure((6, 3.6), facecolor="white", layout="constrained")
    ax = figure.subplots()
    for i, (label, paths) in enumerate(groups.items()):
        color, dash = STYLES[i % len(STYLES)]
        c = summarize(paths, x, metric)
        seeds = f"{c.seeds} seed" + "s" * (c.seeds > 1)
        ax.plot(c.x, c.mean, dash, color=color, label=f"{label}, {seeds}".lstrip(", "))
        ax.fill_between(c.x, c.low, c.high, color=color, alpha=0.2, linewidth=0)
    ax.set(xlabel=AXES[x], ylabel=METRICS.get(metric, metric))
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    return figure
