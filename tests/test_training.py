"""The loop: rows meet the right actions, updates come at their pace, and a kill costs nothing."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from safetensors.torch import load_file

from dreamer_lite import checkpoint, training
from dreamer_lite import replay as replay_module
from dreamer_lite.checkpoint import load_weights
from dreamer_lite.distributions import OneHots
from dreamer_lite.logger import read_metrics
from dreamer_lite.optim import LaProp
from dreamer_lite.presets import TOY, Optimizers, sized
from dreamer_lite.replay import Sequence
from dreamer_lite.training import (
    Interrupted,
    Pace,
    Run,
    Watch,
    evaluate,
    load_run,
    make_replay,
    saving_on_signal,
    train,
)

SMALL = sized(TOY, "tiny")
SMALL = replace(
    SMALL,
    model=replace(SMALL.model, conv=replace(SMALL.model.conv, depth=8)),
    behavior=replace(SMALL.behavior, horizon=3),
    replay=replace(SMALL.replay, capacity=150, batch=4, length=8, ratio=4.0, prefill=20, warmup=32),
    envs=2,
)
BIN = float(np.expm1(5 * 20 / 127))
CATCH, STEPS = "dreamer_lite/FlickerCatch-v0", 200


# Environments


class Numbered(gymnasium.Env):
    """x_t = t + 100·(episode's number), r_t = 10·x_t, and an episode of `length` steps."""

    def __init__(self, length=7):
        self.observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.action_space = spaces.Box(-1, 1, (1,), np.float32)
        self.length, self.episode = length, -1

    def reset(self, *, seed=None, options=None):
        self.time, self.episode = 0, self.episode + 1
        return self.see(), {}

    def step(self, action):
        self.time += 1
        x = self.see()
        return x, 10 * float(x[0]), self.time == self.length, False, {}

    def see(self):
        return np.array([self.time + 100 * self.episode], np.float32)


class Button(gymnasium.Env):
    """Nothing new to see; r_t = 1.2 if a_{t-1} was 1, else 0.

    Both numbers are bins of the twohot head, where its loss can reach 0. What is seen is not 0,
    where norms magnify gradients by 100 a layer.
    """

    def __init__(self):
        self.observation_space = spaces.Box(0, 1, (1,), np.float32)
        self.action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        self.time = 0
        return np.ones(1, np.float32), {}

    def step(self, action):
        self.time += 1
        return np.ones(1, np.float32), BIN * (action == 1), False, self.time == 20, {}


class Anything(gymnasium.Env):
    """Random observations from any space, any actions, episodes of `length` steps (0: endless)."""

    def __init__(self, see, act, length=9):
        self.observation_space, self.action_space, self.length = see, act, length

    def reset(self, *, seed=None, options=None):
        self.time = 0
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.time += 1
        return self.observation_space.sample(), 1.0, False, self.time == self.length, {}


class Unseeded(Anything):
    """Ignores its seed."""

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=random.getrandbits(30))


VECTOR, IMAGE = spaces.Box(-1, 1, (3,), np.float32), spaces.Box(0, 255, (16, 16, 3), np.uint8)
BOTH = spaces.Dict({"image": IMAGE, "touch": VECTOR})
CHOICE, CHOICES = spaces.Discrete(3, start=1), spaces.MultiDiscrete([3, 2])
STICK = spaces.Box(np.float32([-2, 0]), np.float32([2, 5]))
WORLDS = {
    "Numbered": (Numbered, {}),
    "Button": (Button, {}),
    "Short": (Anything, {"see": VECTOR, "act": CHOICE, "length": 8}),
    "Endless": (Anything, {"see": VECTOR, "act": CHOICE, "length": 0}),
    "Unseeded": (Unseeded, {"see": VECTOR, "act": CHOICE}),
    "VectorChoice": (Anything, {"see": VECTOR, "act": CHOICE}),
    "DictChoices": (Anything, {"see": BOTH, "act": CHOICES}),
    "ImageStick": (Anything, {"see": IMAGE, "act": STICK}),
}
for name, (world, options) in WORLDS.items():
    gymnasium.register(f"training/{name}-v0", world, kwargs=options)


# Helpers


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # sums depend on their order, so on the number of threads
    yield
    torch.set_num_threads(before)


def settings(cfg=SMALL, **changes):
    """SMALL with other numbers of replay."""
    return replace(cfg, replay=replace(cfg.replay, **changes))


def catch(logdir, steps=STEPS, cfg=SMALL, **kwargs):
    """The run that the tests of killing and resuming repeat."""
    kwargs = {"log_every": 25, "device": "cpu", "progress": False} | kwargs
    with mock.patch.object(replay_module, "CHUNK", 16):
        return train(cfg, CATCH, steps, logdir, **kwargs)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that nobody disturbed."""
    logdir = tmp_path_factory.mktemp("whole")
    torch.set_num_threads(1)
    catch(logdir)
    return logdir


def new_run(logdir, env="training/Numbered-v0", cfg=SMALL, steps=1000, **kwargs):
    return Run(cfg, env, steps, logdir, device="cpu", progress=False, **kwargs)


def diary(logdir):
    """Metrics without the wall clock."""
    return [{k: v for k, v in row.items() if k != "hours"} for row in read_metrics(logdir)]


def newest(logdir):
    return checkpoint.folders(logdir / "checkpoints")[0]


def record(logdir):
    return json.loads((logdir / "run.json").read_text())


def remembered(logdir):
    """The replay of the newest checkpoint, as if a run went on with it."""
    memory = make_replay(SMALL, {"image": (16, 16, 1)}, 3, 0, torch.device("cpu"))
    with mock.patch.object(replay_module, "CHUNK", 16):
        memory.load(logdir / "replay", newest(logdir))
    return memory


def assert_same_run(a, b):
    """Metrics, weights, moments, random states, counters, replay and episodes, bit for bit."""
    assert diary(a) == diary(b)
    left, right = (load_file(newest(logdir) / "tensors.safetensors") for logdir in (a, b))
    assert left.keys() == right.keys()
    assert [k for k in left if not torch.equal(left[k], right[k])] == []
    left, right = remembered(a), remembered(b)
    for name, column in (left.rows | left.latents).items():
        assert np.array_equal(column, (right.rows | right.latents)[name]), name
    assert left.rng.bit_generator.state == right.rng.bit_generator.state
    assert left.total == right.total and np.array_equal(left.fresh, right.fresh)
    left, right = (checkpoint.load(logdir)[1] for logdir in (a, b))
    for meta in (left, right):
        del meta["run"], meta["logger"]["hours"]
    assert left == right


def files(logdir):
    """Every file and its content."""
    return {p: p.read_bytes() for p in sorted(logdir.rglob("*")) if p.is_file()}


# Alignment (a row says what an agent knows when it arrives)


def test_the_action_the_observation_and_the_reward_of_a_step_meet(tmp_path, monkeypatch):
    run = new_run(tmp_path, cfg=settings(prefill=0))
    run.agent.act = lambda row, state: (row.obs["vector"] / 10_000 + 0.00005, state)
    seen, model = [], run.agent.world_model
    monkeypatch.setattr(model.rssm, "observe", spy(model.rssm.observe, seen))
    monkeypatch.setattr(model, "loss", spy(model.loss, seen))
    for _ in range(60):
        run.move(run.act())
    for _ in range(20):
        run.learn()
        batch, (_, action, first, _) = seen[0][0], seen[1]
        seen.clear()
        x = batch.obs["vector"][..., 0]
        assert torch.equal(first, x % 100 == 0) and first.any() and not first.all()
        chosen = (x - 1) / 10_000 + 0.00005  # one step earlier
        torch.testing.assert_close(action[..., 0], torch.where(first, 0, chosen))
        torch.testing.assert_close(batch.reward, torch.where(first, 0, 10 * x))
        assert torch.equal(~batch.cont, x % 100 == 7)


def spy(function, seen):
    def call(*args):
        seen.append(args)
        return function(*args)

    return call


def press(logdir, shift):
    """Reward loss after 400 steps of the world model on random presses, read `shift` rows late."""
    cfg = settings(prefill=10_000, capacity=400, batch=8, length=4, online=False)
    cfg = replace(cfg, optim=Optimizers(LaProp(lr=1e-2, warmup=20)))
    run, losses = new_run(logdir, "training/Button-v0", cfg), []
    for _ in range(150):
        run.move(run.act())
    actions = run.replay.rows["prev_action"]
    actions[:] = np.roll(actions, shift, 0)
    for _ in range(400):
        losses.append(improve(run))
    return np.mean(losses[-20:])


def improve(run):
    """One step of the world model alone; returns the loss of its rewards."""
    batch = run.replay.sample(run.cfg.replay.length, run.cfg.replay.batch).sequence
    losses, _, _ = run.agent.world_model.loss(batch)
    optimizer = run.agent.optimizers["model"]
    optimizer.step(optimizer.gradients(sum(losses.values())))
    return losses["reward"].item()


def test_the_world_model_learns_which_action_brings_the_reward(tmp_path):
    assert press(tmp_path, 0) < 0.1


def test_actions_read_one_row_late_leave_the_reward_a_mystery(tmp_path):
    assert press(tmp_path, 1) > 0.4  # the entropy of one button in three is 0.64


@pytest.fixture
def no_dice(monkeypatch):
    """Every random number is a half: training and acting draw the same latents, fast or plain."""
    monkeypatch.setattr(torch, "rand_like", lambda x: torch.full_like(x, 0.5))
    monkeypatch.setattr(torch, "rand", lambda *shape: torch.full(shape, 0.5))


def lived(run, ticks):
    """Play; returns the rows as one sequence and the states the agent had while acting."""
    rows, states, add = [], [], run.replay.add

    def note(row, state):
        rows.append(row)
        states.append(state)
        add(row, state)

    run.replay.add = note
    for _ in range(ticks):
        run.move(run.act())
    stacked = {k: torch.as_tensor(np.stack([r.obs[k] for r in rows])) for k in rows[0].obs}
    columns = [
        torch.as_tensor(np.stack([getattr(r, k) for r in rows])) for k in Sequence._fields[1:]
    ]
    return Sequence(stacked, *columns), training.State(*map(torch.stack, zip(*states, strict=True)))


@pytest.mark.parametrize("world", ["Numbered", "DictChoices"])
def test_training_sees_what_acting_saw(tmp_path, no_dice, world):
    run = new_run(tmp_path, f"training/{world}-v0")
    sequence, acted = lived(run, 30)
    assert sequence.is_first[1:].any()
    with torch.no_grad():
        observed, _ = run.agent.world_model.observe(sequence, None)
    torch.testing.assert_close(observed.h, acted.h, atol=1e-5, rtol=0)
    assert torch.equal(observed.z, acted.z)


def test_a_sample_goes_on_from_what_the_agent_thought_one_row_earlier(tmp_path, no_dice):
    run = new_run(tmp_path)
    _, acted = lived(run, 40)
    sample = run.replay.sample(8, 16)
    with torch.no_grad():
        observed, _ = run.agent.world_model.observe(sample.sequence, sample.start)
    expected = acted.h[torch.as_tensor(sample.where.rows), torch.as_tensor(sample.where.stream)]
    torch.testing.assert_close(
        observed.h, expected, atol=2e-3, rtol=0
    )  # h is kept in half precision


def test_an_update_starts_from_the_context_row_and_rewrites_the_rows_after_it(tmp_path):
    run = new_run(tmp_path, cfg=settings(batch=1, length=6))
    for _ in range(20):
        run.move(run.act())
    run.replay.latents["h"][:] = 7.0  # a sentinel that no agent thinks
    seen, update = [], run.agent.update
    run.agent.update = spy(update, seen)
    run.learn()
    start = seen[0][1]
    assert torch.equal(start.h, torch.full_like(start.h, 7.0))
    rewritten = (run.replay.latents["h"] != 7.0).all(-1)
    rows, stream = np.nonzero(rewritten)
    assert len(rows) == 6 and (np.diff(rows) == 1).all() and len(set(stream)) == 1


def test_a_reset_row_has_no_reward_and_no_action_and_is_trained_on(tmp_path):
    run = new_run(tmp_path)
    for _ in range(40):
        run.move(run.act())
    rows, total = run.replay.rows, run.replay.total
    first = rows["is_first"][:total]
    assert first[0].all() and first.sum() > 8
    assert (rows["reward"][:total][first] == 0).all()
    assert (rows["prev_action"][:total][first] == 0).all()
    assert (rows["reward"][:total][~first] != 0).all()
    batch = run.replay.sample(8, 64).sequence
    assert batch.is_first.any() and (batch.reward[batch.is_first] == 0).all()


def test_episodes_shorter_than_a_batch_are_learned_from(tmp_path):
    agent = train(
        settings(length=16), "training/Short-v0", 120, tmp_path, device="cpu", progress=False
    )
    assert agent.updates > 0
    row = diary(tmp_path)[-1]
    assert row["episode/length"] == 8 and row["episode/score"] == 8


# Pace


def test_updates_are_ratio_times_steps_over_batch_times_length():
    pace = Pace(ratio=2.5, size=64)
    done = 0
    for _ in range(1000):
        pace.earn(3)
        done += pace.due()
    assert done == 3000 * 2.5 // 64


@pytest.mark.parametrize("streams", [1, 16])
def test_the_pace_counts_steps_of_the_agent_over_all_streams_and_survives_a_resume(
    tmp_path, streams
):
    cfg = replace(settings(ratio=5.0, capacity=2000, length=4), envs=streams)
    updates = 0
    for until in (480, 1008):  # the second life resumes the first one
        run = new_run(tmp_path, "training/Short-v0", cfg, steps=until)
        while run.step < until:
            run.move(run.act())
            updates += run.pace.due()
        run.finish()
    counted = 1008 - max(32, 5 * streams) + streams  # from the first step that may learn
    assert abs(updates - counted * 5.0 / 16) <= 1


# Any environment


@pytest.mark.parametrize("world", ["VectorChoice", "DictChoices", "ImageStick"])
def test_any_spaces_train(tmp_path, world):
    agent = train(
        settings(ratio=1.0), f"training/{world}-v0", 200, tmp_path, device="cpu", progress=False
    )
    assert agent.updates == 5
    last = diary(tmp_path)[-1]
    assert last["episode/length"] == 9 and np.isfinite(last["loss/actor"])
    assert evaluate(agent, f"training/{world}-v0", 2).lengths == [9, 9]


# Metrics


def test_metrics_have_a_line_at_the_start_one_per_interval_and_one_at_the_end(whole):
    assert [row["step"] for row in diary(whole)] == [0, 26, 52, 78, 104, 130, 156, 182, 200]
    assert diary(whole)[-1]["update"] == 21
    assert diary(whole)[0] == {"step": 0, "frame": 0, "update": 0}


def test_the_same_seed_gives_the_same_run_and_another_seed_another(whole, tmp_path):
    catch(tmp_path / "same")
    assert_same_run(whole, tmp_path / "same")
    catch(tmp_path / "other", steps=60, seed=1)
    assert diary(tmp_path / "other")[2] != diary(whole)[2]


def test_evaluation_leaves_no_trace_in_training(whole, tmp_path):
    catch(tmp_path, eval_every=60, eval_episodes=3)
    assert "--log-every 25 --eval-every 60 --eval-episodes 3" in record(tmp_path)["command"]
    rows = diary(tmp_path)
    scored = [row["step"] for row in rows if "eval/score" in row]
    assert scored == [78, 130, 182]
    quiet = [{k: v for k, v in row.items() if not k.startswith("eval/")} for row in rows]
    assert quiet == diary(whole)


def test_the_weights_at_some_shares_of_the_run_are_kept(whole):
    kept = sorted(path.name for path in (whole / "milestones").iterdir())
    assert kept == [f"{step:010d}" for step in (2, 20, 60, 200)]
    weights, config = load_weights(whole / "milestones" / kept[-1])
    agent, _ = load_run(whole)
    assert config["step"] == 200 and weights.keys() == agent.state_dict().keys()
    for name, value in agent.state_dict().items():
        torch.testing.assert_close(weights[name], value, atol=1e-3, rtol=1e-3)


def test_the_record_says_what_ran_where_and_how_far_it_came(whole):
    got = record(whole)
    assert got["status"] == "complete" and got["step"] == got["frames"] == 200
    assert got["updates"] == 21 and got["seed"] == 0 and got["env"] == CATCH
    assert got["threads"] == 1 and got["device"] == "cpu" and got["hours"] > 0
    assert got["started"] <= got["ended"] and "resumed" not in got
    assert f"dreamer-lite train toy --size tiny --env {CATCH} --steps 200" in got["command"]


# Killed, and resumed


def live(logdir, **kwargs):
    """Starts `catch` in a process of its own."""
    code = f"import test_training; test_training.catch({str(logdir)!r}, **{kwargs!r})"
    return subprocess.Popen([sys.executable, "-c", code], env=quiet())


def quiet():
    here = str(Path(__file__).parent)
    path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def wait_for(condition, process=None, seconds=100):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        assert process is None or process.poll() is None, "it ended by itself"
        time.sleep(0.005)


def lives(logdir, count):
    """Runs `catch` again and again, each time killed at another moment after its first save."""
    for _ in range(count):
        before = saved(logdir)
        if f"{STEPS:010d}" in before:
            break
        child = os.fork()
        if not child:
            catch(logdir, save_minutes=0.002)
            os._exit(0)
        wait_for(lambda before=before: saved(logdir) - before)
        time.sleep(random.uniform(0, 0.2))
        os.kill(child, signal.SIGKILL)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def saved(logdir):
    return {path.name for path in (logdir / "checkpoints").glob("0*")}


def test_a_run_killed_at_any_moment_continues_bit_for_bit(whole, tmp_path):
    code = f"import test_training as t; t.lives(t.Path({str(tmp_path)!r}), 5)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=quiet(), capture_output=True, text=True, timeout=300
    )
    assert "-9" in done.stdout.split(), done.stderr
    catch(tmp_path)
    assert len(record(tmp_path)["resumed"]) >= 1
    assert_same_run(whole, tmp_path)


def test_sigterm_and_sigint_save_and_say_so_in_the_exit_status(whole, tmp_path):
    def learning():
        return count_lines(tmp_path) > 1

    def resumed():
        return "resumed" in record(tmp_path)

    moments = (signal.SIGTERM, 143, learning), (signal.SIGINT, 130, resumed)
    for number, status, moment in moments:
        process = live(tmp_path)
        wait_for(moment, process)
        process.send_signal(number)
        assert process.wait(100) == status
        got = record(tmp_path)
        assert got["status"] == "interrupted" and 0 < got["step"] < STEPS
        assert diary(tmp_path)[-1]["step"] == got["step"] and "ended" in got
    catch(tmp_path)
    assert len(record(tmp_path)["resumed"]) == 2 and record(tmp_path)["status"] == "complete"
    assert_same_run(whole, tmp_path)


def count_lines(logdir):
    path = logdir / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def test_a_resumed_run_holds_what_the_stopped_one_held(tmp_path):
    run = new_run(tmp_path, "training/Short-v0", settings(prefill=2, warmup=2, length=4))
    for _ in range(21):
        run.move(run.act())
        for _ in range(run.pace.due()):
            run.learn()
    run.save()
    randomness = torch.get_rng_state()
    again = new_run(tmp_path, "training/Short-v0", run.cfg)
    assert torch.equal(torch.get_rng_state(), randomness)
    for left, right in ((run.state, again.state), (run.row[1:], again.row[1:])):
        assert all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))
    assert np.array_equal(run.row.obs["vector"], again.row.obs["vector"])
    assert run.pace.debt == again.pace.debt > 0 and run.step == again.step == 42
    assert run.agent.updates == again.agent.updates > 0
    assert run.logger.counts == again.logger.counts
    assert all(float(run.logger.sums[k]) == float(again.logger.sums[k]) for k in run.logger.sums)


def test_a_run_can_be_made_longer(whole, tmp_path):
    catch(tmp_path, steps=116)
    assert diary(tmp_path)[-1]["step"] == 116  # a line that the longer run does not have
    catch(tmp_path)
    got = record(tmp_path)
    assert got["steps"] == 200 and got["resumed"][0]["step"] == 116
    assert_same_run(whole, tmp_path)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("victim", ["tensors.safetensors", "replay.safetensors", "chunk"])
def test_the_checkpoint_before_a_damaged_one_is_continued(whole, tmp_path, victim):
    for steps in (116, 158):
        catch(tmp_path, steps=steps)
    chunks = sorted((tmp_path / "replay").iterdir())
    cut(chunks[-1] if victim == "chunk" else newest(tmp_path) / victim)
    with pytest.warns(UserWarning, match="trying an earlier checkpoint"):
        catch(tmp_path)
    assert record(tmp_path)["resumed"][-1]["step"] == 116
    assert_same_run(whole, tmp_path)


def test_a_full_disk_is_said_and_the_run_goes_on_from_the_last_good_state(
    whole, tmp_path, monkeypatch
):
    catch(tmp_path, steps=116)
    with monkeypatch.context() as patch:
        full = replay_module.SafetensorError("I/O error: No space left (os error 28)")
        patch.setattr(replay_module, "save_file", mock.Mock(side_effect=full))
        with pytest.raises(OSError, match="no space left to save step 118"):
            catch(tmp_path, save_minutes=0)
    assert newest(tmp_path).name == "0000000116"
    catch(tmp_path)
    assert_same_run(whole, tmp_path)


def test_a_run_killed_before_its_first_checkpoint_starts_again(whole, tmp_path):
    run = new_run(tmp_path, CATCH, watch=Watch(log_every=25))
    for _ in range(30):
        run.move(run.act())
        run.log()
    assert len(diary(tmp_path)) == 3
    catch(tmp_path)
    assert "resumed" not in record(tmp_path)
    assert_same_run(whole, tmp_path)


# Refused, and nothing is lost


def copy(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cfg": settings(ratio=8.0)}, "replay.ratio: 4.0 -> 8.0"),
        ({"cfg": settings(capacity=151)}, "replay.capacity: 150 -> 151"),
        ({"cfg": replace(SMALL, envs=4)}, "envs: 2 -> 4"),
        ({"seed": 1}, "seed: 0 -> 1"),
    ],
)
def test_a_resume_with_other_settings_is_refused(whole, tmp_path, change, message):
    logdir = copy(whole, tmp_path)
    before = files(logdir)
    with pytest.raises(ValueError, match=re.escape(message)):
        catch(logdir, steps=300, **change)
    assert files(logdir) == before


def test_a_resume_in_another_environment_is_refused(whole, tmp_path):
    with pytest.raises(ValueError, match="env: .*FlickerCatch-v0 -> dreamer_lite/MiniPong-v0"):
        train(SMALL, "dreamer_lite/MiniPong-v0", 300, whole, device="cpu", progress=False)


def test_foreign_and_ruined_checkpoints_are_refused_and_left_alone(whole, tmp_path):
    logdir = copy(whole, tmp_path)
    (newest(logdir) / "state.json").write_text('{"format": "other"}')
    before = files(logdir)
    with pytest.raises(ValueError, match="is not a dreamer_lite checkpoint"):
        catch(logdir, steps=300)
    assert files(logdir) == before
    for folder in checkpoint.folders(logdir / "checkpoints"):
        (folder / "state.json").unlink()
    before = files(logdir)
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="no complete checkpoint in"):
        catch(logdir, steps=300)
    assert files(logdir) == before


def test_a_record_without_checkpoints_is_not_written_over(whole, tmp_path):
    for name in ("run.json", "metrics.jsonl", "config.json"):
        shutil.copy(whole / name, tmp_path)
    before = files(tmp_path)
    with pytest.raises(ValueError, match="no checkpoint to continue from; choose another logdir"):
        catch(tmp_path)
    (tmp_path / "run.json").unlink()
    with pytest.raises(ValueError, match="choose another logdir"):
        catch(tmp_path)
    assert before.items() >= files(tmp_path).items() and len(files(tmp_path)) == 2


def test_an_environment_that_ignores_its_seed_is_found_on_resume(tmp_path):
    run = new_run(tmp_path, "training/Unseeded-v0")
    run.move(run.act())
    run.finish()
    before = files(tmp_path)
    with pytest.raises(ValueError, match="not deterministic given its seed"):
        new_run(tmp_path, "training/Unseeded-v0")
    assert files(tmp_path) == before


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    with training.alone(tmp_path):
        with pytest.raises(ValueError, match="logdir must be a folder in which nobody trains"):
            catch(tmp_path)
        with training.alone(tmp_path / "other"):
            pass
    assert not list(tmp_path.iterdir())
    catch(tmp_path, steps=8)  # free again


@pytest.mark.parametrize("wrong", [-1.0, float("nan")])
def test_minutes_between_saves_are_a_number_from_zero_on(tmp_path, wrong):
    with pytest.raises(ValueError, match="save_minutes"):
        catch(tmp_path, save_minutes=wrong)


def test_a_replay_larger_than_the_memory_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="replay needs .* GB when full"):
        catch(tmp_path / "run", cfg=settings(capacity=10**15))
    assert not (tmp_path / "run").exists()


def test_the_memory_of_the_replay_is_announced(tmp_path, capsys):
    catch(tmp_path, cfg=settings(capacity=100_000, latents=False), steps=2, progress=True)
    assert "replay takes 0.03 GB of memory when full" in capsys.readouterr().err


def test_a_run_of_the_laptop_preset_takes_three_gigabytes_at_most(tmp_path):
    """Measured in a process of its own with an almost empty replay; a full one is added."""
    words = "train laptop --env ALE/Boxing-v5 --steps 232 --replay.warmup 200 --device cpu --logdir"
    command = [sys.executable, "-m", "dreamer_lite", *words.split(), str(tmp_path)]
    done = subprocess.run(command, env=quiet(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = re.search(r"takes (.*) GB of memory.*: (.*) GB experience, (.*) GB latents", done.stderr)
    full, rows, latents = map(float, said.groups())
    assert 0 < latents < rows < full
    got = record(tmp_path)
    assert got["updates"] == 4 and 0.3 < got["memory_gb"] < 3 - full


def test_an_unknown_device_is_refused(tmp_path):
    with pytest.raises(ValueError, match="device must be auto, cpu, cuda or mps, got 'gpu'"):
        catch(tmp_path, device="gpu")


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=f"device must be .* got '{name}'"):
        training.pick_device(name)
    assert training.pick_device("auto").type == "cpu"


# Signals


def test_the_first_signal_is_noted_and_the_second_one_not_caught():
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append("default"))
    heard = []
    try:
        with saving_on_signal() as received:
            os.kill(os.getpid(), signal.SIGTERM)
            assert (received, heard) == ([signal.SIGTERM], [])
            os.kill(os.getpid(), signal.SIGTERM)
            assert (received, heard) == ([signal.SIGTERM], ["default"])
        os.kill(os.getpid(), signal.SIGTERM)
        assert len(heard) == 2
    finally:
        signal.signal(signal.SIGTERM, before)
    assert Interrupted(signal.SIGINT).code == 130


def test_a_signal_after_the_last_step_does_not_spoil_a_complete_run(tmp_path, monkeypatch):
    finish = Run.finish

    def late(run):
        os.kill(os.getpid(), signal.SIGTERM)
        finish(run)

    monkeypatch.setattr(Run, "finish", late)
    catch(tmp_path, steps=4)
    assert record(tmp_path)["status"] == "complete"


def test_training_runs_beside_the_main_thread_too(tmp_path):
    thread = threading.Thread(target=catch, args=(tmp_path, 4))
    thread.start()
    thread.join()
    assert record(tmp_path)["status"] == "complete"


# Evaluation


@pytest.fixture(scope="module")
def agent(whole):
    return load_run(whole)[0]


def test_an_evaluation_plays_the_same_episodes_again_and_draws_nothing(agent):
    state = torch.get_rng_state()
    score = evaluate(agent, CATCH, 10, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert evaluate(agent, CATCH, 10, seed=3) == score
    assert evaluate(agent, CATCH, 10, seed=4).episodes != score.episodes
    assert score.lengths == [10] * 10 and score.cut == 0
    assert score.mean == pytest.approx(np.mean(score.episodes))
    assert score.sd == pytest.approx(np.std(score.episodes, ddof=1))
    assert evaluate(agent, CATCH, 1).sd == 0


def test_the_most_likely_action_can_be_evaluated(agent):
    asked = []
    with mock.patch.object(OneHots, "mode", lambda dist: asked.append(1) or dist.sample()):
        evaluate(agent, CATCH, 1, mode=True)
    assert len(asked) == 10  # one per step; latents are sampled all the same


def test_an_endless_episode_is_cut_at_the_limit(tmp_path):
    run = new_run(tmp_path, "training/Endless-v0")
    score = evaluate(run.agent, "training/Endless-v0", 9, limit=5)
    assert score.lengths == [5] * 9 and score.cut == 9 and score.episodes == [5.0] * 9


def test_an_evaluation_of_nothing_is_refused(agent):
    with pytest.raises(ValueError, match="episodes must be at least 1, got 0"):
        evaluate(agent, CATCH, 0)


def test_a_run_folder_and_a_checkpoint_give_the_agent_back(whole):
    for path in (whole, newest(whole)):
        agent, about = load_run(path)
        assert about["env"] == CATCH and agent.updates == 21
        assert agent.optimizers["model"].count == 21
