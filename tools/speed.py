"""Measures what the page "How fast is it, and why" shows: book/data/speed.json.

    python tools/speed.py        about four minutes; nothing else may run meanwhile

update        one gradient step of V3 at 1m, and of the laptop preset, and its parts (`bench`)
without       the same step with one of the tricks of `fast` left out, one at a time
threads       the step of the laptop preset on one core and on all
roofline      operations of the step, each on its own: their work, their traffic, their pace
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import torch
from torch import Tensor, nn

from dreamer_lite import bench, fast, native
from dreamer_lite.distributions import Categorical
from dreamer_lite.heads import PixelHead, TwoHotHead
from dreamer_lite.networks import BlockGRU, RMSNorm
from dreamer_lite.presets import LAPTOP, V3, Config, sized
from dreamer_lite.rssm import RSSM

OUT = Path(__file__).parents[1] / "book" / "data" / "speed.json"
GAME = "ALE/Boxing-v5"
CPU = torch.device("cpu")
REPEATS = 5
STEP = replace(sized(V3, "1m"), envs=1, protocol="atari100k")  # 64×64 RGB, 16×64, horizon 15
STEP = replace(STEP, replay=replace(STEP.replay, capacity=20_000))
BLOCK = 2**25  # float32 numbers whose copy tells the bandwidth


def main() -> None:
    """Everything, into one file."""
    found: dict = {"without": []}
    found["without"] += [timed("readable, and memory given back", STEP, plain)]
    fast.keep_freed_memory()
    found["without"] += [timed("readable", STEP, plain)]
    found["without"] += [timed(name, STEP, trick) for name, trick in TRICKS.items()]
    found["update"] = {name: measured(words) for name, words in BENCHES.items()}
    found["threads"] = [scaled(n) for n in range(1, torch.get_num_threads() + 1)]
    found["bandwidth_gbs"] = bandwidth() / 1e9
    found["roofline"] = [pace(name, *make()) for name, make in OPERATIONS.items()]
    OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


# `dreamer-lite bench` in processes of their own, so that each has its own memory
BENCHES = {
    "v3 1m": "v3 --size 1m --envs 1 --protocol atari100k --replay.capacity 20000",
    "laptop": "laptop",
}


def measured(words: str) -> dict:
    """The answer of `dreamer-lite bench` to these words."""
    with TemporaryDirectory() as folder:
        out = Path(folder, "bench.json")
        command = [sys.executable, "-m", "dreamer_lite", "bench", *words.split(), "--env", GAME]
        subprocess.run([*command, "--repeats", str(REPEATS), "--out", str(out)], check=True)
        return json.loads(out.read_text(encoding="utf-8"))


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
    "nothing": ExitStack,
    "recurrence": keeping(BlockGRU, RSSM),
    "convolutions": lambda: patch.multiple(
        fast, pair=lambda *_: None, SWAPS=fast.SWAPS | {nn.ConvTranspose2d: nn.ConvTranspose2d}
    ),
    "dense layers": lambda: patch.object(fast, "stack", lambda layers: (0, [], [])),
    "heads and dice": readable_heads,
    "compiled kernels": lambda: patch.object(native, "available", lambda: False),
}


def timed(name: str, cfg: Config, trick: Callable) -> dict:
    """Seconds of a whole update with a trick left out."""
    with trick():
        world, agent, replay = bench.build(cfg, GAME, CPU)
        world.close()
        fast.accelerate(agent)
        sample = replay.sample(cfg.replay.length, cfg.replay.batch)
        update = lambda: agent.update(sample.sequence, sample.start)  # noqa: E731
        seconds = bench.clock(update, CPU, REPEATS)
    print(f"{name:<34} {seconds:.3f} s", flush=True)
    return {"name": name, "seconds": seconds}


def scaled(threads: int) -> dict:
    """The laptop preset's update on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    row = timed(f"laptop, {threads} threads", LAPTOP, ExitStack)
    torch.set_num_threads(before)
    return row | {"threads": threads}


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
    main()
