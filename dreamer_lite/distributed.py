"""One run in several processes, each with its share of the batch (chapter 13).

    torchrun --nproc-per-node=2 -m dreamer_lite train ...

    rank 0:  half of the streams -> half of the batch -> gradient ─┐
                                                                   ├─ mean ─> one step, on both
    rank 1:  half of the streams -> half of the batch -> gradient ─┘

Every loss is a mean over the batch, so the mean of the gradients is the gradient of the whole
batch. What is not linear in the batch (the floor under the mean KL of V1 and V2, the percentiles of
the returns) is computed from all ranks. In a single process every function is the identity.
ValueError for devices that cannot be shared out.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from dreamer_lite.guard import require

# All wait while the first evaluates or saves. A process that died is noticed without waiting.
PATIENCE = timedelta(hours=12)


class LostRank(RuntimeError):
    """Another process of the run died, so this one cannot go on."""


# Who is who


def size() -> int:
    """How many processes share the run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, 0..size-1."""
    return dist.get_rank() if size() > 1 else 0


def leads() -> bool:
    """Whether this process writes what is written once: metrics, records, weights."""
    return rank() == 0


def local_size() -> int:
    """How many of the processes share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", size())) if size() > 1 else 1


@contextmanager
def group(device: torch.device) -> Iterator[None]:
    """Meets the processes that torchrun started, and parts from them at the end.

    Does nothing in a process that was started alone, or has met the others already. On GPUs every
    process takes its own; numbers on the processor go through gloo.
    """
    met = dist.is_available() and dist.is_initialized()
    if met or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    backend = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}.get(device.type, "")
    require(bool(backend), "device", "cpu or cuda", device.type, "start a single process instead")
    if device.type == "cuda":
        take_gpu(int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count())
    with talking():
        dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def take_gpu(number: int, count: int) -> None:
    """From here on "cuda" means GPU `number` of this machine."""
    remedy = "lower --nproc-per-node, or --device cpu"
    require(
        number < count,
        "nproc-per-node",
        f"at most {count}, the GPUs here",
        f"{number + 1} or more",
        remedy,
    )
    torch.cuda.set_device(number)


def launcher() -> str:
    """What starts a command in as many processes as this one."""
    if size() == 1:
        return "dreamer-lite"
    nodes = size() // local_size()
    spread = f"--nnodes={nodes} " if nodes > 1 else ""
    return f"torchrun {spread}--nproc-per-node={local_size()} -m dreamer_lite"


# What is exchanged


@contextmanager
def talking() -> Iterator[None]:
    """Says in words what a broken connection means."""
    try:
        yield
    except RuntimeError as error:  # also what torch.distributed raises
        raise LostRank(
            "another process of this run is gone; its own output tells why. Give the same command "
            "again: the run goes on from its newest checkpoint"
        ) from error


def average(grads: dict[str, list[Tensor]]) -> dict[str, list[Tensor]]:
    """The mean over all ranks of every gradient, of any shape, by one flat all_reduce.

    (DistributedDataParallel waits for `backward`; here each optimizer asks `autograd.grad`.)
    """
    if size() == 1:
        return grads
    every = [g for group in grads.values() for g in group]
    flat = torch.cat([g.flatten() for g in every])
    with talking():
        dist.all_reduce(flat)
    parts = flat.div_(size()).split([g.numel() for g in every])
    means = iter([x.view_as(g) for x, g in zip(parts, every, strict=True)])
    return {name: [next(means) for _ in group] for name, group in grads.items()}


class _Mean(torch.autograd.Function):
    """The mean over ranks, whose gradient stays with the rank: `average` follows."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        total = x.clone()
        with talking():
            dist.all_reduce(total)
        return total / size()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return grad


def mean_over_ranks(x: Tensor) -> Tensor:
    """The mean of the batch from the mean of this rank's share of it.  [] -> [].

    m = 1/N Σ x_i is followed by some loss f(m) on every rank. ∇f = f'(m) · 1/N Σ ∇x_i, and since
    `average` takes the mean, this rank contributes f'(m) ∇x_i: backward is the identity.
    """
    return x if size() == 1 else _Mean.apply(x)


def gather_over_ranks(x: Tensor) -> Tensor:
    """The shares of all ranks in one tensor, without gradient.  [n] -> [size·n]."""
    if size() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(size())]
    with talking():
        dist.all_gather(parts, x.detach().contiguous())
    return torch.cat(parts)


def largest(x: float) -> float:
    """The largest of a number that ranks may disagree on: all take the same decision."""
    if size() == 1:
        return x
    number = torch.tensor(x, dtype=torch.float64)
    with talking():
        dist.all_reduce(number, dist.ReduceOp.MAX)
    return number.item()


def gathered(x: Any) -> list:
    """An object of every rank, in their order."""
    if size() == 1:
        return [x]
    found = [None] * size()
    with talking():
        dist.all_gather_object(found, x)
    return found


def meet() -> None:
    """Waits until every rank is here."""
    largest(0.0)
