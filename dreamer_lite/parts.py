"""One checkpoint of several processes: the agent once, what each process keeps to itself apart.

    one process   checkpoints/<step>/{tensors.safetensors, replay.*, state.json}     replay/chunk-*
    several       checkpoints/<step>/{tensors.safetensors, state.json}
                  checkpoints/<step>/1of2/{tensors.safetensors, replay.*, part.json} replay/1of2/...

A part belongs to a process: its share of the streams with their replay, running episodes, memory
while acting, and random states. The same number of processes goes on bit for bit. Any other number
divides the streams of the replay anew, and begins new episodes with new random numbers.
"""

import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.torch import load_file

from dreamer_lite import checkpoint, distributed
from dreamer_lite.checkpoint import Tensors, plain
from dreamer_lite.replay import Damaged, LatentSpec, Replay, atomic, prune, read_json, write_arrays


class Part(NamedTuple):
    """What one process holds besides the agent and the replay."""

    tensors: Tensors  # any shape: random states, memory while acting, running episodes
    meta: dict  # the rest of the episodes, sums of metrics


def name(rank: int, size: int) -> str:
    """The folder of a part; a process that is alone has none."""
    return "" if size == 1 else f"{rank + 1}of{size}"


def own() -> str:
    """The folder of this process."""
    return name(distributed.rank(), distributed.size())


def names(folder: Path) -> list[str]:
    """The parts of a checkpoint, in the order of their streams."""
    sizes = {m[1] for path in folder.glob("*of*") if (m := re.fullmatch(r"\d+of(\d+)", path.name))}
    count = int(sizes.pop()) if sizes else 1
    return [name(rank, count) for rank in range(count)]


def seed(run: int, step: int = 0) -> int:
    """Random numbers of this process from `step` on; the first of a run has the seed of the run."""
    words = (run, distributed.rank(), step)
    return int(np.random.SeedSequence(words).generate_state(1)[0]) if any(words[1:]) else run


# Writing


def save(logdir: Path, step: int, agent: Tensors, part: Part, meta: dict, replay: Replay) -> None:
    """A checkpoint, to which every process adds its part; all call this at the same step.

    agent: the tensors of `training.agent_tensors`, of any shape.
    """
    alone = distributed.size() == 1

    def add(folder: Path) -> None:
        distributed.meet()  # the folder is there
        (folder / own()).mkdir(exist_ok=True)
        replay.save(logdir / "replay" / own(), folder / own())
        if not alone:
            write(folder / own(), part)
        distributed.meet()  # all of it is there

    if alone:
        agent, meta = agent | part.tensors, meta | part.meta
    if distributed.leads():
        checkpoint.save(logdir, step, agent, meta, add)
        tidy(logdir)
    else:
        add(checkpoint.unfinished(logdir, step))


def write(folder: Path, part: Part) -> None:
    """The two files of a part that are not its replay."""
    write_arrays(folder / "tensors.safetensors", checkpoint.unshared(part.tensors))
    with atomic(folder / "part.json") as path:
        path.write_text(json.dumps(part.meta, default=plain))


def tidy(logdir: Path) -> None:
    """Deletes the rows that no checkpoint needs, whatever number of processes wrote them."""
    chunks, kept = logdir / "replay", checkpoint.folders(logdir / "checkpoints")
    prune(chunks, kept)
    for folder in chunks.glob("*of*"):
        prune(folder, [path / folder.name for path in kept])


# Reading


def read(folder: Path, tensors: Tensors, meta: dict) -> Part | None:
    """This process's part of a checkpoint; None if another number of processes wrote it.

    tensors: those of the whole checkpoint, of any shape.
    """
    if own() not in names(folder):
        return None
    if own():
        tensors = load_file(folder / own() / "tensors.safetensors")
        return Part(tensors, read_json(folder / own() / "part.json"))
    return Part(tensors, meta) if "rng/cpu" in tensors else None  # packed by several, now alone


def load(replay: Replay, logdir: Path, folder: Path) -> None:
    """The rows and latents of this process's streams, whoever wrote them.

    Every process notices what damage any of them finds, so all turn to the same checkpoint.
    """
    problem = None
    try:
        if own() in names(folder):
            replay.load(logdir / "replay" / own(), folder / own())
        else:
            fill(replay, distributed.rank() * replay.streams, logdir, folder)
    except Damaged as error:
        problem = error
    if distributed.largest(problem is not None):
        raise problem or Damaged(f"another process finds its part of {folder} damaged")


def whole(logdir: Path, folder: Path) -> Replay:
    """The replay of a checkpoint with all its streams, as the checkpoint describes it."""
    layouts = [read_json(folder / part / "replay.json")["layout"] for part in names(folder)]
    streams = sum(layout["streams"] for layout in layouts)
    replay = empty(layouts[0] | {"streams": streams})
    if len(layouts) == 1:
        replay.load(logdir / "replay", folder)
    else:
        fill(replay, 0, logdir, folder)
    return replay


def fill(replay: Replay, first: int, logdir: Path, folder: Path) -> None:
    """Copies the run's streams first, first + 1, ... from all parts that have some of them."""
    begin = 0
    for part in names(folder):
        source = empty(read_json(folder / part / "replay.json")["layout"])
        here = np.arange(source.streams) + begin - first
        if ((0 <= here) & (here < replay.streams)).any():
            source.load(logdir / "replay" / part, folder / part)
            copy_streams(source, here, replay)
        begin += source.streams


def empty(layout: dict) -> Replay:
    """A replay of this layout, as `Replay.layout` describes it."""
    columns, streams = layout["columns"], layout["streams"]
    obs = {k[4:]: tuple(shape) for k, (_, shape) in columns.items() if k.startswith("obs/")}
    latent = LatentSpec(*layout["latent"]) if layout["latent"] else None
    size, actions = layout["size"] * streams, columns["prev_action"][1][0]
    return Replay(size, streams, obs, actions, latent=latent)


def copy_streams(source: Replay, here: np.ndarray, target: Replay) -> None:
    """Stream j of `source` becomes stream here[j] of `target`, where there is such a one.

    ValueError for replays of other sizes.
    """
    if source.size != target.size:
        raise ValueError(
            f"the parts must keep {target.size} rows of each stream, got {source.size}; resume "
            "with the settings the run was saved with"
        )
    kept = (here >= 0) & (here < target.streams)
    there, rows = here[kept], slice(min(source.total, source.size))
    stored = source.rows | source.latents
    for name, column in (target.rows | target.latents).items():
        column[rows, there] = stored[name][rows, kept]
    target.fresh[there] = source.fresh[kept]
    target.total = source.total
    target.written()
