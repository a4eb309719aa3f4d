"""Where the time of training goes, beside what the machine could do (chapter 13).

    world model, imagination, actor-critic, optimizer    the parts of an update, each on its own
    update                                               the whole of it
    replay, acting, environment                          what surrounds it

Percentages compare with this machine's rate of a large matrix product, measured in the same run.
Only numbers of one run may be compared, and only if nothing else ran meanwhile.
"""

import math
import time
from collections.abc import Callable
from functools import cache
from itertools import product
from statistics import median

import psutil
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from dreamer_lite import fast, fast_gpu, ledger
from dreamer_lite.agent import Dreamer
from dreamer_lite.envs import VectorEnv
from dreamer_lite.presets import Config
from dreamer_lite.replay import Replay
from dreamer_lite.training import make_envs, make_replay, pick_device

SIDE = 2048  # of the square matrices that tell the machine's rate
TICKS = 256  # rows per stream to sample from
LEAST = 0.05  # seconds that one measurement takes at least, so that the clock is fine enough
QUIET = 1.0  # seconds in which the bench waits and sees what others do
COMPANY = 0.2  # busy cores from which on the table warns
Parts = dict[str, Callable[[], object]]  # name -> what is timed


def measure(
    cfg: Config, env_id: str, *, device: str = "auto", repeats: int = 5, side: int = SIDE
) -> dict:
    """Times all parts of training under the settings `cfg`; a dictionary ready for JSON.

    FLOPs are nominal: the products of the readable layers, counted before `fast` replaces them. On
    CUDA also which share of an update the GPU is busy.
    """
    place, company = pick_device(device), others()
    fast.keep_freed_memory()
    world, agent, replay = build(cfg, env_id, place)
    parts = pieces(agent, replay) | {
        "acting": acting(agent, world),
        "environment": lambda: world.step(world.sample()),
    }
    flops = {name: count(part) for name, part in parts.items()}
    fast.accelerate(agent)
    if cuda := place.type == "cuda":
        fast_gpu.record(agent)
    rate = matmul_rate(place, side, repeats)
    seconds = {name: clock(part, place, repeats) for name, part in parts.items()}
    busy = {"gpu_busy": gpu_busy(parts["update"], seconds["update"], repeats)} if cuda else {}
    world.close()
    for numbers in (flops, seconds):  # actor-critic learns from dreams, so it is timed with them
        numbers["actor-critic"] = max(0, numbers.pop("behavior") - numbers["imagination"])
    return machine(place, company, repeats) | {
        "env": env_id,
        "settings": settings(agent),
        "matmul_gflops": rate / 1e9,
        "parts": {name: row(seconds[name], flops[name], rate) for name in ORDER},
        "steps_per_second": pace(cfg, seconds),
        "memory_gb": memory(place) / 1e9,
        **busy,
    }


# The rows of the table, in their order
ORDER = (
    *("world model", "imagination", "actor-critic", "optimizer", "update"),
    *("replay", "acting", "environment"),
)


def build(cfg: Config, env_id: str, device: torch.device) -> tuple[VectorEnv, Dreamer, Replay]:
    """Everything that training needs, and some random experience to train on."""
    torch.manual_seed(0)
    world = make_envs(cfg, env_id, cfg.envs, 0)
    agent = Dreamer(cfg, world.obs_spec, world.action_spec).to(device)
    replay = make_replay(cfg, world.obs_spec, world.action_spec.size, 0, device)
    row, state = world.reset(), agent.initial(cfg.envs)
    for _ in range(max(TICKS, cfg.replay.length + 1)):
        replay.add(row, state if cfg.replay.latents else None)
        row = world.step(world.sample())
    return world, agent, replay


# --- what is measured ----------------------------------------------------------------------------


def pieces(agent: Dreamer, replay: Replay) -> Parts:
    """The parts of one update, and the whole, on the same batch."""
    size = agent.cfg.replay.length, agent.cfg.replay.batch
    sample = replay.sample(*size)
    batch, start = sample.sequence, sample.start
    states = agent.world_model.loss(batch, start)[1].map(torch.Tensor.detach)
    flat, cont = states.map(lambda x: x.flatten(0, 1)), batch.cont.flatten()
    grads = {
        part: [torch.full_like(p, 1e-3) for p in o.params.values()]
        for part, o in agent.optimizers.items()
    }

    def learn_model() -> None:
        losses = agent.world_model.loss(batch, start)[0]
        differentiate(losses, agent.world_model)

    def imagine():
        return agent.behavior.dream(agent.world_model, flat, cont)

    def learn_behavior() -> None:
        dream = imagine()
        losses = agent.behavior.losses(dream)[0]
        if agent.cfg.behavior.critic.replay:
            bootstrap = dream.ret[0].unflatten(0, batch.reward.shape)
            losses["replay"] = agent.behavior.replay_loss(
                states, batch, bootstrap, agent.cfg.model.gamma
            )
        differentiate(losses, agent.behavior)

    def move() -> None:
        for part, optimizer in agent.optimizers.items():
            optimizer.step(grads[part])

    def fetch() -> None:
        fresh = replay.sample(*size)
        replay.write_back(fresh.where, states)

    return {
        "world model": learn_model,
        "imagination": imagine,
        "behavior": learn_behavior,
        "optimizer": move,
        "update": lambda: agent.update(batch, start),
        "replay": fetch,
    }


def differentiate(losses: dict[str, torch.Tensor], module: torch.nn.Module) -> None:
    """The backward pass of all losses, each [], into a module's parameters."""
    params = [p for p in module.parameters() if p.requires_grad]
    torch.autograd.grad(sum(losses.values()), params, allow_unused=True)


def acting(agent: Dreamer, world: VectorEnv) -> Callable[[], object]:
    """One tick of all streams."""
    row, state = world.reset(), agent.initial(world.num_envs)
    return lambda: agent.act(row, state)


def matmul_rate(device: torch.device, side: int, repeats: int) -> float:
    """FLOP per second of a float32 product of two square matrices, as PyTorch is set up."""
    a, b = torch.randn(2, side, side, device=device)
    return 2 * side**3 / clock(lambda: a @ b, device, repeats)


# --- how it is measured --------------------------------------------------------------------------


def clock(part: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Seconds per call: the median of `repeats` measurements after a warm-up."""
    part()
    calls = max(1, int(LEAST / max(elapsed(part, 1, device), 1e-9)))
    return median(elapsed(part, calls, device) / calls for _ in range(repeats))


def elapsed(part: Callable[[], object], calls: int, device: torch.device) -> float:
    """Seconds until `calls` calls have been computed, not merely queued."""
    wait(device)
    began = time.perf_counter()
    for _ in range(calls):
        part()
    wait(device)
    return time.perf_counter() - began


def wait(device: torch.device) -> None:
    """Until an accelerator has done all it was told."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def others() -> float:
    """How many cores other processes keep busy, seen while this one waits."""
    return (psutil.cpu_count() or 1) * psutil.cpu_percent(QUIET) / 100


def gpu_busy(part: Callable[[], object], seconds: float, calls: int) -> float | None:
    """The share of a call, which takes `seconds`, in which a CUDA GPU runs kernels or copies.

    None where PyTorch's profiler may not look into the GPU.
    """
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        for _ in range(calls):
            part()
        torch.cuda.synchronize()
    spans = [
        (event.time_range.start, event.time_range.end)
        for event in seen.events()
        if event.device_type == DeviceType.CUDA and not event.is_user_annotation
    ]
    return min(1.0, covered(spans) / 1e6 / calls / seconds) if spans else None


def covered(spans: list[tuple[float, float]]) -> float:
    """How much time is inside at least one of the spans (start, end), which may overlap."""
    total, until = 0.0, -math.inf
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


# --- work ----------------------------------------------------------------------------------------


def count(part: Callable[[], object]) -> int:
    """FLOPs of the matrix products and convolutions in one call; a multiply-add is two.

    Weights that meet the zeros around an image do no work. (PyTorch's own counter counts them.)
    """
    work = {
        torch.ops.aten.convolution: convolution_work,
        torch.ops.aten.convolution_backward: convolution_backward_work,
    }
    with FlopCounterMode(display=False, custom_mapping=work) as counter:
        part()
    return counter.get_total_flops()


def convolution_work(
    x, weight, _bias, stride, padding, dilation, transposed, *_, out_shape=None, **__
) -> int:
    """FLOPs of a convolution, from the shapes and options that `aten.convolution` gets.

    x [N,c,...], weight [c,o,...] or [o,c,...], out_shape [N,o,...]; c and o are those of a group.
    """
    large, small = (out_shape, x) if transposed else (x, out_shape)
    axes = zip(large[2:], weight[2:], stride, padding, dilation, small[2:], strict=True)
    return 2 * x[0] * weight[0] * weight[1] * math.prod(taps(*axis) for axis in axes)


def convolution_backward_work(grad, x, weight, _bias, *options, **_) -> int:
    """Each gradient that is asked for, of x or weight, repeats the products of the way there."""
    *options, wanted = options
    return sum(wanted[:2]) * convolution_work(x, weight, None, *options, out_shape=grad)


@cache
def taps(size: int, kernel: int, stride: int, padding: int, dilation: int, places: int) -> int:
    """How often, on one axis, a weight of a kernel at one of its places meets a pixel inside."""
    pairs = product(range(places), range(kernel))
    return sum(0 <= i * stride - padding + j * dilation < size for i, j in pairs)


# --- what is said --------------------------------------------------------------------------------


def machine(device: torch.device, company: float, repeats: int) -> dict:
    """What must stand beside every timing."""
    return {
        "hardware": ledger.hardware(device),
        "device": device.type,
        "threads": torch.get_num_threads(),
        "others": company,
        "versions": ledger.versions(),
        "commit": ledger.commit(),
        "repeats": repeats,
    }


def settings(agent: Dreamer) -> dict:
    """The sizes that determine the work."""
    replay, behavior = agent.cfg.replay, agent.cfg.behavior
    return {
        "parameters": sum(p.numel() for p in agent.parameters() if p.requires_grad),
        "batch": replay.batch,
        "length": replay.length,
        "horizon": behavior.horizon,
        "streams": agent.cfg.envs,
        "ratio": replay.ratio,
    }


def row(seconds: float, flops: int, rate: float) -> dict:
    """One part: time, calls per second, work, and the share of the machine's rate it reaches."""
    return {
        "ms": 1e3 * seconds,
        "per_second": 1 / seconds if seconds else None,
        "gflop": flops / 1e9,
        "percent": 100 * flops / seconds / rate if seconds and flops else None,
    }


def pace(cfg: Config, seconds: dict[str, float]) -> float:
    """Agent steps per second of training: a tick of all streams and the updates it earns."""
    updates = cfg.envs * cfg.replay.ratio / (cfg.replay.batch * cfg.replay.length)  # per tick
    tick = seconds["environment"] + seconds["acting"]
    return cfg.envs / (tick + updates * (seconds["update"] + seconds["replay"]))


def memory(device: torch.device) -> int:
    """The most bytes that tensors on a CUDA GPU have taken; elsewhere those of this process.

    The latter include the readable layers, whose work was counted.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return ledger.peak_memory()


def table(result: dict) -> str:
    """The numbers for people."""
    size = result["settings"]
    lines = [
        f"{result['hardware']}, device {result['device']}, {result['threads']} threads",
        f"{result['env']}: {size['parameters']:,} parameters, batch {size['batch']} x "
        f"{size['length']}, horizon {size['horizon']}, {size['streams']} streams",
        f"matrix product {result['matmul_gflops']:.0f} GFLOP/s in float32 (100 %)",
        "",
        f"{'part':<12} {'ms':>9} {'per s':>9} {'GFLOP':>9} {'%':>6}",
    ]
    lines += [line(name, numbers) for name, numbers in result["parts"].items()]
    lines += [
        "",
        f"training: {result['steps_per_second']:.1f} agent steps per second",
        f"memory: {result['memory_gb']:.2f} GB at most",
    ]
    if result.get("gpu_busy"):
        lines += [f"the GPU is busy during {result['gpu_busy']:.0%} of an update"]
    if result["others"] > COMPANY:
        lines += [
            f"WARNING: other processes kept {result['others']:.1f} cores busy before the start. "
            "This must run alone: repeat it when nothing else runs."
        ]
    return "\n".join(lines)


def line(name: str, numbers: dict) -> str:
    """One row of the table; a dash where there is nothing to say."""
    cells = [numbers[key] for key in ("ms", "per_second", "gflop", "percent")]
    cells[2] = cells[2] or None
    formats = ("9.2f", "9.1f", "9.3g", "6.1f")
    shown = [
        f"{x:{f}}" if x is not None else f"{'-':>{f.split('.')[0]}}"
        for x, f in zip(cells, formats, strict=True)
    ]
    return f"{name:<12} " + " ".join(shown)
