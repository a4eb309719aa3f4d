"""Several processes are one run: the same gradient, one diary, one checkpoint, one end."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import psutil
import pytest
import ranks
import torch
from safetensors.torch import load_file

from dreamer_lite import checkpoint, distributed, ledger, parcel, parts, training
from dreamer_lite import replay as replay_module
from dreamer_lite.logger import Logger, read_metrics
from dreamer_lite.presets import V2
from dreamer_lite.replay import Damaged, LatentSpec, Replay
from dreamer_lite.rssm import State

HERE = Path(__file__).parent
PATIENCE = 300  # seconds; a busy machine is slow


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# Alone


def test_a_single_process_is_rank_0_of_1_and_exchanges_nothing():
    x, grads = torch.randn(3), {"model": [torch.randn(2)]}
    assert (distributed.rank(), distributed.size(), distributed.leads()) == (0, 1, True)
    assert distributed.mean_over_ranks(x) is x and distributed.gather_over_ranks(x) is x
    assert distributed.average(grads) is grads and distributed.gathered(x) == [x]
    assert distributed.largest(2.5) == 2.5 and distributed.launcher() == "dreamer-lite"


def test_a_process_that_nobody_else_was_started_with_joins_no_group(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    with distributed.group(torch.device("cpu")):
        assert not torch.distributed.is_initialized()


def test_several_processes_are_refused_where_they_cannot_talk(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="device must be cpu or cuda, got mps"):
        with distributed.group(torch.device("mps")):
            pass
    with pytest.raises(ValueError, match="at most 1, the GPUs here, got 2 or more"):
        distributed.take_gpu(1, 1)


@contextmanager
def playing(rank, size):
    """As if this process were one of several; nothing can be exchanged."""
    with (
        mock.patch.object(distributed, "size", lambda: size),
        mock.patch.object(distributed, "rank", lambda: rank),
        mock.patch.object(distributed, "largest", lambda x: x),
    ):
        yield


def test_every_process_has_its_share_of_streams_sequences_and_memory():
    with playing(1, 2):
        own = training.share(ranks.SMALL)
    assert (own.envs, own.replay.batch, own.replay.capacity) == (2, 2, 100)
    assert replace(own, envs=4, replay=ranks.SMALL.replay) == ranks.SMALL


def test_what_cannot_be_divided_is_refused():
    with (
        playing(0, 2),
        pytest.raises(ValueError, match="envs must be a multiple of the 2 .* got 1"),
    ):
        training.share(V2)
    with playing(0, 8), pytest.raises(ValueError, match="replay.batch must be a multiple of the 8"):
        training.share(replace(ranks.SMALL, envs=8))


def test_seeds_differ_between_processes_and_between_lives_but_the_first_keeps_the_runs():
    seeds = {}
    for rank in range(3):
        with playing(rank, 3):
            seeds |= {(rank, step): parts.seed(17, step) for step in (0, 100)}
    assert seeds[0, 0] == 17 and len(set(seeds.values())) == 6


def test_the_command_of_a_run_says_how_many_processes_it_had(monkeypatch):
    options = {"env": "ALE/Boxing-v5", "steps": 8, "seed": 0}
    with playing(0, 8):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
        record = ledger.describe(ranks.SMALL, "run", options, ranks.CPU)
    start = "torchrun --nnodes=2 --nproc-per-node=4 -m dreamer_lite train toy"
    assert record["command"].startswith(start) and record["processes"] == 8


def test_a_line_of_metrics_is_the_mean_over_all_processes(tmp_path, monkeypatch):
    log = Logger(tmp_path, 100, progress=False)
    log.add("loss", 1.0)
    other = {"sums": {"loss": 8.0, "score": 5.0}, "counts": {"loss": 2, "score": 1}}
    monkeypatch.setattr("dreamer_lite.logger.gathered", lambda state: [state, other])
    assert log.pooled()["sums"] == {"loss": 9.0, "score": 5.0}
    log.write(1, 1)
    (row,) = read_metrics(tmp_path)
    assert (row["loss"], row["score"]) == (3.0, 5.0)


# A replay that is divided anew


def lived(streams, first, total=41, size=32):
    """A replay in which every number says stream and row."""
    replay = Replay(size * streams, streams, {"vector": (2,)}, 1, latent=LatentSpec(3, 2, 4))
    for row in range(total):
        stream = np.arange(first, first + streams)
        number = (1000.0 * stream + row).astype(np.float32)
        flags = np.zeros(streams, bool)
        vector = np.stack([number, -number], 1)
        z = torch.nn.functional.one_hot(torch.as_tensor((stream[:, None] + row) % 4), 4)
        z = torch.cat([z, z], -1).flatten(1).float()
        h = torch.as_tensor(stream + row / 64)[:, None].expand(-1, 3).float()
        values = {"obs": {"vector": vector}, "prev_action": vector[:, :1], "reward": number}
        replay.add(mock.Mock(**values, cont=~flags, is_first=flags), State(h, z))
    replay.fresh[:] = 10 + np.arange(first, first + streams)
    return replay


def stored(root, count, streams=4):
    """A run folder with the replay of `streams` streams, saved by `count` processes."""
    folder = root / "checkpoints/0000000001"
    for rank in range(count):
        name = parts.name(rank, count)
        (folder / name).mkdir(parents=True)
        share = lived(streams // count, rank * streams // count)
        share.save(root / "replay" / name, folder / name)
    return folder


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(replay_module, "CHUNK", 8)


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 4), (4, 2), (2, 2)])
def test_the_replay_of_any_number_of_processes_serves_any_other(
    small_chunks, tmp_path, before, after
):
    folder = stored(tmp_path, before)
    for rank in range(after):
        streams = 4 // after
        replay = Replay(32 * streams, streams, {"vector": (2,)}, 1, latent=LatentSpec(3, 2, 4))
        with playing(rank, after):
            parts.load(replay, tmp_path, folder)
        expected = lived(streams, rank * streams)
        for name, column in (expected.rows | expected.latents).items():
            assert np.array_equal((replay.rows | replay.latents)[name], column), name
        assert (replay.total, replay.oldest) == (41, 9)
        assert np.array_equal(replay.fresh, expected.fresh)
        assert bool(replay.chunks) == (before == after), "what another number wrote is not ours"


def test_a_packed_run_has_the_streams_of_all_processes(small_chunks, tmp_path):
    whole = parts.whole(tmp_path, stored(tmp_path, 2))
    expected = lived(4, 0)
    assert all(np.array_equal(whole.rows[k], x) for k, x in expected.rows.items())


def test_rows_are_kept_as_long_as_a_checkpoint_of_their_processes_needs_them(
    small_chunks, tmp_path
):
    folder = stored(tmp_path, 2)
    lived(4, 0).save(tmp_path / "replay", tmp_path)  # rows of one process, but no checkpoint
    parts.tidy(tmp_path)
    kept = {p.relative_to(tmp_path / "replay").as_posix() for p in tmp_path.rglob("*chunk*")}
    assert kept == {f"{i}of2/chunk-{k:06d}.safetensors" for i in (1, 2) for k in range(1, 5)}
    shutil.rmtree(folder)
    parts.tidy(tmp_path)
    assert not list(tmp_path.rglob("*chunk*"))


def test_damage_that_another_process_finds_counts_for_all(small_chunks, tmp_path, monkeypatch):
    folder = stored(tmp_path, 2)
    replay = lived(2, 0)
    with playing(0, 2):
        parts.load(replay, tmp_path, folder)
        monkeypatch.setattr(distributed, "largest", lambda x: True)
        with pytest.raises(Damaged, match="another process finds its part"):
            parts.load(replay, tmp_path, folder)


# Two processes


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(args, **env):
    """A process with one thread whose output can be read."""
    variables = os.environ | {"OMP_NUM_THREADS": "1"} | env
    return subprocess.Popen(
        [sys.executable, *map(str, args)], env=variables, text=True, cwd=HERE,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def pair(folder):
    """Both processes of ranks.py; returns what each of them saved."""
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    shared["MASTER_PORT"] = str(free_port())
    started = [
        start(["ranks.py", folder], RANK=str(r), LOCAL_RANK=str(r), **shared) for r in (0, 1)
    ]
    for process in started:
        text = process.communicate(timeout=PATIENCE)[0]
        assert process.returncode == 0, text
    return [torch.load(folder / f"rank{r}.pt") for r in (0, 1)]


def kill_one(logdir):
    """A run by torchrun, one of whose processes is killed after its first checkpoint."""
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    words = [str(logdir) if word == "LOGDIR" else word for word in ranks.COMMAND]
    launcher = start([*command, "dreamer_lite", *words, "--save-minutes", "0"])
    until(lambda: checkpoint.folders(logdir / "checkpoints"), launcher)
    second = [p for p in psutil.Process(launcher.pid).children() if p.environ()["RANK"] == "1"]
    second[0].send_signal(signal.SIGKILL)
    text = launcher.communicate(timeout=PATIENCE)[0]
    return launcher.returncode, text, checkpoint.load(logdir)[1]["step"]


def until(condition, process):
    """Waits for something that `process` does."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Everything that needs two processes, done once."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("two")
    ranks.go(root / "alone", 200)
    killed = kill_one(root / "killed")
    return root, killed, pair(root)


def newest(logdir):
    return checkpoint.folders(logdir / "checkpoints")[0]


def diary(logdir):
    return [{k: v for k, v in row.items() if k != "hours"} for row in read_metrics(logdir)]


@pytest.mark.slow
def test_the_gradient_of_two_halves_is_that_of_the_whole_batch(two):
    for name, cfg in ranks.cases().items():
        expected, _ = ranks.gradients(cfg, ranks.rows())
        halves = [ranks.gradients(cfg, ranks.half(ranks.rows(), r))[0] for r in (0, 1)]
        alone = {k: (halves[0][k] + halves[1][k]) / 2 for k in expected}
        assert unlike(alone, expected, 1e-3), f"{name}: the test would not notice"
        first, second = (rank["gradients"][name] for rank in two[2])
        assert unlike(first, expected, 2e-4) == [], name  # torch 2.11 rounds to 8e-5
        assert all(torch.equal(g, second[k]) for k, g in first.items())


def unlike(got, expected, share):
    """Parameters whose gradient is off by more than a share of its size."""
    least = 1e-7 * max(g.norm() for g in expected.values())
    return [k for k, g in expected.items() if (got[k] - g).norm() > share * g.norm() + least]


@pytest.mark.slow
def test_both_processes_end_with_the_same_weights(two):
    for name in ("whole", "killed", "alone"):
        first, second = (rank["weights"][name] for rank in two[2])
        assert all(torch.equal(x, second[k]) for k, x in first.items())


@pytest.mark.slow
def test_metrics_are_written_once_and_steps_count_all_streams(two):
    rows = diary(two[0] / "whole")
    assert [row["step"] for row in rows] == list(range(0, ranks.STEPS + 1, 40))
    assert rows[-1]["update"] == (ranks.STEPS - 64 + 4) * 4 // (4 * 8)
    assert ledger.read(two[0] / "whole")["processes"] == 2


@pytest.mark.slow
def test_each_process_has_its_own_streams_and_draws_its_own_numbers(two):
    replay = parts.whole(two[0] / "whole", newest(two[0] / "whole"))
    images = replay.rows["obs/image"]
    assert images.shape[1] == 4
    assert len({images[:, i].tobytes() for i in range(4)}) == 4


@pytest.mark.slow
def test_a_killed_process_ends_the_job_and_says_how_to_go_on(two):
    code, text, step = two[1]
    assert code != 0 and 0 < step < ranks.STEPS
    assert "dreamer-lite: another process of this run is gone" in text
    assert "the run goes on from its newest checkpoint" in text and "exitcode  : -9" in text


@pytest.mark.slow
def test_a_run_that_lost_a_process_goes_on_bit_for_bit(two):
    whole, killed = two[0] / "whole", two[0] / "killed"
    assert ledger.read(killed)["resumed"][0]["step"] == two[1][2]
    assert diary(whole) == diary(killed)
    for name in ("", "1of2", "2of2"):
        a, b = (load_file(newest(d) / name / "tensors.safetensors") for d in (whole, killed))
        assert a.keys() == b.keys() and [k for k in a if not torch.equal(a[k], b[k])] == []
        if name:
            a, b = (load_file(newest(d) / name / "replay.safetensors") for d in (whole, killed))
            assert [k for k in a if not torch.equal(a[k], b[k])] == []


@pytest.mark.slow
def test_two_processes_go_on_with_the_run_of_one(two):
    logdir = two[0] / "alone"
    record, rows = ledger.read(logdir), diary(logdir)
    assert record["resumed"][0]["step"] == 200 and record["resumed"][0]["processes"] == 2
    assert [row["step"] for row in rows] == [*range(0, ranks.STEPS + 81, 40)]
    assert record["status"] == "complete"


@pytest.mark.slow
def test_one_process_goes_on_with_the_run_of_two(two, tmp_path):
    shutil.copytree(two[0] / "whole", tmp_path / "run")
    before = parts.whole(tmp_path / "run", newest(tmp_path / "run"))
    trained = ranks.go(tmp_path / "run", ranks.STEPS + 4 * 10)
    after = parts.whole(tmp_path / "run", newest(tmp_path / "run"))
    assert parts.names(newest(tmp_path / "run")) == [""]
    assert after.total == before.total + 10
    kept = np.arange(after.oldest, before.total) % after.size
    assert all(np.array_equal(x[kept], after.rows[k][kept]) for k, x in before.rows.items())
    assert after.rows["is_first"][before.total % after.size].all(), "new episodes begin"
    assert trained.updates == 5 + two_updates(two)


def two_updates(two):
    return checkpoint.load(two[0] / "whole")[1]["updates"]


@pytest.mark.slow
def test_the_run_of_two_processes_travels_in_one_file(two, tmp_path):
    assert parcel.pack(two[0] / "whole", tmp_path / "run.zip") == ranks.STEPS
    parcel.unpack(tmp_path / "run.zip", tmp_path / "run")
    ranks.go(tmp_path / "run", ranks.STEPS + 8)
    assert diary(tmp_path / "run")[-1]["step"] == ranks.STEPS + 8
