"""A world model on its own, without an actor: the experiments of chapters 4 to 8.

    random play -> Replay -> fit -> WorldModel -> dreams beside what really happened

An experiment's numbers are kept in a file with all that is needed to repeat it (`recorded`), so
that a page can draw ten minutes of training at once and the full profile can make them again.
ValueError for numbers below 1, and for experiments that nobody has made.
"""

import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dreamer_lite import envs, fast, ledger
from dreamer_lite.guard import whole
from dreamer_lite.optim import LaProp, Optimizer
from dreamer_lite.presets import PRESETS
from dreamer_lite.replay import Replay, Sequence, atomic
from dreamer_lite.report import at, starts
from dreamer_lite.world_model import ModelConfig, WorldModel

RULE = PRESETS["toy"].optim.model  # how `fit` moves a model unless told otherwise
Rows = list[dict[str, Any]]  # of an experiment's table


def random_play(env_id: str, steps: int, seed: int = 0, streams: int = 8) -> Replay:
    """`steps` rows over all streams under uniformly random actions, without stored latents."""
    whole(2 * streams, "two rows of each stream are the least", steps=steps)
    world = envs.make(env_id, streams, seed)
    replay = Replay(steps, streams, world.obs_spec, world.action_spec.size, seed=seed, online=False)
    row = world.reset()
    for _ in range(steps // streams):
        replay.add(row)
        row = world.step(world.sample())
    world.close()
    return replay


class Fit(NamedTuple):
    """A trained world model and how it got there."""

    model: WorldModel
    curve: Rows  # one row per report: update, loss/*, kl, entropies


def fit(
    cfg: ModelConfig,
    data: Replay,
    updates: int,
    *,
    batch: int = 16,
    length: int = 16,
    rule: LaProp = RULE,
    seed: int = 0,
    every: int = 50,
) -> Fit:
    """Trains a world model on `data`; the curve holds means over `every` updates."""
    whole(1, "see the pages that call it", updates=updates, every=every)
    torch.manual_seed(seed)
    fast.keep_freed_memory()
    obs = {k.removeprefix("obs/"): c[1] for k, c in data.row_columns.items() if "obs/" in k}
    model = fast.accelerate(WorldModel(cfg, obs, data.row_columns["prev_action"][1][-1]))
    optimizer = Optimizer(dict(model.named_parameters()), rule)
    curve, sums = [], {}
    for update in range(1, updates + 1):
        losses, _, metrics = model.loss(data.sample(length, batch).sequence)
        optimizer.step(optimizer.gradients(total(losses, cfg)))
        for name, x in (metrics | {f"loss/{k}": x.detach() for k, x in losses.items()}).items():
            sums[name] = sums.get(name, 0.0) + x
        if update % every == 0:
            curve.append({"update": update} | {k: float(x) / every for k, x in sums.items()})
            sums = {}
    return Fit(model, curve)


def total(losses: dict[str, Tensor], cfg: ModelConfig) -> Tensor:
    """The sum of all losses, reconstruction with its weight.  []."""
    return sum(x * (cfg.obs_scale if k.startswith("obs/") else 1.0) for k, x in losses.items())


def episodes(data: Replay, length: int) -> Sequence:
    """The first `length` rows of every episode in `data` that has as many.  [length,N,...]."""
    whole(1, "rows of an episode", length=length)
    columns = {k: torch.from_numpy(x[: data.total]) for k, x in data.rows.items()}
    obs = {k.removeprefix("obs/"): x for k, x in columns.items() if k.startswith("obs/")}
    lived = Sequence(obs, *(columns[k] for k in Sequence._fields[1:]))
    found = [(t, b) for t, b in starts(lived.is_first, length) if lived.is_first[t, b]]
    if not found:
        raise ValueError(f"length must fit into an episode of the data, got {length}; lower it")
    time, stream = torch.tensor(found).T
    return at(lived, time + torch.arange(length)[:, None], stream)


@torch.no_grad()
def dream(
    model: WorldModel, sequence: Sequence, context: int, samples: int = 1
) -> tuple[Tensor, Tensor]:
    """Watches `context` rows, then follows the recorded actions with closed eyes, `samples` times.

    sequence [T,N,...] within one episode each -> frames in [0, 1] [T-C,samples,N,H,W,C] and
    predicted rewards [T-C,samples,N].
    """
    whole(1, "rows that are seen, dreams of each", context=context, samples=samples)
    seen, _ = model.observe(at(sequence, slice(context)), None)
    state = seen.map(lambda x: x[-1].repeat(samples, 1))
    actions = sequence.prev_action[context:].repeat(1, samples, 1)
    states = model.rssm.follow(state, actions)
    split = (samples, sequence.reward.shape[1])
    (frames,) = model.reconstruct(states).values()
    return frames.unflatten(1, split), model.reward(states.feat).unflatten(1, split)


def recorded(name: str, make: Callable[[], Iterable[dict]], folder: str = "data/studies") -> Rows:
    """The rows of an experiment: read from <folder>/<name>.json, or made anew in the full profile.

    The file also says with which code, on which machine and in how many minutes they were made.
    """
    path = Path(folder) / f"{name}.json"
    if os.environ.get("BOOK_PROFILE", "quick") == "full":
        write(path, name, make)
    if not path.exists():
        raise ValueError(
            f"name must be an experiment in {folder}, got {name!r}; to make it, run its page with "
            "BOOK_PROFILE=full"
        )
    return json.loads(path.read_text(encoding="utf-8"))["rows"]


def write(path: Path, name: str, make: Callable[[], Iterable[dict]]) -> None:
    """Runs an experiment and keeps its rows beside their origin."""
    start = time.monotonic()
    rows = list(make())
    record = {
        "name": name,
        "commit": ledger.commit(),
        "versions": ledger.versions(),
        "hardware": ledger.hardware(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "made": ledger.now(),
        "minutes": round((time.monotonic() - start) / 60, 1),
        "rows": rows,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:  # one row per line: a changed number is one changed line
        text = json.dumps(record | {"rows": []}, indent=1)
        lines = ",\n  ".join(json.dumps(row) for row in rows)
        temporary.write_text(text.replace('"rows": []', f'"rows": [\n  {lines}\n ]') + "\n")
