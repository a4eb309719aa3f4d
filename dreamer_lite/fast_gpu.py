"""What a GPU wants: half-precision products, one launch an update, no waiting (chapter 13).

    autocast       products in bfloat16, sums and losses in float32, weights in float32
    Graph          the kernels of a function, recorded once, launched together ever after
    DeviceReplay   experience lies where it is learned from; only indices travel

A GPU computes while the processor is already preparing what comes next, until somebody asks for a
number. An update asks for none (tests/test_fast_gpu.py).
"""

from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dreamer_lite import distributed
from dreamer_lite.agent import Dreamer
from dreamer_lite.replay import Replay, Where
from dreamer_lite.rssm import State

WARMUPS = 3  # calls before a recording, in which libraries choose their kernels
SPARE = 0.5  # share of the free memory of a GPU that a replay may take

# --- one launch ---------------------------------------------------------------------------------


def mapped(f: Callable, *trees: Any) -> Any:
    """f on the tensors (any shape) of nested dicts, lists and tuples; what else is in them stays.

    Of several trees, which must be built alike, f gets the tensors of one place together.
    """
    first = trees[0]
    if isinstance(first, Tensor):
        return f(*trees)
    if isinstance(first, dict):
        return {k: mapped(f, *(tree[k] for tree in trees)) for k in first}
    if isinstance(first, list | tuple):
        parts = [mapped(f, *entries) for entries in zip(*trees, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
    return first


def shapes(tree: Any) -> Any:
    """What a recording is made for: two trees with the same answer can share it."""
    return repr(mapped(lambda x: (x.dtype, tuple(x.shape)), tree))


class Graph:
    """A function of tensors, recorded on its first arguments and replayed on others like them.

    module: whose buffers the trial calls before the recording must leave alone. A recording reads
    and writes fixed places, so arguments are copied in and results are copied out. On another
    device than a CUDA GPU the function is called instead, with the same copies.
    """

    def __init__(self, function: Callable, args: tuple, module: nn.Module):
        self.function, self.inputs = function, mapped(torch.clone, args)
        self.recording = None
        device = next(module.parameters()).device
        if device.type == "cuda":
            with untouched(module, device):
                warm_up(lambda: function(*self.inputs), device)
            self.recording = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.recording):
                self.outputs = function(*self.inputs)

    def __call__(self, *args: Any) -> Any:
        """The function's answer, in tensors of its own."""
        mapped(lambda place, x: place.copy_(x, non_blocking=True), self.inputs, args)
        if self.recording:
            self.recording.replay()
        else:
            self.outputs = self.function(*self.inputs)
        return mapped(torch.clone, self.outputs)


def warm_up(call: Callable, device: torch.device) -> None:
    """Calls beside the main stream, as a recording demands."""
    main, side = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    side.wait_stream(main)
    with torch.cuda.stream(side):
        for _ in range(WARMUPS):
            call()
    main.wait_stream(side)


@contextmanager
def untouched(module: nn.Module, device: torch.device):
    """What happens inside leaves no trace in the buffers and random numbers."""
    before = [b.clone() for b in module.buffers()]
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        yield
    for buffer, value in zip(module.buffers(), before, strict=True):
        buffer.copy_(value)


# --- the agent ----------------------------------------------------------------------------------


class HalfDreamer(Dreamer):
    """Acts and learns with products in bfloat16; the optimizers stay as they are."""

    def halved(self, function: Callable) -> Callable:
        """The function with its matrix products and convolutions in bfloat16.

        Around the whole of it: weights are converted once in a call.
        """
        device = next(self.parameters()).device.type

        def call(*args: Any) -> Any:
            with torch.autocast(device, torch.bfloat16):
                return function(*args)

        return call

    def answer(self, function: Callable, *args: Any) -> Any:
        """The function's answer under autocast."""
        return self.halved(function)(*args)

    def decide(self, obs, prev_action, is_first, state, mode):
        """[N,...] -> actions [N,A], state [N,.]."""
        return self.answer(super().decide, obs, prev_action, is_first, state, mode)

    def differentiate(self, batch, start):
        """Gradients, states [T,B,.] and metrics []."""
        return self.answer(super().differentiate, batch, start)


class FastDreamer(HalfDreamer):
    """The same by recorded graphs, one for each kind of arguments."""

    def answer(self, function: Callable, *args: Any) -> Any:
        """The function's answer under autocast, recorded anew for arguments of other shapes."""
        graphs = self.__dict__.setdefault("graphs", {})
        key = function.__name__, shapes(args)
        if key not in graphs:
            graphs[key] = Graph(self.halved(function), args, self)
        return graphs[key](*args)


def record(agent: Dreamer) -> Dreamer:
    """Makes an agent a `FastDreamer`, in place; returns it.

    One of several processes becomes a `HalfDreamer`: a recording cannot wait for the others.
    """
    if type(agent) is Dreamer:
        agent.__class__ = FastDreamer if distributed.size() == 1 else HalfDreamer
    return agent


# --- the replay ---------------------------------------------------------------------------------


class DeviceReplay(Replay):
    """A replay with a second copy of its columns on the device, which is sampled and written back.

    The first copy, in the memory of the processor, is what files are written from; its latents are
    fetched when that happens.
    """

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        columns = (self.rows | self.latents).items()
        self.mirror = {k: self._tensor(x[:0]).new_zeros(x.shape) for k, x in columns}

    def written(self) -> None:
        """Copies all columns to the device, in place: neither side has room for a third copy."""
        for name, column in (self.rows | self.latents).items():
            self.mirror[name].copy_(torch.from_numpy(column))

    def load(self, chunk_dir: Path | str, ckpt_dir: Path | str) -> None:
        """As `Replay.load`; the columns travel once, when all files are read."""
        super().load(chunk_dir, ckpt_dir)
        self.written()

    def add(self, row, state: State | None = None) -> None:
        """One more row, into both copies.  state [N,.]."""
        super().add(row, state)
        now = (self.total - 1) % self.size
        for name, column in (self.rows | self.latents).items():
            self.mirror[name][now] = self._tensor(column[now])

    def _take(self, columns: dict, place: np.ndarray, stream: np.ndarray) -> dict[str, Tensor]:
        place, stream = self._tensor(place), self._tensor(stream)
        return {name: self.mirror[name][place, stream] for name in columns}

    def write_back(self, where: Where, states: State) -> None:
        """As `Replay.write_back`, without waiting for the states [T,B,.]."""
        if not self.latent:
            return
        alive = where.rows >= self.oldest
        place = tuple(map(self._tensor, self._place_of(where, alive)))
        kept = tuple(map(self._tensor, np.nonzero(alive)))
        for name, x in zip("hz", self._pack(states, where.rows.shape), strict=True):
            self.mirror[name][place] = x[kept]

    def _span(self, columns: dict, start: int, stop: int) -> dict:
        if columns is self.latents:
            columns = {name: self.mirror[name].cpu().numpy() for name in columns}
        return super()._span(columns, start, stop)


def fits(needed: int, device: torch.device) -> bool:
    """Whether so many bytes fit beside everything else on a CUDA GPU; False on other devices."""
    return device.type == "cuda" and needed < SPARE * torch.cuda.mem_get_info(device)[0]
