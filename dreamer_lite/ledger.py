"""The record of a run, to stand beside every number that is printed from it (chapter 13).

    <logdir>/run.json    name, command, overrides, env, protocol, steps, seed    what was asked for
                         commit, versions, hardware, threads, device, processes,
                         kernels (whether those in C were used)                  what it ran on
                         status, step, frames, updates, hours, started, ended    how far it came
                         memory_gb                                               at most, so far
                         resumed                                                 its later lives

A run folder can be published without its checkpoints: run.json, config.json and metrics.jsonl.
"""

import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

from dreamer_lite import distributed, native
from dreamer_lite.distributions import Categorical
from dreamer_lite.presets import PRESETS, SIZES, Config, diff, sized
from dreamer_lite.replay import atomic

# Whose versions a run notes
PACKAGES = ("dreamer-lite", "torch", "numpy", "gymnasium", "ale-py", "mujoco", "dm_control")
# Of each life
LIFE = ("commit", "versions", "hardware", "device", "threads", "processes", "kernels")
Record = dict[str, Any]  # what run.json holds


def describe(cfg: Config, name: str, options: Record, device: torch.device) -> Record:
    """What is known of a run before its first step.

    options: env, steps, seed, and whatever else was asked of `dreamer-lite train`, by its names.
    """
    preset, size, overrides = nearest(cfg)
    return {
        "name": name,
        "command": command(cfg, name, options, device),
        "preset": preset,
        "size": size,
        "overrides": overrides,
        **options,
        "protocol": cfg.protocol if options["env"].startswith("ALE/") else None,
        "commit": commit(),
        "versions": versions(),
        "hardware": hardware(device),
        "device": device.type,
        "threads": torch.get_num_threads(),
        "processes": distributed.size(),
        "kernels": native.available(),
        "started": now(),
    }


def resumed(stored: Record, new: Record, step: int) -> Record:
    """The record of a run that goes on at `step`: what began it stays, later lives are listed."""
    life = {"step": step, "at": new["started"], **{key: new[key] for key in LIFE}}
    asked = {key: new[key] for key in ("steps", "command")}
    kept = {key: value for key, value in stored.items() if key != "ended"}
    return kept | asked | {"resumed": [*stored.get("resumed", []), life]}


# The command that repeats a run


def command(cfg: Config, name: str, options: Record, device: torch.device) -> str | None:
    """What to type to repeat the run; None if its settings can only be written in Python."""
    preset, size, overrides = nearest(cfg)
    if not all(map(typeable, overrides.values())):
        return None
    machine = {"device": device.type, "threads": torch.get_num_threads()}
    flags = ({"size": size} if size else {}) | options | machine | {"logdir": f"runs/{name}"}
    words = [flag(path, value) for path, value in (flags | overrides).items()]
    return " ".join([f"{distributed.launcher()} train", preset, *words])


def nearest(cfg: Config) -> tuple[str, str | None, Record]:
    """The preset and size closest to `cfg`, and {dotted path: value} of what is still different."""
    changes = [
        (name, size, {path: now for path, (_, now) in diff(base, cfg, idle=True).items()})
        for name, size, base in bases()
    ]
    return min(changes, key=lambda change: len(change[2]))


def bases() -> Iterator[tuple[str, str | None, Config]]:
    """Every preset as it is, then in every size."""
    for name, preset in PRESETS.items():
        yield name, None, preset
    for name, preset in PRESETS.items():
        if isinstance(preset.model.latent, Categorical):  # a size says how many classes
            yield from ((name, size, sized(preset, size)) for size in SIZES)


def typeable(value: Any) -> bool:
    """Numbers, words and rows of them; classes, functions and what is absent are not."""
    if isinstance(value, list):
        return all(map(typeable, value))
    return isinstance(value, (bool, int, float)) or (
        isinstance(value, str) and value != "-" and not value.startswith("@")
    )


def flag(path: str, value: Any) -> str:
    """One override as the command line spells it."""
    name = path.replace("_", "-")
    if isinstance(value, bool):
        parent, _, last = name.rpartition(".")
        return f"--{name}" if value else f"--{parent}{'.' * bool(parent)}no-{last}"
    values = value if isinstance(value, list) else [value]
    return " ".join([f"--{name}", *(shlex.quote(str(x)) for x in values)])


# The machine


def commit() -> str | None:
    """The git commit of the package, with + if it was changed since; None outside its checkout."""
    if git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None  # installed somewhere inside another repository
    changed = git("status", "--porcelain", "--untracked-files=no", ".")
    return f"{git('rev-parse', '--short=12', 'HEAD')}{'+' * bool(changed)}"


def git(*args: str) -> str | None:
    """What git answers in the folder of the package; None if it fails or is absent."""
    folder = Path(__file__).parent
    try:
        done = subprocess.run(["git", *args], cwd=folder, capture_output=True, text=True)
    except OSError:
        return None
    return None if done.returncode else done.stdout.strip()


def versions() -> dict[str, str]:
    """Python and the installed packages that a result may depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def hardware(device: torch.device) -> str:
    """The GPU if that is what computes, else the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = read_text(Path("/proc/cpuinfo")).splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def peak_memory() -> int:
    """The most bytes of memory that this process has had at once."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    if own := re.search(r"VmHWM:\s*(\d+) kB", read_text(Path("/proc/self/status"))):
        return 1024 * int(own[1])  # the next line would count what started this process, too
    import resource  # which Windows lacks

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def read_text(path: Path) -> str:
    """A file's content, empty if there is none."""
    return path.read_text() if path.exists() else ""


# The file


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write(path: Path, data: Record) -> None:
    """Readable JSON; the file is replaced in one step."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def read(logdir: Path) -> Record:
    """The record in a run folder, {} if there is none that can be read."""
    try:
        record = json.loads((logdir / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def clear(logdir: Path) -> None:
    """Removes what a run left that was killed before its first checkpoint, and nothing else.

    ValueError for a folder with other things in it.
    """
    record, metrics = read(logdir), logdir / "metrics.jsonl"
    ours = {"env", "seed", "status"} <= record.keys()
    if record.get("step", 0) > 0 or (metrics.exists() and not ours):
        raise ValueError(
            f"{logdir} holds the record of a run but no checkpoint to continue from; "
            "choose another logdir"
        )
    metrics.unlink(missing_ok=True)
    if ours:
        shutil.rmtree(logdir / "milestones", ignore_errors=True)
