"""Saving a run so that stopping it costs nothing, and sharing what it learned.

    <logdir>/checkpoints/<step>/{tensors.safetensors, state.json, ...}    the newest two are kept

Only safetensors and JSON: loading somebody's file cannot run somebody's code. A checkpoint appears
under its name when all of it is on the disk, so a run may be killed at any moment. ValueError for
files that are missing, not complete, or of another run.
"""

import errno
import json
import math
import os
import re
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from dreamer_lite.guard import between
from dreamer_lite.replay import Damaged, atomic, sha256, sync_folder, write_arrays

# What our files say they are, how they are written, how many checkpoints a run keeps
FORMAT, VERSION, KEPT = "dreamer_lite checkpoint", 1, 2
Tensors = dict[str, Tensor]  # by name, of any shape


# Runs


def save(
    logdir: Path | str,
    step: int,
    tensors: Mapping[str, Tensor | np.ndarray],
    meta: dict,
    extra: Callable[[Path], None] | None = None,
) -> Path:
    """Write <logdir>/checkpoints/<step>, then delete all but the last two.

    tensors: of any shape. meta: whatever JSON can hold. extra: called with the unfinished folder to
    add files to it. If anything fails, the earlier checkpoints are as they were.
    """
    between(0, math.inf, "the steps done so far", step=step)
    root = Path(logdir) / "checkpoints"
    root.mkdir(parents=True, exist_ok=True)
    remove(root.glob(".tmp-*"))
    final, temporary = root / f"{step:010d}", unfinished(logdir, step)
    try:
        temporary.mkdir()
        write_arrays(temporary / "tensors.safetensors", unshared(tensors))
        if extra:
            extra(temporary)
        write_state(temporary, step, meta)
        publish(temporary, final)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise OSError(
            errno.ENOSPC,
            f"no space left to save step {step}; earlier checkpoints are intact: free some space "
            "and resume",
            str(final),
        ) from error
    finally:
        remove([temporary])
    others = [folder for folder in folders(root) if folder != final]
    earlier = [folder for folder in others if step_of(folder) < step]
    remove(set(others) - set(earlier[: KEPT - 1]))  # later ones: a future that was given up
    return final


def unfinished(logdir: Path | str, step: int) -> Path:
    """The folder that becomes the checkpoint of `step` when all of it is there."""
    return Path(logdir) / "checkpoints" / f".tmp-{step:010d}"


def write_state(folder: Path, step: int, meta: dict) -> None:
    """The last file of a checkpoint; it vouches for all others."""
    files = {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    state = {"format": FORMAT, "version": VERSION, "step": step, "files": files, "meta": meta}
    with atomic(folder / "state.json") as path:
        path.write_text(json.dumps(state, indent=1, default=plain))


def plain(value):
    """What JSON does not know: numbers of numpy and torch, paths."""
    if isinstance(value, (np.generic, np.ndarray, Tensor)):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"meta must hold what JSON can, got {type(value).__name__}; convert it")


def publish(temporary: Path, final: Path) -> None:
    """Give a complete folder its name; one that has it steps aside before it is deleted."""
    sync_folder(temporary)
    if final.exists():
        remove([aside := final.with_name(f".old-{final.name}")])
        os.replace(final, aside)
    os.replace(temporary, final)
    sync_folder(final.parent)


def folders(root: Path) -> list[Path]:
    """All checkpoints, the newest first; one that stepped aside comes after its successor."""
    found = [path for path in root.glob("*") if re.fullmatch(r"(\.old-)?\d{10,}", path.name)]
    return sorted(found, key=lambda path: (step_of(path), path.name[0] != "."), reverse=True)


def step_of(folder: Path) -> int:
    """The step in a folder's name."""
    return int(folder.name.removeprefix(".old-"))


def remove(paths) -> None:
    """Delete folders, present or not."""
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)


def unshared(tensors: Mapping) -> Tensors:
    """Own memory for each tensor of any shape: a file has no place for two names of one."""
    return {name: torch.as_tensor(x).detach().cpu().clone() for name, x in tensors.items()}


def load(
    path: Path | str,
    step: int | None = None,
    check: Callable[[dict, Path], None] = lambda meta, folder: None,
) -> tuple[Tensors, dict, Path]:
    """Read the newest complete checkpoint of a run, or one folder -> tensors, meta, folder.

    Tensors have any shape. A damaged one is passed over with a warning that says what is wrong;
    check(meta, folder) may find it `Damaged` too. Changes nothing on disk.
    """
    path = Path(path)
    if (path / "state.json").exists():
        return read(path, check)
    found = folders(path / "checkpoints")
    found = found if step is None else [f for f in found if step_of(f) == step]
    for folder in found:
        try:
            return read(folder, check)
        except Damaged as error:
            warnings.warn(f"{error}; trying an earlier checkpoint", stacklevel=2)
    which = "complete checkpoint" if found else "checkpoint"
    which += "" if step is None else f" of step {step}"
    raise ValueError(f"no {which} in {path}; check the folder's name or start a new run")


def read(folder: Path, check: Callable[[dict, Path], None]) -> tuple[Tensors, dict, Path]:
    """One checkpoint, tensors of any shape, after checking every byte of it."""
    state = read_state(folder / "state.json")
    for name, expected in state["files"].items():
        file = folder / name
        size = file.stat().st_size if file.exists() else None
        if size != expected["size"]:
            raise Damaged(f"{file} has {size} bytes instead of {expected['size']}")
        if sha256(file) != expected["sha256"]:
            raise Damaged(f"{file} has changed since it was saved")
    check(state["meta"], folder)
    return load_file(folder / "tensors.safetensors"), state["meta"], folder


def read_state(path: Path) -> dict:
    """state.json, if it is one of ours."""
    try:
        state = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Damaged(f"{path} cannot be read: {error}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(f"{path} is not a {FORMAT}; give the folder of a run of dreamer_lite")
    if (version := state.get("version")) != VERSION:
        raise ValueError(
            f"{path} has format version {version}, this dreamer_lite reads {VERSION}; "
            "install the version that wrote it (see run.json)"
        )
    return state


def compare_config(stored: dict, now: dict) -> None:
    """Refuse to resume a run with other settings than it began with."""
    before, after = flat(stored), flat(json.loads(json.dumps(now, default=plain)))
    changes = [
        f"  {name}: {before.get(name, 'absent')} -> {after.get(name, 'absent')}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name, "absent") != after.get(name, "absent")
    ]
    if changes:
        raise ValueError(
            "config differs from the run's (stored -> now):\n"
            + "\n".join(changes)
            + "\nresume with the stored settings or choose a new logdir"
        )


def flat(config, prefix: str = "") -> dict:
    """Nested settings -> {dotted name: value}."""
    if not isinstance(config, dict) or not config:
        return {prefix: config}
    parts = [flat(v, f"{prefix}.{k}" if prefix else str(k)) for k, v in config.items()]
    return {name: value for part in parts for name, value in part.items()}


def rng_tensors() -> Tensors:
    """State of torch's generators, uint8 [n], to be saved among the tensors."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"rng/cpu": torch.get_rng_state()} | {f"rng/cuda{i}": s for i, s in enumerate(cuda)}


def restore_rng(tensors: Mapping[str, Tensor]) -> None:
    """Continue the generators of `rng_tensors`, uint8 [n], as far as this machine has them."""
    torch.set_rng_state(tensors["rng/cpu"])
    for i in range(torch.cuda.device_count()):
        if f"rng/cuda{i}" in tensors:
            torch.cuda.set_rng_state(tensors[f"rng/cuda{i}"], i)


# Trained agents, small enough to share


def save_weights(
    folder: Path | str,
    tensors: Mapping[str, Tensor],
    config: dict,
    *,
    dtype: torch.dtype | None = torch.float16,
    limit: int = 16 * 2**20,
) -> list[Path]:
    """Write agent.safetensors, or shards below `limit` bytes and their index.json.

    Tensors of any shape are stored as `dtype` (None: as they are) unless they would overflow it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    groups = shards({name: shrink(x, dtype) for name, x in unshared(tensors).items()}, limit)
    count = len(groups)
    names = [f"agent-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
    names = names if count > 1 else ["agent.safetensors"]
    for old in [*folder.glob("agent*.safetensors"), *folder.glob("index.json")]:
        old.unlink()
    text = json.dumps(config, default=plain)
    for name, group in zip(names, groups, strict=True):
        write_arrays(folder / name, group, {"format": "dreamer_lite agent", "config": text})
    if count > 1:
        index = {key: name for name, group in zip(names, groups, strict=True) for key in group}
        with atomic(folder / "index.json") as path:
            path.write_text(json.dumps({"weight_map": index}, indent=1))
    return [folder / name for name in names]


def shrink(x: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A float tensor of any shape as `dtype`; two-hot bins reach 4.85e8, half precision 65504."""
    if dtype is None or not x.is_floating_point():
        return x
    small = x.to(dtype)
    return small if torch.equal(small.isfinite(), x.isfinite()) else x


def shards(tensors: Tensors, limit: int) -> list[Tensors]:
    """Tensors of any shape in groups of up to `limit` bytes, 64 KiB of which are for the header."""
    groups, room = [{}], limit - 2**16
    for name, x in tensors.items():
        if x.nbytes > limit - 2**16:
            raise ValueError(
                f"tensor {name} has {x.nbytes} bytes, limit is {limit}; raise limit or lower dtype"
            )
        if x.nbytes > room:
            groups.append({})
            room = limit - 2**16
        groups[-1][name] = x
        room -= x.nbytes
    return groups


def load_weights(path: Path | str) -> tuple[Tensors, dict]:
    """Read a folder of `save_weights`, or its agent.safetensors -> tensors of any shape, config."""
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    files = [folder / "agent.safetensors"] if path.is_dir() else [path]
    if path.name == "index.json" or (folder / "index.json").exists():
        index = json.loads((folder / "index.json").read_text())["weight_map"]
        files = [folder / name for name in sorted(set(index.values()))]
    tensors, config = {}, None
    for file in files:
        part, config = read_weights(file)
        tensors |= part
    return {k: x.float() if x.is_floating_point() else x for k, x in tensors.items()}, config


def read_weights(file: Path) -> tuple[Tensors, dict]:
    """One shard, tensors of any shape in float32, and the config in it."""
    try:
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{file} cannot be read ({error}); download it again") from error
    if metadata.get("format") != "dreamer_lite agent":
        raise ValueError(f"{file} is not a dreamer_lite agent; use a file of save_weights")
    return tensors, json.loads(metadata["config"])
