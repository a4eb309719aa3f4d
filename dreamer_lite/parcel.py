"""A run in one file, to go on with on another machine: `pack` there, `unpack` here (chapter 13).

    checkpoint ── tensors, counters, random states ──────────> parcel.zip ──> checkpoint
    replay     ── rows, compressed; latents are left out ────>            ──> latents computed anew

A zip without pickle: reading somebody's parcel cannot run somebody's code. Latents are most of a
replay and the world model can see them again, so the continuation is not bit for bit. ValueError
for files that are no parcel, and folders that hold another run.
"""

import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from dreamer_lite import checkpoint, ledger, parts
from dreamer_lite.agent import Dreamer
from dreamer_lite.presets import Config, from_dict
from dreamer_lite.replay import (
    FIELDS,
    Replay,
    Sequence,
    Where,
    atomic,
    pack_rows,
    unpack_rows,
)
from dreamer_lite.training import make_agent, make_envs, make_replay

FORMAT, VERSION = "dreamer_lite parcel", 1  # what our files say they are
DIARY = ("config.json", "run.json", "metrics.jsonl")  # a run's own files
EXTRA = re.compile(r"milestones/\d+/[\w.-]+")  # what else a parcel may bring, and nothing above it
CHUNK = 64  # rows the world model sees at once


def pack(logdir: Path | str, path: Path | str) -> int:
    """Writes the newest complete checkpoint of a run to the zip file `path`; returns its step."""
    logdir, path = Path(logdir), Path(path)
    _, meta, folder = checkpoint.load(logdir)
    replay = parts.whole(logdir, folder)
    header = {"format": FORMAT, "version": VERSION, "meta": meta, "replay": replay.state()}
    files = [logdir / name for name in DIARY] + sorted(logdir.glob("milestones/*/*"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("parcel.json", json.dumps(header))
        zipped.write(folder / "tensors.safetensors", "tensors.safetensors", zipfile.ZIP_STORED)
        with TemporaryDirectory(dir=path.parent) as scratch:
            pack_rows(replay, Path(scratch) / "rows.npz")
            zipped.write(Path(scratch) / "rows.npz", "rows.npz", zipfile.ZIP_STORED)
        for file in files:
            zipped.write(file, file.relative_to(logdir).as_posix())
    return meta["step"]


def unpack(path: Path | str, logdir: Path | str) -> int:
    """Makes a run folder that training resumes from a file of `pack`; returns the step.

    `logdir` appears when all of it is there; its run.json says "unpacked_at" which step.
    """
    with opened(Path(path)) as (zipped, header), building(Path(logdir)) as folder:
        for name in zipped.namelist():
            if name in (*DIARY, "tensors.safetensors", "rows.npz") or EXTRA.fullmatch(name):
                zipped.extract(name, folder)
        rebuild(folder, header["meta"], header["replay"])
    return header["meta"]["step"]


@contextmanager
def opened(path: Path) -> Iterator[tuple[zipfile.ZipFile, dict]]:
    """A parcel and its header, if it is one of ours and undamaged."""
    try:
        zipped = zipfile.ZipFile(path)
        header = json.loads(zipped.read("parcel.json"))
        damaged = zipped.testzip()
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a parcel ({error}); give a file of `pack`") from error
    with zipped:
        if damaged:
            raise ValueError(f"{damaged} in {path} is damaged; copy the parcel again")
        if (found := (header.get("format"), header.get("version"))) != (FORMAT, VERSION):
            raise ValueError(f"{path} must be {FORMAT} version {VERSION}, got {found}")
        yield zipped, header


@contextmanager
def building(logdir: Path) -> Iterator[Path]:
    """A folder that becomes `logdir` if all goes well, else leaves no trace."""
    if logdir.exists() and any(logdir.iterdir()):
        raise ValueError(f"logdir {logdir} is not empty; choose a new one")
    temporary = logdir.with_name(f".tmp-{logdir.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if logdir.exists():
            logdir.rmdir()  # empty; not every system replaces a folder
        os.replace(temporary, logdir)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def rebuild(folder: Path, meta: dict, queue: dict) -> None:
    """Turns the unzipped files into a checkpoint, with fresh latents for all rows."""
    tensors, cfg = load_file(folder / "tensors.safetensors"), from_dict(meta["config"])
    agent, replay = build(cfg, meta["run"]["env"], tensors)
    fill(replay, unpack_rows(folder / "rows.npz"), queue)
    if replay.latent:
        see_again(agent, replay)
    for name in ("tensors.safetensors", "rows.npz"):
        (folder / name).unlink()
    meta["run"]["unpacked_at"] = meta["step"]
    note(folder, meta["step"])
    checkpoint.save(
        folder, meta["step"], tensors, meta, lambda path: replay.save(folder / "replay", path)
    )


def build(cfg: Config, env_id: str, tensors: dict[str, Tensor]) -> tuple[Dreamer, Replay]:
    """The agent of a checkpoint (tensors of any shape), and an empty replay like its own."""
    world = make_envs(cfg, env_id, 1, 0)
    obs, action = world.obs_spec, world.action_spec
    world.close()
    agent = make_agent(cfg, obs, action, torch.device("cpu"))
    agent.load_state_dict({k[6:]: x for k, x in tensors.items() if k.startswith("agent/")})
    return agent, make_replay(cfg, obs, action.size, 0, torch.device("cpu"))


def fill(replay: Replay, packed: Replay, queue: dict) -> None:
    """Rows, the queue of unseen ones, the random state; row 0 is now the oldest that was left."""
    rows = packed.total
    for name, column in packed.rows.items():
        replay.rows[name][:rows] = column[:rows]
    gone = queue["total"] - rows
    fresh = [max(0, first - gone) for first in queue["fresh"]]
    replay.restore({"total": rows, "fresh": fresh, "rng": queue["rng"], "chunks": {}})


@torch.no_grad()
def see_again(agent: Dreamer, replay: Replay) -> None:
    """The agent's state at every row, as if it had lived all streams with the weights of today.

    A stream whose beginning was overwritten starts from an empty memory.
    """
    state, streams = agent.initial(replay.streams), np.arange(replay.streams)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # latents are samples; the same parcel gives the same run
        for start in range(0, replay.total, CHUNK):
            rows = np.arange(start, min(start + CHUNK, replay.total))
            states, _ = agent.world_model.observe(window(replay, rows), state)
            replay.write_back(Where(np.tile(rows[:, None], replay.streams), streams), states)
            state = states.map(lambda x: x[-1])


def window(replay: Replay, rows: np.ndarray) -> Sequence:
    """The same rows of all streams, the memory not yet full.  [T,N,...]."""
    data = {name: torch.from_numpy(column[rows]) for name, column in replay.rows.items()}
    obs = {k.removeprefix("obs/"): x for k, x in data.items() if k.startswith("obs/")}
    return Sequence(obs, *(data[name] for name in FIELDS))


def note(logdir: Path, step: int) -> None:
    """The run's record says that it moved, and that nothing runs at the moment."""
    record = ledger.read(logdir) | {"unpacked_at": step}
    if record.get("status") == "running":
        record["status"] = "interrupted"
    ledger.write(logdir / "run.json", record)
