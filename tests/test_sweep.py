"""A sweep: every run ends, wherever its machine went, and none begins twice."""

import builtins
import json
import os
import socket
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from dreamer_lite import checkpoint, cli, ledger, sweep
from dreamer_lite.distributions import Categorical
from dreamer_lite.logger import read_metrics
from dreamer_lite.presets import TOY, to_dict
from dreamer_lite.sweep import Job, Mirror, Plan, Store, Superseded, jobs, stamps
from dreamer_lite.training import train

CATCH = "dreamer_lite/FlickerCatch-v0"
SMALL = replace(
    TOY,
    envs=2,
    model=replace(TOY.model, deter=16, hidden=8, units=8, latent=Categorical(2, 3, unimix=0.01)),
    behavior=replace(TOY.behavior, horizon=3),
    replay=replace(TOY.replay, length=8, batch=2, warmup=64, ratio=2.0, capacity=240),
)
JOB = Job("small", to_dict(SMALL), CATCH, 3)
PLAN = Plan(steps=120, episodes=2, log_every=40, sync_seconds=60.0, save_minutes=0.0)


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def mirror(store, folder, attempt=1, name=JOB.name):
    """A mirror that calls the store directly."""
    return Mirror(lambda method, *args: getattr(store, method)(name, attempt, *args), folder)


def content(folder):
    return {path: (folder / path).read_bytes() for path in stamps(folder)}


def fill(folder, files):
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


# Jobs


def test_all_combinations_are_jobs_and_the_first_seeds_come_first():
    made = jobs({"a": TOY, "b": SMALL}, ["x/One-v0", "Two-v1"], [5, 6])
    assert [j.name for j in made][:5] == [
        "a-One-v0-s5", "a-Two-v1-s5", "b-One-v0-s5", "b-Two-v1-s5", "a-One-v0-s6",
    ]  # fmt: skip
    assert len(made) == 8 and made[2].config == to_dict(SMALL)


def test_two_runs_of_one_name_are_refused():
    with pytest.raises(ValueError, match="runs of different names, got a-One-v0-s5"):
        jobs({"a": TOY}, ["x/One-v0", "y/One-v0"], [5])
    with pytest.raises(ValueError, match="at least one"):
        jobs({"a": TOY}, [], [5])


def test_a_plan_that_trains_nothing_is_refused():
    with pytest.raises(ValueError, match="steps must be at least 1"):
        Plan(steps=0)
    with pytest.raises(ValueError, match="gpus must be at least 0"):
        Plan(steps=1, gpus=-1)


# Copies


def test_a_push_copies_what_is_new_and_removes_what_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "PIECE", 4)
    store, here = Store(str(tmp_path / "out")), tmp_path / "here"
    copy = mirror(store, here)
    copy.fetch()
    fill(here, {"run.json": "twelve bytes", "checkpoints/01/state.json": "", "replay/a": "rows"})
    assert copy.push()
    assert content(tmp_path / "out" / JOB.name) == content(here)
    fill(here, {"run.json": "other", "checkpoints/02/state.json": "2"})
    (here / "checkpoints/01/state.json").unlink()
    assert copy.push()
    assert content(tmp_path / "out" / JOB.name) == content(here)
    assert not (tmp_path / "out" / JOB.name / "checkpoints/01").exists()


def test_a_file_that_did_not_change_travels_once(tmp_path):
    store, here, asked = Store(str(tmp_path / "out")), tmp_path / "here", []

    def ask(method, *args):
        asked.append((method, *args[:1]))
        return getattr(store, method)(JOB.name, 1, *args)

    copy = Mirror(ask, here)
    copy.fetch()
    fill(here, {"replay/chunk": "rows", "metrics.jsonl": "{}\n"})
    copy.push()
    copy.push()
    fill(here, {"metrics.jsonl": "{}\n{}\n"})
    copy.push()
    sent = [path for method, path in (a for a in asked if a[0] == "put")]
    assert sent == ["replay/chunk", "metrics.jsonl", "metrics.jsonl"]
    assert [a[0] for a in asked].count("commit") == 2


def test_what_is_not_complete_is_not_copied(tmp_path):
    fill(
        tmp_path, {"checkpoints/.tmp-01/x": "", "run.json": "", ".tmp-run.json": "", "replay/a": ""}
    )
    assert list(stamps(tmp_path)) == ["replay/a", "run.json"]


def test_checkpoints_are_listed_before_the_rows_they_need_and_the_diary_is_last(tmp_path):
    fill(tmp_path, {"metrics.jsonl": "", "run.json": "", "checkpoints/01/x": "", "a/b": ""})
    assert list(stamps(tmp_path)) == ["checkpoints/01/x", "a/b", "run.json", "metrics.jsonl"]


def test_a_file_that_vanishes_while_it_is_copied_changes_nothing(tmp_path, monkeypatch):
    store, here = Store(str(tmp_path / "out")), tmp_path / "here"
    copy = mirror(store, here)
    copy.fetch()
    fill(here, {"checkpoints/01/a": "1", "checkpoints/01/b": "1"})
    copy.push()
    before = content(tmp_path / "out" / JOB.name)
    fill(here, {"checkpoints/02/a": "2", "checkpoints/02/b": "2"})
    send = copy.send

    def losing(path):
        if path == "checkpoints/02/b":
            (here / path).unlink()
        send(path)

    monkeypatch.setattr(copy, "send", losing)
    assert not copy.push()
    assert content(tmp_path / "out" / JOB.name) == before
    monkeypatch.undo()
    (here / "checkpoints/02/a").unlink()
    assert copy.push() and content(tmp_path / "out" / JOB.name) == before


def test_whenever_a_copy_stops_a_checkpoint_is_complete_or_not_vouched_for(tmp_path, monkeypatch):
    store, here = Store(str(tmp_path / "out")), tmp_path / "here"
    copy = mirror(store, here)
    copy.fetch()
    old = {f"checkpoints/01/{name}": "1" for name in ("state.json", "tensors", "replay")}
    new = {f"checkpoints/02/{name}": "2" for name in ("state.json", "tensors", "replay")}
    fill(here, old)
    copy.push()
    fill(here, new)
    for path in old:
        (here / path).unlink()
    moves, replace_ = [], os.replace

    def stopping(source, target):
        if len(moves) == 2:
            raise OSError("power cut")
        moves.append(target.name)
        replace_(source, target)

    monkeypatch.setattr(os, "replace", stopping)
    with pytest.raises(OSError, match="power cut"):
        copy.push()
    assert set(old) < set(stamps(tmp_path / "out" / JOB.name)), "the old one is still there"
    assert "state.json" not in moves
    monkeypatch.undo()
    assert copy.push()
    assert content(tmp_path / "out" / JOB.name) == content(here)


def test_a_later_attempt_finds_the_copy_and_the_earlier_one_may_write_no_more(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(sweep, "PIECE", 5)
    store = Store(str(tmp_path / "out"))
    first, second = (mirror(store, tmp_path / str(i), attempt=i) for i in (1, 2))
    first.fetch()
    fill(first.folder, {"a/b": "more than five bytes", "empty": ""})
    first.push()
    second.fetch()
    assert content(second.folder) == content(first.folder)
    fill(first.folder, {"late": "x"})
    with pytest.raises(Superseded):
        first.push()
    fill(second.folder, {"c": "y"})
    second.push()
    assert list(stamps(tmp_path / "out" / JOB.name)) == ["a/b", "c", "empty"]


def test_copies_are_made_while_something_else_is_done_and_a_failure_is_said(tmp_path, capsys):
    store, here = Store(str(tmp_path / "out")), tmp_path / "here"
    copy = mirror(store, here)
    copy.fetch()
    with copy.pushing(0.01):
        fill(here, {"a": "x"})
        until(lambda: (tmp_path / "out" / JOB.name / "a").exists())
        store.attempts[JOB.name] = 9
        fill(here, {"b": "x"})
        until(lambda: "here was not copied: attempt 1" in capsys.readouterr().err)


def until(condition, patience=120):
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# One run


def test_a_run_that_moved_ends_like_one_that_stayed(tmp_path):
    train(
        SMALL, CATCH, 120, tmp_path / "stayed", seed=3, device="cpu", progress=False, log_every=40
    )
    store = Store(str(tmp_path / "out"))
    sweep.run(JOB, replace(PLAN, steps=80), mirror(store, tmp_path / "a" / JOB.name))
    assert sweep.read_result(tmp_path / "out" / JOB.name)["steps"] == 80
    sweep.run(JOB, PLAN, mirror(store, tmp_path / "b" / JOB.name, attempt=2))
    out = tmp_path / "out" / JOB.name
    newest = [checkpoint.folders(d / "checkpoints")[0] for d in (tmp_path / "stayed", out)]
    stayed, moved = (load_file(folder / "tensors.safetensors") for folder in newest)
    assert [k for k, x in stayed.items() if not torch.equal(x, moved[k])] == []
    rows = [[r["step"] for r in read_metrics(d)] for d in (tmp_path / "stayed", out)]
    assert rows[0] == rows[1] and sweep.last_step(out) == 120
    result = sweep.read_result(out)
    assert result["steps"] == 120 and len(result["episodes"]) == 2
    assert result["score"] == sum(result["episodes"]) / 2
    record = ledger.read(out)
    assert record["name"] == JOB.name and record["resumed"][0]["step"] == 80


def test_the_step_of_a_run_is_that_of_its_newest_whole_line(tmp_path):
    assert sweep.last_step(tmp_path) == 0
    fill(tmp_path, {"metrics.jsonl": '{"step": 5}\n{"step": 9}\n{"st'})
    assert sweep.last_step(tmp_path) == 9


# Handing out


class Lost(Exception):
    """What Ray raises when a machine is gone."""


class Refused(Lost, ValueError):
    """What Ray raises when the task raised a ValueError."""


class FakeRay:
    """Tasks that end as the test says: one action for each attempt."""

    exceptions = SimpleNamespace(RayError=Lost)

    def __init__(self, *script):
        self.script, self.asked = list(script), []

    def remote(self, **options):
        self.options = options
        return lambda function: SimpleNamespace(remote=self.submit)

    def submit(self, job, plan, attempt, store):
        self.asked.append((job.name, attempt))
        return len(self.asked)

    def wait(self, refs, timeout):
        return refs[:1], refs[1:]

    def get(self, ref):
        self.script.pop(0)()


def handing_out(tmp_path, monkeypatch, *script, **changes):
    monkeypatch.setattr(sweep, "store_here", lambda ray, out: None)
    ray = FakeRay(*script)
    made = sweep.Sweep(ray, replace(PLAN, **changes), tmp_path, progress=False)
    made.run([JOB])
    lines = (tmp_path / "sweep.jsonl").read_text().splitlines()
    return made, ray, [json.loads(line) for line in lines]


def lose(folder=None, step=0):
    """The machine is lost, after a checkpoint arrived."""

    def end():
        if step:
            (folder / JOB.name / "checkpoints" / f"{step:010d}").mkdir(parents=True)
        raise Lost("the node died\nwith much advice")

    return end


def refuse():
    raise Refused("Traceback\nValueError: size must be one of 1m, got 9")


def done():
    pass


def test_a_lost_run_goes_on_and_its_story_is_kept(tmp_path, monkeypatch):
    script = lose(tmp_path, 40), lose(tmp_path, 80), done
    made, ray, lines = handing_out(tmp_path, monkeypatch, *script)
    assert ray.asked == [(JOB.name, 1), (JOB.name, 2), (JOB.name, 3)] and not made.failed
    assert [line["event"] for line in lines] == [
        "lost, goes on from step 40", "lost, goes on from step 80", "done",
    ]  # fmt: skip
    assert [line["began_at"] for line in lines] == [0, 40, 80]
    assert lines[0]["reason"] == "Lost: the node died"


def test_a_run_is_given_up_when_it_gets_no_further(tmp_path, monkeypatch):
    script = lose(), lose(tmp_path, 40), lose(), lose(), lose()
    made, ray, lines = handing_out(tmp_path, monkeypatch, *script, retries=2)
    assert len(ray.asked) == 5 and made.failed == {JOB.name: "Lost: the node died"}
    assert lines[-1]["event"] == "failed"


def test_a_mistake_is_not_repeated(tmp_path, monkeypatch):
    made, ray, _ = handing_out(tmp_path, monkeypatch, refuse)
    assert len(ray.asked) == 1 and "Refused: Traceback" in made.failed[JOB.name]


def test_a_run_occupies_what_the_plan_says(tmp_path, monkeypatch):
    _, ray, _ = handing_out(tmp_path, monkeypatch, done, cpus=4, gpus=0.5, memory=2)
    expected = {"num_cpus": 4, "num_gpus": 0.5, "memory": 2_000_000_000}
    assert ray.options == expected | {"max_calls": 1, "max_retries": 0}


# The whole


def finish(out, job=JOB, steps=120, score=1.5):
    text = json.dumps({"steps": steps, "score": score})
    metrics = '{"step": 120, "episode/score": 1.0}\n'
    files = {"result.json": text, "config.json": json.dumps(job.config), "metrics.jsonl": metrics}
    fill(out / job.name, files)


def test_what_has_a_result_is_not_run_again_and_needs_no_ray(tmp_path, monkeypatch):
    finish(tmp_path)
    monkeypatch.setattr(sweep, "connected", None)
    assert sweep.sweep([JOB], PLAN, tmp_path) == {}
    assert not sweep.finished(JOB, replace(PLAN, steps=121), tmp_path), "more steps are asked for"


def test_only_runs_of_the_asked_length_are_in_the_table(tmp_path):
    other = replace(JOB, seed=4)
    finish(tmp_path)
    finish(tmp_path, other, steps=80, score=7.5)
    assert "| 1 | 1.50 |" in sweep.collect([JOB, other], PLAN, tmp_path)


def test_a_folder_with_runs_of_other_settings_is_refused(tmp_path):
    finish(tmp_path)
    with pytest.raises(ValueError, match="settings must be those of the runs in the folder"):
        sweep.sweep([replace(JOB, config=to_dict(TOY))], PLAN, tmp_path)


def test_without_ray_the_remedy_is_named(tmp_path, monkeypatch, capsys):
    real = builtins.__import__

    def without(name, *args):
        if name == "ray":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    words = [
        "sweep",
        "--presets",
        "toy",
        "--envs",
        CATCH,
        "--steps",
        "8",
        "--out",
        tmp_path / "out",
    ]
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in words])
    assert ended.value.code == 2
    assert "pip install 'dreamer-lite[ray]'" in capsys.readouterr().err


def test_the_command_line_makes_the_jobs(tmp_path, monkeypatch, capsys):
    seen = {}
    monkeypatch.setattr(
        sweep, "sweep", lambda *args, **kwargs: seen.update(args=args, **kwargs) or {}
    )
    words = "sweep --presets toy vector --envs a/X b/Y --seeds 0 1 --steps 8 --gpus 0.5 --out"
    with pytest.raises(SystemExit) as ended:
        cli.main([*words.split(), str(tmp_path), "--address", "auto"])
    todo, plan, out = seen["args"]
    assert ended.value.code == 0 and len(todo) == 8 and seen["address"] == "auto"
    assert (plan, out) == (Plan(steps=8, gpus=0.5), tmp_path)
    assert todo[0] == Job("toy", to_dict(TOY), "a/X", 0)


# Two machines


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextmanager
def cluster():
    """A Ray cluster of two nodes on this machine, and the one that may be killed.

    A node gives up when its helpers take more than 15 seconds to start: on a busy machine again.
    """
    utils = pytest.importorskip("ray.cluster_utils")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    for left in reversed(range(3)):
        made = utils.Cluster()
        try:
            made.add_node(num_cpus=1, include_dashboard=False)
            node = made.add_node(num_cpus=1)
            break
        except Exception:
            made.shutdown()
            if not left:
                raise
    try:
        yield made, node
    finally:
        made.shutdown()


@pytest.mark.slow
def test_when_one_of_two_machines_is_killed_every_run_ends_and_none_begins_anew(tmp_path):
    plan = Plan(steps=800, episodes=2, log_every=40, save_minutes=0.02, sync_seconds=0.5, retries=3)
    todo = jobs({"small": SMALL}, [CATCH], [0, 1, 2])
    with cluster() as (machines, node):
        killer = threading.Thread(target=kill_node, args=(machines, node, tmp_path), daemon=True)
        killer.start()
        failed = sweep.sweep(todo, plan, tmp_path, address=machines.address, progress=False)
    killer.join()
    lines = [json.loads(line) for line in (tmp_path / "sweep.jsonl").read_text().splitlines()]
    assert failed == {} and [line["event"] for line in lines].count("done") == 3
    lost = [line for line in lines if line["event"].startswith("lost")]
    assert lost, lines
    for line in lines:
        assert line["attempt"] == 1 or line["began_at"] > 0
    for job in todo:
        record = ledger.read(tmp_path / job.name)
        steps = [life["step"] for life in record.get("resumed", [])]
        moved = [line for line in lost if line["run"] == job.name]
        assert len(steps) == len(moved) and all(step > 0 for step in steps)
        assert record["status"] == "complete"
        rows = [row["step"] for row in read_metrics(tmp_path / job.name)]
        assert rows == list(range(0, 801, 40))
    assert "| small | dreamer_lite/FlickerCatch-v0 | 3 |" in sweep.collect(todo, plan, tmp_path)


def kill_node(machines, node, out):
    """Kills a machine once two runs have checkpoints that were copied."""
    with suppress(AssertionError):
        until(lambda: len({p.parts[-4] for p in out.glob("*/*/*/state.json")}) > 1, patience=300)
    machines.remove_node(node, allow_graceful=False)
