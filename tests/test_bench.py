"""Bench: counts what it times, and says what must be known beside a number."""

import itertools
import json
from dataclasses import replace

import pytest
import torch

from dreamer_lite import bench
from dreamer_lite.distributions import Categorical
from dreamer_lite.presets import TOY

SMALL = replace(
    TOY,
    envs=2,
    model=replace(TOY.model, deter=16, hidden=8, units=8, latent=Categorical(2, 3, unimix=0.01)),
    behavior=replace(TOY.behavior, horizon=3),
    replay=replace(TOY.replay, length=8, batch=4, capacity=1000),
)
CPU = torch.device("cpu")


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
    quiet, busy = result | {"load_before": 0.1}, result | {"load_before": 1.7}
    assert all(name in bench.table(quiet) for name in bench.ORDER)
    assert "WARNING" not in bench.table(quiet)
    assert "load average was 1.7" in bench.table(busy) and "run alone" in bench.table(busy)


def test_a_multiply_add_counts_as_two():
    a, b = torch.zeros(3, 5), torch.zeros(5, 7)
    assert bench.count(lambda: a @ b) == 2 * 3 * 5 * 7


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
