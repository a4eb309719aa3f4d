"""Bench: counts what it times, and says what must be known beside a number."""

import itertools
import json
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny
import torch
from torch import nn
from torch.autograd import DeviceType

from dreamer_lite import bench
from dreamer_lite.distributions import Categorical
from dreamer_lite.fast_gpu import mapped
from dreamer_lite.presets import TOY, V3, sized
from dreamer_lite.spaces import ActionSpec

SMALL = replace(
    TOY,
    envs=2,
    model=replace(TOY.model, deter=16, hidden=8, units=8, latent=Categorical(2, 3, unimix=0.01)),
    behavior=replace(TOY.behavior, horizon=3),
    replay=replace(TOY.replay, length=8, batch=4, capacity=1000),
)
CPU = torch.device("cpu")
RGB = {"image": (64, 64, 3)}


@pytest.fixture(scope="module")
def result():
    return bench.measure(SMALL, "dreamer_lite/MiniPong-v0", device="cpu", repeats=1, side=64)


def test_all_parts_take_time_and_all_is_json(result):
    assert tuple(result["parts"]) == bench.ORDER
    assert all(part["ms"] >= 0 for part in result["parts"].values())
    assert result["parts"]["update"]["ms"] > 0 and result["matmul_gflops"] > 0
    assert json.loads(json.dumps(result)) == result


def test_the_machine_and_the_settings_are_beside_the_numbers(result):
    assert result["threads"] == torch.get_num_threads() and result["hardware"]
    size = result["settings"]
    assert (size["batch"], size["length"], size["horizon"], size["streams"]) == (4, 8, 3, 2)
    assert size["parameters"] > 1000 and result["versions"]["torch"]


def test_the_parts_of_an_update_do_the_work_of_the_whole(result):
    work = {name: part["gflop"] for name, part in result["parts"].items()}
    parts = work["world model"] + work["imagination"] + work["actor-critic"]
    assert parts == pytest.approx(work["update"], rel=0.05)
    assert work["environment"] == work["replay"] == 0


def test_the_table_shows_every_part_and_warns_of_company(result):
    quiet, busy = result | {"others": 0.1}, result | {"others": 1.7}
    assert all(name in bench.table(quiet) for name in bench.ORDER)
    assert "WARNING" not in bench.table(quiet)
    assert "kept 1.7 cores busy" in bench.table(busy) and "run alone" in bench.table(busy)


def test_company_is_what_others_do_while_this_process_waits(monkeypatch):
    monkeypatch.setattr(bench.psutil, "cpu_count", lambda: 8)
    monkeypatch.setattr(bench.psutil, "cpu_percent", lambda wait: {bench.QUIET: 25.0}[wait])
    assert bench.others() == 2.0


def test_memory_is_stated_and_the_gpus_share_only_where_there_is_one(result):
    assert 0.05 < result["memory_gb"] < 50 and "GB at most" in bench.table(result)
    assert "gpu_busy" not in result and "GPU is busy" not in bench.table(result)
    assert "busy during 93 % of" in bench.table(result | {"gpu_busy": 0.93}).replace("%", " %")
    assert "GPU is busy" not in bench.table(result | {"gpu_busy": None})


def test_time_that_two_kernels_share_counts_once():
    assert bench.covered([(5, 6), (0, 2), (1, 4), (1, 3)]) == 5
    assert bench.covered([]) == 0


def seen_kernels(monkeypatch, *events):
    """The profiler of a machine with a GPU, which has seen these (device, start, end, label)."""
    made = [
        SimpleNamespace(
            device_type=device, time_range=SimpleNamespace(start=a, end=b), is_user_annotation=label
        )
        for device, a, b, label in events
    ]
    seen = SimpleNamespace(events=lambda: made)
    monkeypatch.setattr(bench, "profile", lambda activities: nullcontext(seen))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)


def test_a_gpu_is_busy_while_kernels_run(monkeypatch):
    calls, gpu, cpu = [], DeviceType.CUDA, DeviceType.CPU
    events = (gpu, 0, 3e5, False), (cpu, 0, 9e5, False), (gpu, 0, 9e5, True), (gpu, 4e5, 5e5, False)
    seen_kernels(monkeypatch, *events)
    busy = bench.gpu_busy(lambda: calls.append(1), seconds=0.4, calls=2)
    assert busy == pytest.approx(0.4 / 2 / 0.4) and len(calls) == 2  # 0.4 s of kernels in 2 calls
    seen_kernels(monkeypatch)
    assert bench.gpu_busy(lambda: None, seconds=0.4, calls=2) is None


def test_a_multiply_add_counts_as_two():
    a, b = torch.zeros(3, 5), torch.zeros(5, 7)
    assert bench.count(lambda: a @ b) == 2 * 3 * 5 * 7


CONVOLUTIONS = {  # one axis: pixels, layer -> how often a weight meets a pixel
    "inside": (5, nn.Conv1d(1, 1, 3), 9),
    "padded": (4, nn.Conv1d(1, 1, 3, padding=1), 10),  # 2 + 3 + 3 + 2
    "in strides": (5, nn.Conv1d(1, 1, 3, stride=2, padding=1), 7),  # 2 + 3 + 2
    "dilated": (4, nn.Conv1d(1, 1, 3, padding=2, dilation=2), 8),  # 4 · 3 less two on each side
    "transposed": (3, nn.ConvTranspose1d(1, 1, 3), 9),
    "transposed and cropped": (3, nn.ConvTranspose1d(1, 1, 4, 2, 1), 10),  # 3 + 4 + 3
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_weight_that_meets_padding_does_no_work(name):
    size, layer, taps = CONVOLUTIONS[name]
    x = torch.zeros(1, 1, size, requires_grad=True)
    assert bench.count(lambda: layer(x)) == 2 * taps
    assert bench.count(lambda: layer(x).sum().backward()) == 3 * 2 * taps  # y, and both gradients
    assert bench.count(lambda: layer(x.detach()).sum().backward()) == 2 * 2 * taps


def test_every_pair_of_channels_works_in_every_image():
    x = torch.zeros(7, 4, 3, 4)  # 3×4 pixels under 3×3 weights: 7 · 10 pairs inside
    assert bench.count(lambda: nn.Conv2d(4, 6, 3, padding=1)(x)) == 2 * 7 * 4 * 6 * 70
    assert bench.count(lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2)(x)) == 7 * 4 * 6 * 70
    turned = nn.ConvTranspose2d(4, 6, 3, padding=1, groups=2)
    assert bench.count(lambda: turned(x)) == 7 * 4 * 6 * 70


def test_the_step_that_is_compared_with_others_has_the_work_that_the_book_states():
    """V3 at 1m, 64×64 RGB, 16×64, horizon 15: here a sixteenth, on a device that only counts."""
    agent = tiny.agent(ActionSpec(discrete=(18,)), RGB, sized(V3, "1m")).to("meta")
    agent.build_optimizers()
    agent.behavior.slow.module.to("meta")
    batch = mapped(lambda x: x.to("meta"), tiny.batch(agent.action, RGB, time=4, size=16))
    assert 16 * bench.count(lambda: agent.update(batch)) == pytest.approx(99.2e9, rel=0.01)


def test_the_machines_rate_is_that_of_a_square_product(monkeypatch):
    monkeypatch.setattr(bench, "clock", lambda *_: 2.0)
    assert bench.matmul_rate(CPU, side=8, repeats=1) == 2 * 8**3 / 2.0


def test_nothing_is_timed_before_it_is_warm(monkeypatch):
    calls, measured = [], []
    monkeypatch.setattr(bench, "elapsed", lambda part, n, _: measured.append(n) or len(measured))
    assert bench.clock(lambda: calls.append(1), CPU, repeats=3) == 3.0  # median of 2, 3, 4
    assert len(calls) == 1 and measured == [1, 1, 1, 1]


def test_short_parts_are_called_often_enough_for_the_clock(monkeypatch):
    ticks, calls = itertools.count(), []
    monkeypatch.setattr(bench.time, "perf_counter", lambda: next(ticks) / 64)
    monkeypatch.setattr(bench, "LEAST", 0.5)
    seconds = bench.clock(lambda: calls.append(1), CPU, repeats=3)
    assert len(calls) == 1 + 1 + 3 * 32, "warm-up, first look, and three times half a second"
    assert seconds == 1 / 64 / 32


def test_the_share_of_the_machines_rate():
    part = bench.row(seconds=0.5, flops=10**9, rate=8e9)
    assert part == {"ms": 500.0, "per_second": 2.0, "gflop": 1.0, "percent": 25.0}
    assert bench.row(0.5, 0, 8e9)["percent"] is None


def test_the_speed_of_training_follows_from_its_parts():
    seconds = {"environment": 0.5, "acting": 0.25, "update": 1.0, "replay": 0.25}
    cfg = replace(SMALL, replay=replace(SMALL.replay, ratio=16.0))
    # a tick of 2 streams earns 2 · 16 replayed steps, one update of 4 · 8
    assert bench.pace(cfg, seconds) == pytest.approx(2 / (0.75 + 1.25))
