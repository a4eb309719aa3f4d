"""Rows are aligned, ends are told apart, actions and observations are converted, runs resume."""

import hashlib
import importlib.util
import json
import logging
import os
import subprocess
import sys
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import dreamer_lite  # noqa: F401  (registers the toys)
from dreamer_lite import envs
from dreamer_lite.control import Control
from dreamer_lite.envs import AtariProtocol, Episode, VectorEnv, episode_seed, make
from dreamer_lite.spaces import ActionSpec

needs_dm_control = pytest.mark.skipif(
    importlib.util.find_spec("dm_control") is None,
    reason="needs dm_control: pip install -e '.[dmc]' (Python 3.11 or 3.12)",
)


class CountingEnv(gymnasium.Env):
    """x_t = t, r_t = 10 t, and the agent is to play a_t = (t + 1/2) / 100."""

    observation_space = spaces.Box(-np.inf, np.inf, (), np.float64)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, length=3, truncate=False):
        self.length, self.truncate = length, truncate

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return np.float64(0), {}

    def step(self, action):
        self.time += 1
        end = self.time == self.length
        return (
            np.float64(self.time),
            10.0 * self.time,
            end and not self.truncate,
            end and self.truncate,
            {},
        )


def zeros(space):
    """The observation of all zeros, also of a Dict."""
    if isinstance(space, spaces.Dict):
        return {key: zeros(part) for key, part in space.spaces.items()}
    return np.zeros(space.shape, space.dtype)


class SpaceEnv(gymnasium.Env):
    """Shows zeros of any space, remembers the actions it was given."""

    def __init__(self, observation=None, action=None):
        self.observation_space = observation or spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = action or spaces.Discrete(2)
        self.seen = []

    def reset(self, *, seed=None, options=None):
        return zeros(self.observation_space), {}

    def step(self, action):
        self.seen.append(action)
        return zeros(self.observation_space), 0.0, False, False, {}


class DiceEnv(SpaceEnv):
    """Ignores its seed."""

    def step(self, action):
        return np.random.default_rng().normal(size=2).astype(np.float32), 0.0, False, False, {}


def vector(*builders, seed=0):
    return VectorEnv(SyncVectorEnv(list(builders)), seed)


def count(row):
    """The action a_t = (t + 1/2) / 100 that belongs to a row of CountingEnv."""
    return (row.obs["vector"] + 0.5) / 100


def rollout(env, steps, act):
    """`steps` + 1 rows, each column stacked over time: [T+1,N,...]."""
    rows = [env.reset()]
    for _ in range(steps):
        rows.append(env.step(act(rows[-1])))
    obs = {key: np.stack([row.obs[key] for row in rows]) for key in env.obs_spec}
    return envs.Row(obs, *(np.stack(column) for column in list(zip(*rows, strict=True))[1:]))


def same_rows(a, b):
    for key in a.obs:
        np.testing.assert_array_equal(a.obs[key], b.obs[key])
    for x, y in zip(a[1:], b[1:], strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


# -------------------------------------------------------------------------------- alignment


def test_a_row_holds_the_action_that_led_to_its_observation():
    rows = rollout(vector(lambda: CountingEnv(9), lambda: CountingEnv(9)), 8, count)
    x, prev_action = rows.obs["vector"][..., 0], rows.prev_action[..., 0]
    np.testing.assert_allclose(100 * prev_action[1:], x[1:] - 0.5, rtol=1e-5)
    np.testing.assert_array_equal(rows.reward, 10 * x)


def test_three_steps_make_four_rows_and_the_final_observation_is_kept():
    rows = rollout(vector(CountingEnv), 5, count)
    assert rows.obs["vector"][:, 0, 0].tolist() == [0, 1, 2, 3, 0, 1]
    assert rows.reward[:, 0].tolist() == [0, 10, 20, 30, 0, 10]
    assert rows.cont[:, 0].tolist() == [True, True, True, False, True, True]
    assert rows.is_first[:, 0].tolist() == [True, False, False, False, True, False]
    np.testing.assert_allclose(100 * rows.prev_action[:, 0, 0], [0, 0.5, 1.5, 2.5, 0, 0.5], 1e-5)


def test_a_truncation_is_not_terminal():
    rows = rollout(vector(lambda: CountingEnv(5, truncate=True)), 7, count)
    assert rows.cont.all()
    assert np.flatnonzero(rows.is_first[:, 0]).tolist() == [0, 6]
    assert rows.reward[:, 0].tolist() == [0, 10, 20, 30, 40, 50, 0, 10]


def test_streams_of_different_length_do_not_disturb_each_other():
    rows = rollout(vector(lambda: CountingEnv(2), lambda: CountingEnv(3)), 6, count)
    assert rows.obs["vector"][:, 0, 0].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert rows.obs["vector"][:, 1, 0].tolist() == [0, 1, 2, 3, 0, 1, 2]


def test_finished_lists_the_episodes_that_the_latest_step_ended():
    env, seen = vector(lambda: CountingEnv(2), lambda: CountingEnv(3), seed=5), []
    row = env.reset()
    for _ in range(6):
        row = env.step(count(row))
        seen.append(list(env.finished))
    assert seen[0] == seen[3] == seen[5] == []
    assert seen[1] == [Episode(0, 30.0, 2, episode_seed(5, 0, 0))]
    assert seen[2] == [Episode(1, 60.0, 3, episode_seed(5, 1, 0))]
    assert seen[4] == [Episode(0, 30.0, 2, episode_seed(5, 0, 1))]


def test_rows_have_the_documented_types_and_are_not_overwritten():
    env = make("dreamer_lite/FlickerCatch-v0", 2)
    first = env.reset()
    kept = first.obs["image"].copy()
    for _ in range(5):
        row = env.step(env.sample())
    np.testing.assert_array_equal(first.obs["image"], kept)
    assert [x.dtype for x in row[1:]] == [np.float32, np.float32, bool, bool]
    assert row.obs["image"].dtype == np.uint8 and row.obs["image"].shape == (2, 16, 16, 1)


def test_reset_abandons_the_running_episodes_for_the_next_ones():
    env = make("CartPole-v1", 2, seed=3)
    first = env.reset()
    env.step(env.sample())
    second = env.reset()
    assert second.is_first.all() and not second.reward.any() and not second.prev_action.any()
    assert (first.obs["vector"] != second.obs["vector"]).any()


# ------------------------------------------------------------------------------------ seeds


def test_every_episode_of_every_stream_and_run_has_its_own_seed():
    seeds = {episode_seed(r, s, e) for r in range(5) for s in range(8) for e in range(50)}
    assert len(seeds) == 2000 and all(0 <= s < 2**31 for s in seeds)


def test_an_autoreset_episode_equals_the_environment_reset_with_its_seed():
    env = make("CartPole-v1", 2, seed=3)
    env.reset()
    for _ in range(60):
        row = env.step(env.sample())
        for i in np.flatnonzero(row.is_first):
            alone, _ = gymnasium.make("CartPole-v1").reset(seed=int(env._seeds[i]))
            np.testing.assert_array_equal(row.obs["vector"][i], alone)
    assert env._episode.min() >= 1


def test_the_same_seed_gives_the_same_rows():
    a, b, c = (make("dreamer_lite/FlickerCatch-v0", 3, seed=s) for s in (1, 1, 2))
    rows = [rollout(env, 40, lambda row, env=env: env.sample()) for env in (a, b, c)]
    same_rows(rows[0], rows[1])
    assert (rows[0].obs["image"] != rows[2].obs["image"]).any()


# ---------------------------------------------------------------------------------- actions


def test_discrete_actions_are_recorded_as_exact_one_hots():
    built = SpaceEnv(action=spaces.Discrete(3, start=5))
    env = vector(lambda: built)
    env.reset()
    row = env.step(np.array([[0.1, 0.2, 0.7]]))
    assert env.action_spec == ActionSpec((3,), 0)
    assert row.prev_action.tolist() == [[0, 0, 1]] and built.seen == [7]


def test_several_choices_are_concatenated_one_hots():
    built = SpaceEnv(action=spaces.MultiDiscrete([2, 3]))
    env = vector(lambda: built)
    env.reset()
    row = env.step(np.array([[0.2, 0.8, 0.5, 0.1, 0.4]]))
    assert env.action_spec == ActionSpec((2, 3), 0)
    assert row.prev_action.tolist() == [[0, 1, 1, 0, 0]] and built.seen[0].tolist() == [1, 0]


def test_numbers_are_clipped_and_rescaled_to_the_range_of_the_environment():
    box = spaces.Box(np.array([[0, -4]], np.float32), np.array([[10, 4]], np.float32))
    built = SpaceEnv(action=box)
    env = vector(lambda: built)
    env.reset()
    row = env.step(np.array([[0.5, -3.0]]))
    assert env.action_spec == ActionSpec((), 2) and row.prev_action.tolist() == [[0.5, -1]]
    np.testing.assert_allclose(built.seen[0], [[7.5, -4]])


def test_numbers_that_are_in_range_already_are_not_rounded():
    box = spaces.Box(-1, 1, (1000,), np.float64)
    action = np.random.default_rng(0).uniform(-1, 1, (1, 1000)).astype(np.float32)
    np.testing.assert_array_equal(envs.env_action(box, action), action)


def test_sampled_actions_cover_the_choices_evenly():
    env = vector(lambda: SpaceEnv(action=spaces.MultiDiscrete([2, 3])))
    mean = np.mean([env.sample()[0] for _ in range(3000)], axis=0)
    np.testing.assert_allclose(mean, [1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3], atol=0.03)


@pytest.mark.parametrize(
    "space, message",
    [
        (spaces.Box(-np.inf, np.inf, (2,)), "unbounded.*TransformAction"),
        (spaces.Box(0, 3, (2,), np.int64), "Box.*supported: Discrete"),
        (spaces.MultiBinary(3), "MultiBinary.*supported: Discrete"),
        (spaces.Tuple([spaces.Discrete(2)]), "Tuple.*supported: Discrete"),
    ],
)
def test_unsupported_action_spaces_are_named(space, message):
    with pytest.raises(ValueError, match=message):
        envs.action_spec(space)


@pytest.mark.parametrize("action", [np.zeros((2, 3)), np.zeros(2), np.full((2, 2), np.nan)])
def test_malformed_actions_are_refused(action):
    with pytest.raises(ValueError, match=r"float32 \[N,2\]"):
        envs.clean_action(ActionSpec((2,)), action)


# ----------------------------------------------------------------------------- observations


@pytest.mark.parametrize(
    "space, spec",
    [
        (spaces.Box(0, 255, (64, 64, 3), np.uint8), {"image": (64, 64, 3)}),
        (spaces.Box(0, 255, (96, 96), np.uint8), {"image": (96, 96, 1)}),
        (spaces.Box(0, 255, (84, 84, 4), np.uint8), {"image": (64, 64, 4)}),
        (spaces.Box(0, 255, (210, 160), np.uint8), {"image": (64, 64, 1)}),
        (spaces.Box(0, 255, (128,), np.uint8), {"vector": (128,)}),
        (spaces.Box(-1, 1, (), np.float64), {"vector": (1,)}),
        (spaces.Box(-1, 1, (3, 4), np.float32), {"vector": (12,)}),
        (
            spaces.Dict(
                {
                    "eye": spaces.Box(0, 255, (16, 16, 1), np.uint8),
                    "arm": spaces.Box(0, 9, (2,), np.int64),
                }
            ),
            {"eye": (16, 16, 1), "arm": (2,)},
        ),
    ],
)
def test_observations_have_the_shape_of_their_spec(space, spec):
    env = vector(lambda: SpaceEnv(space), lambda: SpaceEnv(space))
    assert env.obs_spec == spec
    for key, value in env.reset().obs.items():
        assert value.shape == (2, *spec[key])
        assert value.dtype == (np.uint8 if len(spec[key]) == 3 else np.float32)


@pytest.mark.parametrize(
    "space, message",
    [
        (spaces.Discrete(4), "Discrete.*FlattenObservation"),
        (spaces.Dict({"a": spaces.Dict({"b": spaces.Box(0, 1, (2,))})}), "'a'.*one flat Dict"),
        (spaces.Box(0, 255, (3, 64, 64), np.uint8), "channels first.*TransformObservation"),
    ],
)
def test_unsupported_observation_spaces_are_named(space, message):
    with pytest.raises(ValueError, match=message):
        vector(lambda: SpaceEnv(space))


def test_resizing_averages_areas_and_says_so(caplog):
    halves = np.zeros((2, 128, 128, 3), np.uint8)
    halves[0, :, 1::2], halves[1, ..., 2] = 200, 60
    small = envs.resize(halves)
    assert (small[0] == 100).all() and (small[1] == [0, 0, 60]).all()
    with caplog.at_level(logging.WARNING):
        vector(lambda: SpaceEnv(spaces.Box(0, 255, (210, 160, 3), np.uint8)))
    assert "resized from 210x160 to 64x64" in caplog.text


# ----------------------------------------------------------------------------------- resume


@pytest.mark.parametrize(
    "env_id, steps",
    [
        ("dreamer_lite/FlickerCatch-v0", 0),
        ("dreamer_lite/FlickerCatch-v0", 10),  # every stream shows its final row
        ("dreamer_lite/FlickerCatch-v0", 11),  # every stream shows its reset row
        ("CartPole-v1", 77),  # streams are at different steps of different episodes
        ("Pendulum-v1", 250),
        ("dreamer_lite/Reach-v0", 30),
        pytest.param("dmc/cartpole-swingup", 130, marks=needs_dm_control),
        pytest.param("dmc/walker-walk", 2, marks=needs_dm_control),
    ],
)
def test_a_restored_environment_continues_exactly(env_id, steps):
    env = make(env_id, 3, seed=4)
    row = env.reset()
    for _ in range(steps):
        row = env.step(env.sample())
    meta, arrays = env.state()
    fresh = make(env_id, 3, seed=9)
    same_rows(row, fresh.restore(json.loads(json.dumps(meta)), arrays))
    for _ in range(60):
        action = env.sample()
        np.testing.assert_array_equal(action, fresh.sample())
        same_rows(env.step(action), fresh.step(action))
        assert env.finished == fresh.finished


def test_an_environment_that_ignores_its_seed_cannot_be_restored():
    env = vector(DiceEnv)
    env.reset()
    env.step(env.sample())
    with pytest.raises(ValueError, match=r"streams \[0\].*not deterministic"):
        vector(DiceEnv).restore(*env.state())


def test_a_state_of_other_streams_or_spaces_is_refused():
    env = vector(CountingEnv)
    env.reset()
    with pytest.raises(ValueError, match="of 1 streams.*has 2 streams.*num_envs"):
        vector(CountingEnv, CountingEnv).restore(*env.state())
    with pytest.raises(ValueError, match=r"continuous=1.*discrete=\(2,\)"):
        vector(SpaceEnv).restore(*env.state())


def test_using_an_environment_before_reset_is_refused():
    env = vector(CountingEnv)
    with pytest.raises(ValueError, match="call reset"):
        env.step(np.zeros((1, 1)))
    with pytest.raises(ValueError, match="first reset"):
        env.state()


# --------------------------------------------------------------------------------- building


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("NoSuchWorld-v0",), "cannot make 'NoSuchWorld-v0'"),
        (("no_such_package:World-v0",), "install or import"),
        (("CartPole-v1", 0), "num_envs must be at least 1"),
        (("CartPole-v1", 1, 0, "atari100k"), "leave protocol=None"),
        (("ALE/Pong-v5", 1, 0, "atari10k"), r"one of \['atari100k'"),
        (("ALE/ms_pacman-v5",), "unknown game.*CamelCase"),
    ],
)
def test_wrong_settings_name_the_remedy(arguments, message):
    with pytest.raises(ValueError, match=message):
        make(*arguments)


def test_other_autoreset_modes_are_refused():
    raw = SyncVectorEnv([CountingEnv], autoreset_mode=AutoresetMode.SAME_STEP)
    with pytest.raises(ValueError, match="NEXT_STEP"):
        VectorEnv(raw)


# ------------------------------------------------------------------------------------ Atari


@pytest.mark.parametrize(
    "name, shape, actions",
    [
        ("atari100k", (64, 64, 3), 6),
        ("atari200m", (96, 96, 1), 18),
        ("atari_laptop", (64, 64, 1), 6),
    ],
)
def test_atari_protocols_show_their_frames_and_actions(name, shape, actions):
    env = make("ALE/Pong-v5", 2, protocol=name)
    assert env.obs_spec == {"image": shape} and env.action_spec == ActionSpec((actions,))
    assert env.repeat == 4 and env.reset().obs["image"].shape == (2, *shape)
    env.close()


def test_the_protocols_are_those_of_the_papers():
    assert envs.PROTOCOLS["atari100k"] == AtariProtocol(64, False, 0.0, False, 30, 4, 108_000)
    assert envs.PROTOCOLS["atari200m"] == AtariProtocol(96, True, 0.25, True, 30, 4, 108_000)
    assert envs.PROTOCOLS["atari_v1"] == AtariProtocol(64, False, 0.25, False, 30, 4, 108_000)
    assert envs.PROTOCOLS["atari_v2"] == AtariProtocol(64, True, 0.25, False, 30, 4, 108_000)
    with pytest.raises(ValueError, match="size must be one of"):
        make("ALE/Pong-v5", size=84)


def test_every_registered_game_has_its_rom():
    import ale_py
    from ale_py import roms

    gymnasium.register_envs(ale_py)
    ids = [name for name in gymnasium.registry if name.startswith("ALE/")]
    assert len(ids) > 90 and envs._rom("ALE/MsPacman-v5") == "ms_pacman"
    assert all(envs._rom(name) in roms.get_all_rom_ids() for name in ids)


@pytest.mark.parametrize("gray, size, steps", [(False, 64, 2000), (True, 96, 300)])
def test_the_vector_pipeline_equals_the_single_environment_pixel_by_pixel(gray, size, steps):
    """Both average areas, so not one pixel differs; 2000 steps of Boxing contain an end."""
    single = gymnasium.make("ALE/Boxing-v5", frameskip=1, repeat_action_probability=0.0)
    single = gymnasium.wrappers.AtariPreprocessing(
        single, noop_max=0, screen_size=size, grayscale_obs=gray, grayscale_newaxis=True
    )
    env = make("ALE/Boxing-v5", gray=gray, size=size, noop=0)
    row, (frame, _) = env.reset(), single.reset(seed=0)
    for _ in range(steps):
        np.testing.assert_array_equal(row.obs["image"][0], frame)
        action = env.sample()
        row = env.step(action)
        frame, reward, terminated, truncated, _ = single.step(action[0].argmax())
        assert row.reward[0] == reward and row.cont[0] == (not terminated)
        assert bool(env.finished) == (terminated or truncated)
        if env.finished:
            break
    assert bool(env.finished) == (steps == 2000)
    env.close()


def test_the_frame_limit_of_atari_truncates():
    env = make("ALE/Pong-v5", 2, max_frames=40)
    rows = rollout(env, 12, lambda row: env.sample())
    assert rows.cont.all() and np.flatnonzero(rows.is_first[:, 0]).tolist() == [0, 11]
    env.close()


def test_a_game_starts_after_fewer_than_noop_idle_frames():
    env = make("ALE/Pong-v5", 4, noop=3)
    idle = [env.raw.reset(seed=np.arange(i, i + 4))[1]["frame_number"] for i in range(0, 40, 4)]
    assert set(np.concatenate(idle)) == {0, 1, 2}
    env.close()


FRAMES = """
import hashlib, sys
import numpy as np
from dreamer_lite.envs import make
env, stream = make("ALE/Boxing-v5", 3, protocol="atari200m"), int(sys.argv[1])
env._begin(np.ones(3, bool)); env._seeds[:] = 7; env._seeds[stream] = 123
digest = hashlib.sha256(env._raw_reset(np.ones(3, bool))["image"][stream].tobytes())
actions = np.random.default_rng(0).integers(18, size=200)
for t, a in enumerate(actions):
    action = np.eye(18, dtype=np.float32)[[t % 18] * 3]; action[stream] = np.eye(18)[a]
    digest.update(env._raw_step(action)[0]["image"][stream].tobytes())
print(digest.hexdigest())
"""


def test_an_atari_episode_depends_on_its_seed_and_actions_alone():
    """Sticky actions and idle frames included: other process, other stream, masked late reset."""
    run = [sys.executable, "-c", FRAMES]
    digests = {
        subprocess.run([*run, str(i)], capture_output=True, text=True, check=True).stdout
        for i in (0, 2)
    }
    env = make("ALE/Boxing-v5", 2, protocol="atari200m")
    env.reset()
    for _ in range(30):
        env.step(env.sample())
    env._seeds[1] = 123
    frames = [env._raw_reset(np.array([False, True]))["image"][1]]
    for a in np.random.default_rng(0).integers(18, size=200):
        frames.append(env._raw_step(np.eye(18, dtype=np.float32)[[0, a]])[0]["image"][1])
    digests.add(hashlib.sha256(b"".join(f.tobytes() for f in frames)).hexdigest() + "\n")
    assert len(digests) == 1
    env.close()


def test_resetting_one_atari_stream_leaves_the_other_alone():
    a, b = (make("ALE/Pong-v5", 2, protocol="atari200m") for _ in range(2))
    same_rows(a.reset(), b.reset())
    for t in range(60):
        action = a.sample()
        frame, expected = a.step(action).obs["image"][0], b.step(action).obs["image"][0]
        np.testing.assert_array_equal(frame, expected)
        if t == 30:
            frames = a._raw_reset(np.array([False, True]))["image"]
            np.testing.assert_array_equal(frames[0], frame)
            assert (frames[1] != b._row.obs["image"][1]).any()
    a.close()
    b.close()


def test_atari_streams_at_different_steps_resume_together():
    env, fresh = make("ALE/MsPacman-v5", 2, 1), make("ALE/MsPacman-v5", 2, 2)
    row = env.reset()
    for _ in range(520):
        row = env.step(env.sample())
    assert len(env._actions[0]) != len(env._actions[1]) and env._episode.min() > 0
    same_rows(row, fresh.restore(*env.state()))
    for _ in range(20):
        action = env.sample()
        same_rows(env.step(action), fresh.step(action))
    env.close()
    fresh.close()


def test_atari_streams_resume_exactly_across_ends():
    options = {"protocol": "atari200m", "max_frames": 200}
    env, fresh = make("ALE/Pong-v5", 3, 1, **options), make("ALE/Pong-v5", 3, 2, **options)
    row = env.reset()
    for steps in (20, 30, 1, 40):  # in an episode, at its end, at the reset row, in the next one
        for _ in range(steps):
            row = env.step(env.sample())
        same_rows(row, fresh.restore(*env.state()))
        action = env.sample()
        same_rows(env.step(action), fresh.step(action))
    env.close()
    fresh.close()


# ------------------------------------------------------------------------------- dm_control


def control(domain, task, seed):
    """The environment as dm_control makes it, at the first moment of the episode of a seed."""
    from dm_control import suite

    env = suite.load(domain, task, task_kwargs={"random": seed})
    return env, env.reset()


def flat(moment):
    """All numbers of an observation of dm_control, by key."""
    return {key: np.float32(x).ravel() for key, x in moment.observation.items()}


@needs_dm_control
def test_a_body_is_told_by_vectors_and_moved_by_numbers():
    env = make("dmc/walker-walk", 2)
    assert env.obs_spec == {"height": (1,), "orientations": (14,), "velocity": (9,)}
    assert env.action_spec == ActionSpec(continuous=6) and env.repeat == 2
    env.close()


@needs_dm_control
def test_an_episode_equals_dm_control_where_every_action_is_held_for_two_frames():
    """A thousand frames are 500 steps; time ends them, so the last row is not terminal."""
    env = make("dmc/cartpole-swingup", 1, seed=3)
    row, (raw, moment) = env.reset(), control("cartpole", "swingup", episode_seed(3, 0, 0))
    score = 0.0
    for _ in range(500):
        for key, x in flat(moment).items():
            np.testing.assert_array_equal(row.obs[key][0], x)
        assert not moment.last() and not env.finished
        row = env.step(env.sample())
        frames = [raw.step(np.float64(row.prev_action[0])) for _ in range(2)]
        moment, reward = frames[-1], sum(x.reward for x in frames)
        assert row.reward[0] == np.float32(reward) and row.cont[0]
        score += row.reward[0]
    assert moment.last() and moment.discount == 1
    assert env.finished == [Episode(0, pytest.approx(score), 500, episode_seed(3, 0, 0))]
    second, (_, moment) = env.step(env.sample()), control("cartpole", "swingup", env._seeds[0])
    assert second.is_first[0] and second.cont[0] and env._seeds[0] == episode_seed(3, 0, 1)
    np.testing.assert_array_equal(second.obs["position"][0], flat(moment)["position"])


@needs_dm_control
def test_an_episode_ends_in_the_middle_of_a_step_and_discount_zero_is_terminal():
    env = Control("cartpole-balance", repeat=4)
    env.reset(seed=0)
    for last, discount in ((True, 0.0), (True, 1.0), (False, 1.0)):
        seen, moment = [], SimpleNamespace(reward=1.0, discount=discount, observation={})

        def step(action, moment=moment, seen=seen, last=last):
            seen.append(action)
            moment.last = lambda: last and len(seen) == 3
            return moment

        env.raw = SimpleNamespace(step=step)
        _, reward, terminated, truncated, _ = env.step(np.zeros(1))
        assert reward == len(seen) == (3 if last else 4)
        assert (terminated, truncated) == (last and discount == 0, last and discount == 1)


@needs_dm_control
def test_actions_are_stretched_to_the_range_of_every_motor():
    env = Control("quadruped-run")
    space, ends = env.action_space, np.repeat(np.float32([[-1], [1]]), 12, axis=1)
    low, high = envs.env_action(space, ends)
    motors = env.raw.action_spec()
    np.testing.assert_array_equal(low, motors.minimum)
    np.testing.assert_array_equal(high, motors.maximum)
    assert set(high) == {0.8, 1.0, 1.1} and env.camera == 2


@needs_dm_control
def test_bodies_that_are_drawn_at_random_are_the_same_in_every_run():
    one, two = (Control("lqr-lqr_2_1") for _ in range(2))
    np.testing.assert_array_equal(
        one.raw.physics.model.jnt_stiffness, two.raw.physics.model.jnt_stiffness
    )
    assert one.raw.physics.model.jnt_stiffness.all()


@needs_dm_control
def test_pixels_are_what_the_camera_sees_and_resume_exactly():
    name = "dmc/cartpole-swingup/pixels"
    env, fresh = make(name, 1, seed=3), make(name, 1, seed=9)
    assert env.obs_spec == {"image": (64, 64, 3)} and env.repeat == 2
    raw, moment = control("cartpole", "swingup", episode_seed(3, 0, 0))
    row = env.reset()
    for _ in range(3):
        picture = raw.physics.render(64, 64, camera_id=0)
        np.testing.assert_array_equal(row.obs["image"][0], picture)
        row = env.step(env.sample())
        for _ in range(2):
            raw.step(np.float64(row.prev_action[0]))
    assert len(np.unique(picture)) > 50
    same_rows(row, fresh.restore(*env.state()))
    env.close()
    fresh.close()


BLIND = """
from dreamer_lite.envs import make
env = make("dmc/cartpole-swingup")
env.reset()
env.step(env.sample())
try:
    make("dmc/cartpole-swingup/pixels")
except ValueError as error:
    print(error)
"""


@needs_dm_control
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has EGL and does without a screen")
def test_where_nothing_can_draw_vectors_work_and_pixels_name_the_remedy():
    hidden = ("MUJOCO_GL", "PYOPENGL_PLATFORM", "DISPLAY", "WAYLAND_DISPLAY")
    world = {k: v for k, v in os.environ.items() if k not in hidden}
    world["__EGL_VENDOR_LIBRARY_DIRS"] = "/none"  # a library without drivers
    run = [sys.executable, "-c", BLIND]
    said = subprocess.run(run, env=world, capture_output=True, text=True, check=True).stdout
    assert "'dmc/cartpole-swingup' cannot be drawn" in said and "libegl1" in said


@needs_dm_control
@pytest.mark.parametrize(
    "name, message",
    [
        ("walker-fly", "'walker-fly'; expected one of walker-run, walker-stand, walker-walk"),
        ("walkr-walk", "'walkr-walk'; expected one of acrobot, .*followed by -<task>"),
    ],
)
def test_an_unknown_task_is_answered_with_those_there_are(name, message):
    with pytest.raises(ValueError, match=message):
        make(f"dmc/{name}")


def test_without_dm_control_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "dm_control", None)
    monkeypatch.delitem(sys.modules, "dm_control.suite", raising=False)
    with pytest.raises(ValueError, match=r"'dmc/walker-walk' needs dm_control.*\[dmc\]"):
        make("dmc/walker-walk")


# ----------------------------------------------------------------- any world, by its pictures


class PaintedEnv(CountingEnv):
    """CountingEnv that draws its time as the shade of 128x128 pixels."""

    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode=None):
        super().__init__(length=5)
        self.render_mode = render_mode

    def render(self):
        return np.full((128, 128, 3), 10 * self.time, np.uint8)


def test_pixels_take_the_place_of_the_observation_and_nothing_else():
    gymnasium.register("Painted-v0", PaintedEnv)
    try:
        env, plain = make("Painted-v0/pixels", 2), make("Painted-v0", 2)
    finally:
        del gymnasium.registry["Painted-v0"]
    assert env.obs_spec == {"image": (64, 64, 3)} and env.action_spec == plain.action_spec
    rows, others = (rollout(x, 8, lambda row: np.zeros((2, 1))) for x in (env, plain))
    shown = rows.obs["image"].astype(float)
    np.testing.assert_array_equal(shown.min((2, 3, 4)), shown.max((2, 3, 4)))
    np.testing.assert_array_equal(shown[:, :, 0, 0, 0], 10 * others.obs["vector"][..., 0])
    same_rows(rows._replace(obs={}), others._replace(obs={}))


@pytest.mark.parametrize(
    "env_id, message",
    [
        ("dreamer_lite/Fork-v0/pixels", "'dreamer_lite/Fork-v0' cannot be drawn.*without '/pix"),
        ("Nope-v0/pixels", "cannot make 'Nope-v0/pixels'"),
        ("ALE/Pong-v5/pixels", "unknown game 'ALE/Pong-v5/pixels'"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*render_mode")
def test_pixels_that_are_not_there_are_refused(env_id, message):
    with pytest.raises(ValueError, match=message):
        make(env_id)
