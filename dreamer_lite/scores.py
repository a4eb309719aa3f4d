"""What many runs show together: interquartile means, their uncertainty, curves (chapter 13).

The few runs one can afford scatter widely. The interquartile mean (IQM) leaves out the best and the
worst quarter; the bootstrap interval says how far it may be from that of infinitely many runs.
Source: Agarwal et al. 2021, "Deep RL at the Edge of the Statistical Precipice", and their library
rliable, whose numbers these functions give (it needs older packages than the rest of this one).
Units: those of the scores. ValueError for scores that are no array of numbers, and for NaN.
"""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from dreamer_lite.guard import arrays, between, require, whole
from dreamer_lite.logger import read_metrics

Scale = dict[str, tuple[float, float]]  # environment -> the scores that count as 0 and 1


class Result(NamedTuple):
    """A finished run."""

    label: str
    env: str
    seed: int
    score: float
    folder: Path


def iqm(scores: np.ndarray) -> np.ndarray:
    """The mean of what is left when a quarter is cut off at either end.  [...,n] -> [...].

    Units: those of the scores. Source: Agarwal et al. 2021.
    """
    arrays("leave out unfinished runs", (..., "n"), scores=scores)
    ordered, cut = np.sort(scores, -1), scores.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(-1)


def interval(scores: np.ndarray, draws: int = 2000, level: float = 0.95, seed: int = 0):
    """Two percentiles of the IQM under the stratified bootstrap.  [runs,tasks] -> (low, high).

    Each draw takes as many runs of every task as there are, with replacement. Source: Agarwal et
    al. 2021.
    """
    arrays("stack the runs of each task", ("runs", "tasks"), scores=scores)
    between(0, 1, "0.95 is usual", level=level)
    whole(1, "2000 is usual", draws=draws)
    whole(0, "0 is as good as any", seed=seed)
    chosen = np.random.default_rng(seed).integers(len(scores), size=(draws, *scores.shape))
    drawn = np.take_along_axis(scores[None], chosen, 1).reshape(draws, -1)
    low, high = np.quantile(iqm(drawn), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


# Tables


def table(results: list[Result], scale: Scale | None = None) -> list[dict[str, Any]]:
    """One row for each label and environment; with a scale one more over all environments.

    scale: {environment: [score that counts as 0, score that counts as 1]}. The row over all is left
    out where an environment has no scale, or fewer runs than the others.
    """
    rows = []
    for label in dict.fromkeys(r.label for r in results):
        mine = [r for r in results if r.label == label]
        envs = list(dict.fromkeys(r.env for r in mine))
        columns = {env: np.array([r.score for r in mine if r.env == env]) for env in envs}
        rows += [row(label, env, scores[:, None]) for env, scores in columns.items()]
        even = len({len(scores) for scores in columns.values()}) == 1
        if scale and even and len(envs) > 1 and set(envs) <= set(scale):
            shares = [share(scores, *scale[env]) for env, scores in columns.items()]
            rows.append(row(label, f"all {len(envs)}, scaled", np.stack(shares, 1)))
    return rows


def share(scores: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 at `low`, 1 at `high`: a random player and a human, say.  Any shape.

    Units: shares of that distance. Source: Machado et al. 2018, after Mnih et al.
    2015.
    """
    arrays("leave out unfinished runs", scores=np.asarray(scores))
    between(-math.inf, math.inf, "see --scale", low=low, high=high)
    require(low != high, "scale", "two different scores", f"{low} and {high}", "see --scale")
    return (scores - low) / (high - low)


def row(label: str, env: str, scores: np.ndarray) -> dict[str, Any]:
    """IQM, interval and mean of scores [runs, tasks]; a single run has no interval."""
    arrays("leave out unfinished runs", ("runs", "tasks"), scores=scores)
    low, high = interval(scores) if len(scores) > 1 else (None, None)
    ours = {
        "iqm": float(iqm(scores.ravel())),
        "low": low,
        "high": high,
        "mean": float(scores.mean()),
    }
    return {"settings": label, "env": env, "runs": len(scores), **ours}


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table as it is printed."""
    lines = ["| settings | environment | runs | IQM | 95 % interval | mean |", "|---" * 6 + "|"]
    for r in rows:
        ends = "–" if r["low"] is None else f"{r['low']:.2f} to {r['high']:.2f}"
        numbers = f"{r['iqm']:.2f} | {ends} | {r['mean']:.2f}"
        lines.append(f"| {r['settings']} | {r['env']} | {r['runs']} | {numbers} |")
    return "\n".join(lines) + "\n"


# Curves


def curve(folders: list[Path], points: int = 100) -> list[dict[str, Any]]:
    """IQM and interval of the training scores of several runs, at up to `points` steps.

    At every step counts the latest score of each run; runs without one yet are left out.
    """
    whole(1, "100 is usual", points=points)
    runs = [run for run in map(scored, folders) if run]
    steps = sorted({step for run in runs for step in run})
    found = []
    for step in steps[:: max(1, len(steps) // points)]:
        latest = [run[max(s for s in run if s <= step)] for run in runs if min(run) <= step]
        numbers = row("", "", np.array(latest)[:, None])
        found.append({"step": step} | {k: numbers[k] for k in ("runs", "iqm", "low", "high")})
    return found


def scored(folder: Path) -> dict[int, float]:
    """{step: mean score of the episodes that ended since the line before}."""
    key = "episode/score"
    return {r["step"]: r[key] for r in read_metrics(folder) if r.get(key) is not None}


def plot(curves: dict[tuple[str, str], list[dict[str, Any]]]) -> Figure:
    """One panel for each environment, one line with its interval for each label."""
    require(bool(curves), "curves", "at least one curve", "none", "see `curve`")
    envs = list(dict.fromkeys(env for _, env in curves))
    labels = list(dict.fromkeys(label for label, _ in curves))
    figure = Figure(figsize=(4.5 * len(envs), 3.5), layout="constrained")
    panels = figure.subplots(1, len(envs), squeeze=False)[0]
    for (label, env), points in curves.items():
        panel, color = panels[envs.index(env)], f"C{labels.index(label)}"
        steps = [p["step"] for p in points]
        panel.plot(steps, [p["iqm"] for p in points], color=color, label=label)
        band = [(p["step"], p["low"], p["high"]) for p in points if p["low"] is not None]
        if band:
            panel.fill_between(*zip(*band, strict=True), color=color, alpha=0.2, linewidth=0)
    for panel, env in zip(panels, envs, strict=True):
        panel.set(title=env, xlabel="agent steps", ylabel="score of training episodes (IQM)")
        panel.legend()
    return figure


def write(results: list[Result], folder: Path, scale: Scale | None = None) -> str:
    """results.json, results.md and curves.png of finished runs; returns the table."""
    rows = table(results, scale)
    pairs = dict.fromkeys((r.label, r.env) for r in results)
    curves = {
        pair: curve([r.folder for r in results if (r.label, r.env) == pair]) for pair in pairs
    }
    runs = [r._asdict() | {"folder": r.folder.name} for r in results]
    lines = [{"settings": k[0], "env": k[1], "points": points} for k, points in curves.items()]
    data = {"table": rows, "runs": runs, "curves": lines}
    (folder / "results.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    (folder / "results.md").write_text(markdown(rows), encoding="utf-8")
    if curves:
        plot(curves).savefig(folder / "curves.png", dpi=120)
    return markdown(rows)
