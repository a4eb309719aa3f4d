"""Measures what the page "How fast is it, and why" shows: book/data/speed.json.

    python tools/speed.py        about six minutes; nothing else may run meanwhile

start         from `train` to its first update where nothing is compiled yet, and memory at most
update        one gradient step of V3 at 1m, and of the laptop preset, and its parts (`bench`)
without       the same step with one of the tricks of `fast` left out, one at a time
threads       the step of the laptop preset on one core and on all
roofline      operations of the step, each on its own: their work, their traffic, their pace

A row that repeats a step of `update` is taken from there. All but the roofline is measured in
processes of their own: `python tools/speed.py TRICK` is the one that leaves out TRICK.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import torch
from torch import Tensor, nn

from dreamer_lite import bench, fast, ledger, native
from dreamer_lite.distributions import Categorical
from dreamer_lite.heads import PixelHead, TwoHotHead
from dreamer_lite.networks import BlockGRU, RMSNorm
from dreamer_lite.presets import V3, sized
from dreamer_lite.rssm import RSSM

OUT = Path(__file__).parents[1] / "book" / "data" / "speed.json"
GAME = "ALE/Boxing-v5"
CPU = torch.device("cpu")
REPEATS = 5
STEPS = 1200  # of a run whose start is measured; learning begins at 1024
STEP = replace(sized(V3, "1m"), envs=1, protocol="atari100k")  # 64×64 RGB, 16×64, horizon 15
STEP = replace(STEP, replay=replace(STEP.replay, capacity=20_000))
BLOCK = 2**25  # float32 numbers whose copy tells the bandwidth


def main() -> None:
    """Everything, into one file."""
    found: dict = {"update": {name: measured(words) for name, words in PLAYED.items()}}
    found["start"] = {name: started(words) for name, words in PLAYED.items()}
    results = measured(f"{PLAYED['laptop']} --threads 1"), found["update"]["laptop"]
    found["threads"] = [{"threads": r["threads"], "seconds": whole(r)} for r in results]
    quick = whole(found["update"]["v3 1m"])
    found["without"] = [
        {"name": name, "seconds": apart(name) if trick else quick} for name, trick in TRICKS.items()
    ]
    fast.keep_freed_memory()
    found["bandwidth_gbs"] = bandwidth() / 1e9
    found["roofline"] = [pace(name, *make()) for name, make in OPERATIONS.items()]
    OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


# What `dreamer-lite train` and `dreamer-lite bench` are told
PLAYED = {
    "v3 1m": "v3 --size 1m --envs 1 --protocol atari100k --replay.capacity 20000",
    "laptop": "laptop",
}


def command(verb: str, words: str, **options) -> list[str]:
    """A command line of the package on one game and the processor."""
    flags = [f"--{name.replace('_', '-')}={x}" for name, x in options.items()]
    words = [verb, *words.split(), f"--env={GAME}", "--device=cpu", *flags]
    return [sys.executable, "-m", "dreamer_lite", *words]


def measured(words: str) -> dict:
    """The answer of `dreamer-lite bench` to these words."""
    with TemporaryDirectory() as folder:
        out = Path(folder, "bench.json")
        subprocess.run(command("bench", words, repeats=REPEATS, out=out), check=True)
        result = json.loads(out.read_text(encoding="utf-8"))
    if result["others"] > bench.COMPANY:
        sys.exit("something else runs on this machine; try again when it is done")
    return result


def whole(result: dict) -> float:
    """Seconds of an update, as `bench` found them."""
    return result["parts"]["update"]["ms"] / 1e3


# --- the beginning --------------------------------------------------------------------------------


def started(words: str) -> dict:
    """Seconds from a command to its first update, kernels compiled anew, and memory at most."""
    with TemporaryDirectory() as folder:
        run, cold = Path(folder, "run"), os.environ | {"XDG_CACHE_HOME": folder}
        asked = command("train", words, steps=STEPS, log_every=1, logdir=run)
        began = time.perf_counter()
        with subprocess.Popen(asked, env=cold) as process:
            while process.poll() is None and not learned(run / "metrics.jsonl"):
                time.sleep(0.05)
            seconds = time.perf_counter() - began
        end = ledger.read(run)
        assert end.get("status") == "complete" and end["updates"] > 1, "the run failed"
    return {"seconds": seconds, "memory_gb": end["memory_gb"], "updates": end["updates"]}


def learned(metrics: Path) -> bool:
    """Whether a run has written that it made an update."""
    return metrics.exists() and bool(re.search(r'"update": [1-9]', metrics.read_text()))


# --- tricks, one left out at a time ---------------------------------------------------------------


@contextmanager
def plain() -> Iterator[None]:
    """No trick at all."""
    with patch.object(fast, "accelerate", lambda agent: agent):
        yield


def keeping(*layers: type) -> Callable:
    """These layers stay readable."""
    return lambda: patch.dict(fast.SWAPS, {layer: layer for layer in layers})


@contextmanager
def readable_heads() -> Iterator[None]:
    """Heads and dice stay readable."""
    with ExitStack() as stack:
        stack.enter_context(keeping(TwoHotHead, PixelHead)())
        stack.enter_context(patch.object(fast, "FastCategorical", Categorical))
        yield


# What is left out -> how
TRICKS = {
    "readable, and memory given back": plain,
    "readable": plain,
    "nothing": None,  # the step of `update`
    "recurrence": keeping(BlockGRU, RSSM),
    "convolutions": lambda: patch.multiple(
        fast, pair=lambda *_: None, SWAPS=fast.SWAPS | {nn.ConvTranspose2d: nn.ConvTranspose2d}
    ),
    "dense layers": lambda: patch.object(fast, "stack", lambda layers: (0, [], [])),
    "heads and dice": readable_heads,
    "compiled kernels": lambda: patch.object(native, "available", lambda: False),
}


def apart(name: str) -> float:
    """`timed` in a process of its own."""
    done = subprocess.run([sys.executable, __file__, name], check=True, stdout=subprocess.PIPE)
    print(f"{name:<34} {float(done.stdout):.3f} s", flush=True)
    return float(done.stdout)


def timed(name: str) -> float:
    """Seconds of a whole update of STEP with a trick left out."""
    if "given back" not in name:
        fast.keep_freed_memory()
    with TRICKS[name]():
        world, agent, replay = bench.build(STEP, GAME, CPU)
        world.close()
        fast.accelerate(agent)
        sample = replay.sample(STEP.replay.length, STEP.replay.batch)
        return bench.clock(lambda: agent.update(sample.sequence, sample.start), CPU, REPEATS)


# --- roofline -------------------------------------------------------------------------------------


def bandwidth() -> float:
    """Bytes per second that a copy reads and writes."""
    a, b = torch.rand(2, BLOCK)
    return 2 * 4 * BLOCK / bench.clock(lambda: b.copy_(a), CPU, REPEATS)


def pace(
    name: str, call: Callable, tensors: list[Tensor], readable: Callable | None = None
) -> dict:
    """Time of an operation, its work (a readable twin's), its least traffic (each tensor once)."""
    with torch.no_grad():
        flops, seconds = bench.count(readable or call), bench.clock(call, CPU, REPEATS)
        moved = sum(x.nbytes for x in [*tensors, call()])
    row = {"name": name, "gflop": flops / 1e9, "mb": moved / 1e6, "ms": 1e3 * seconds}
    print(row, flush=True)
    return row


def dense(rows: int) -> tuple[Callable, list[Tensor]]:
    """A layer of the dream: rows [N,1024] times a square matrix."""
    x, w = torch.randn(rows, 1024), torch.randn(1024, 1024)
    return lambda: x @ w, [x, w]


def convolution(channels: int, size: int, out: int) -> tuple[Callable, list[Tensor]]:
    """A 5×5 layer on 1,024 images, as the library does it."""
    layer, x = nn.Conv2d(channels, out, 5, padding=2), torch.randn(1024, channels, size, size)
    return lambda: layer(x), [x, layer.weight]


def folded(channels: int, size: int, out: int) -> tuple[Callable, list[Tensor], Callable]:
    """The last layer of the decoder with its doubling, folded into a 3×3 layer."""
    layers = nn.Upsample(scale_factor=2), nn.Conv2d(channels, out, 5, padding=2)
    quick, readable = fast.FastSequential(*layers), nn.Sequential(*layers)
    x = torch.randn(1024, channels, size, size)
    return lambda: quick(x), [x, layers[1].weight], lambda: readable(x)


def norm(rows: int) -> tuple[Callable, list[Tensor]]:
    """RMSNorm and SiLU on rows [N,1024] in one pass."""
    layers, x = fast.FastSequential(RMSNorm(1024), nn.SiLU()), torch.randn(rows, 1024)
    return lambda: layers(x), [x]


def cell(rows: int) -> tuple[Callable, list[Tensor]]:
    """A step of the recurrent model for rows [N,.]."""
    world, agent, _ = bench.build(STEP, GAME, CPU)
    world.close()
    gru, state = fast.accelerate(agent).world_model.rssm.cell, agent.initial(rows)
    action = torch.zeros(rows, agent.action.size)
    return lambda: gru(state.h, state.z, action), [*state, action, *gru.parameters()]


def square() -> tuple[Callable, list[Tensor]]:
    """What the machine can do at best."""
    a, b = torch.randn(2, bench.SIDE, bench.SIDE)
    return lambda: a @ b, [a, b]


OPERATIONS = {
    "matrix product, 2048³": square,
    "dense 1024 × 1024, 1,024 rows": lambda: dense(1024),
    "dense 1024 × 1024, 16 rows": lambda: dense(16),
    "GRU step, 1,024 rows": lambda: cell(1024),
    "GRU step, 16 rows": lambda: cell(16),
    "first convolution, library": lambda: convolution(3, 64, 8),
    "last convolution, library": lambda: convolution(8, 64, 3),
    "last convolution, folded": lambda: folded(8, 32, 3),
    "RMSNorm + SiLU, 1,024 rows": lambda: norm(1024),
}

if __name__ == "__main__":
    main() if len(sys.argv) == 1 else print(timed(sys.argv[1]))
