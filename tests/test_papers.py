"""Each of the three papers runs from the environment to the score: seconds here, hours for real."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import tiny
import torch
from gymnasium import spaces

from dreamer_lite import training
from dreamer_lite.presets import PRESETS
from dreamer_lite.training import Run, evaluate, train

PIXELS = spaces.Box(0, 255, (64, 64, 3), np.uint8)


class Stripes(gymnasium.Env):
    """64×64 color frames with one stripe; the reward is to press the button that it hides."""

    observation_space, action_space = PIXELS, spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.see(), {}

    def step(self, action):
        reward = float(action == self.place // 22)
        self.time += 1
        return self.see(), reward, self.time == 12, False, {}

    def see(self):
        self.place = int(self.np_random.integers(66)) % 64
        frame = np.zeros((64, 64, 3), np.uint8)
        frame[:, self.place] = 255
        return frame


gymnasium.register("papers/Stripes-v0", Stripes)
WORLDS = ["dreamer_lite/FlickerCatch-v0", "Pendulum-v1", "papers/Stripes-v0"]


def settings(name, **changes):
    """A paper in tiny, with two streams and short windows."""
    cfg = tiny.small(PRESETS[name], horizon=3)
    numbers = {"capacity": 2000, "batch": 2, "length": 6, "ratio": 1.0, "prefill": 24}
    return replace(cfg, envs=2, replay=replace(cfg.replay, **numbers | changes))


def new_run(cfg, logdir, world=WORLDS[0]):
    return Run(cfg, world, 1000, logdir, device="cpu", progress=False)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", ["v1", "v2", "v2_dmc", "v3"])
def test_every_paper_runs_from_end_to_end(name, world, tmp_path):
    cfg = settings(name, warmup=24, pretrain=1)
    agent = train(cfg, world, 60, tmp_path, device="cpu", progress=False)
    # One update to begin with, then one for every 12 steps of the two streams.
    assert agent.updates == 1 + (60 - 24 + 2) // 12
    score = evaluate(agent, world, 2, limit=20)
    assert np.isfinite(score.mean)
    loaded, _ = training.load_run(tmp_path)
    assert all(torch.equal(x, loaded.state_dict()[k]) for k, x in agent.state_dict().items())


@pytest.mark.parametrize("name", ["toy_v1", "toy_v2", "vector_v1", "vector_v2"])
def test_small_versions_learn_from_their_own_kind_of_task(name, tmp_path):
    cfg = PRESETS[name]
    quick = replace(cfg.replay, prefill=256, warmup=0, ratio=4.0, capacity=2000)
    cfg = replace(cfg, replay=quick, behavior=replace(cfg.behavior, horizon=3))
    world = WORLDS[0] if name.startswith("toy") else "Pendulum-v1"
    run = new_run(cfg, tmp_path, world)
    before = {k: x.clone() for k, x in run.agent.named_parameters()}
    while run.agent.updates < 2:
        run.move(run.act())
        for _ in range(run.pace.due()):
            run.learn()
    moved = [k for k, x in run.agent.named_parameters() if not torch.equal(before[k], x)]
    assert any(k.startswith("world_model.") for k in moved)
    assert any(k.startswith("behavior.policy.") for k in moved)


def test_learning_begins_with_a_number_of_updates_at_once(tmp_path):
    run = new_run(settings("v1", warmup=0, pretrain=5, ratio=0.5), tmp_path)
    while not run.agent.updates:
        run.move(run.act())
        for _ in range(run.pace.due()):
            run.learn()
    assert run.step == 24 and run.agent.updates == 5
    for _ in range(12):  # 24 steps at half a replayed step each: one batch of 12
        run.move(run.act())
        for _ in range(run.pace.due()):
            run.learn()
    assert run.agent.updates == 6


def actions_of(run, ticks):
    """What was carried out in `ticks` ticks, from the rows that followed."""
    for _ in range(ticks):
        run.move(run.act())
    rows = run.replay.rows
    return rows["prev_action"][: run.replay.total][~rows["is_first"][: run.replay.total]]


@pytest.mark.parametrize("name, noise", [("v1", True), ("v2_dmc", False)])
def test_v1_alone_adds_noise_while_it_collects(name, noise, tmp_path, monkeypatch):
    cfg = settings(name, prefill=0, warmup=10_000, ends=False)
    run = new_run(cfg, tmp_path, "Pendulum-v1")
    monkeypatch.setattr(run.agent, "act", lambda row, state: (np.zeros((2, 1), np.float32), state))
    found = actions_of(run, 100)
    assert found.std() == pytest.approx(0.3 if noise else 0.0, abs=0.05)


def test_random_actions_before_learning_are_left_alone(tmp_path, monkeypatch):
    run = new_run(settings("v1", prefill=10_000), tmp_path, "Pendulum-v1")
    monkeypatch.setattr(run.agent, "explore", None)  # would fail if it were asked
    assert abs(actions_of(run, 100)).max() > 0.9


@pytest.mark.parametrize("name, greedy", [("v1", True), ("v2", True), ("v3", False)])
def test_v1_and_v2_are_evaluated_by_their_likeliest_action_and_v3_by_samples(
    name, greedy, monkeypatch
):
    agent = tiny.agent(cfg=settings(name), obs={"image": (16, 16, 1)}, action=tiny.ActionSpec((3,)))
    asked = []
    monkeypatch.setattr(training, "play", lambda a, w, mode, limit: asked.append(mode) or [ONE])
    for mode in (None, True, False):
        evaluate(agent, WORLDS[0], 1, mode=mode)
    assert asked == [greedy, True, False]


ONE = training.Outcome(0.0, 1, True)


def test_a_run_that_could_never_learn_says_so(tmp_path):
    run = new_run(settings("v1", length=12), tmp_path)  # an episode has eleven rows
    with pytest.raises(ValueError, match="no episode has replay.length = 12 rows after .* steps"):
        for _ in range(1000):
            run.move(run.act())
    assert run.step < 600
