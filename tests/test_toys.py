"""The toys keep their rules, and the exact solution of Catch agrees with playing it."""

import gymnasium
import numpy as np
import pytest

import dreamer_lite  # noqa: F401  (registers the toys)
from dreamer_lite import toys
from dreamer_lite.toys import (
    REACH_RANDOM,
    Catch,
    Fork,
    MiniPong,
    OptimalCatcher,
    Reach,
    optimal_return,
    reach_optimum,
    steer,
)

IDS = ["FlickerCatch", "NoisyCatch", "ScaleCatch", "Fork", "MiniPong", "Reach"]


def play(env, act, seed):
    """One episode: (return, steps, truncated)."""
    obs, _ = env.reset(seed=seed)
    score, steps, terminated, truncated = 0.0, 0, False, False
    while not (terminated or truncated):
        obs, reward, terminated, truncated, _ = env.step(act(obs, env))
        score, steps = score + reward, steps + 1
    return score, steps, truncated


def random_policy(seed=0):
    rng = np.random.default_rng(seed)
    return lambda obs, env: int(rng.integers(env.action_space.n))


def optimal(p):
    """A policy that starts a new filter at the first step of every episode."""
    catcher = None

    def act(obs, env):
        nonlocal catcher
        catcher = OptimalCatcher(p) if env.time == 0 else catcher
        return catcher.act(obs)

    return act


@pytest.mark.parametrize("name", IDS)
def test_every_toy_is_registered_and_stays_in_its_spaces(name):
    env = gymnasium.make(f"dreamer_lite/{name}-v0", disable_env_checker=True)
    obs, _ = env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(60):
        assert obs.dtype == np.uint8 and obs.shape == (16, 16, 1) and obs in env.observation_space
        obs, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            obs, _ = env.reset()


@pytest.mark.parametrize("name", IDS)
def test_a_toy_is_determined_by_its_seed_and_actions(name):
    def frames(seed):
        env = gymnasium.make(f"dreamer_lite/{name}-v0").unwrapped
        env.reset(seed=7)  # a past must not matter
        env.action_space.seed(1)
        seen = [env.reset(seed=seed)[0]]
        return np.stack(seen + [env.step(env.action_space.sample())[0] for _ in range(10)])

    np.testing.assert_array_equal(frames(3), frames(3))
    assert any((frames(3) != frames(seed)).any() for seed in (4, 5, 6))


# ------------------------------------------------------------------------------------ Catch


def test_the_ball_falls_from_the_top_to_the_paddle_in_ten_steps():
    env = Catch()
    obs, _ = env.reset(seed=0)
    rows = []
    for _ in range(toys.STEPS + 1):
        rows.append(int(np.flatnonzero(obs[:15, :, 0].any(1))[0]))
        obs, _, terminated, _, _ = env.step(1)
    assert rows == [0, 1, 2, 3, 5, 6, 7, 9, 10, 11, 13]


def test_the_ball_bounces_at_both_walls():
    assert toys.roll(0, -1) == (1, 1) and toys.roll(14, 1) == (13, -1)
    assert toys.roll(1, -1) == (0, -1) and toys.roll(13, 1) == (14, 1) and toys.roll(0, 0) == (0, 0)


def test_the_paddle_reaches_every_column():
    visited = {toys.PADDLE_START}
    for _ in range(10):
        visited |= {toys.move(p, a) for p in visited for a in range(3)}
    assert visited == {0, 2, 4, 6, 8, 10, 12}
    assert all(any(toys.caught(p, c) for p in visited) for c in range(toys.COLUMNS))


def test_only_the_last_step_pays():
    env = Catch(scale=100.0)
    env.reset(seed=1)
    rewards = [env.step(1)[1] for _ in range(10)]
    assert rewards[:9] == [0.0] * 9 and abs(rewards[9]) == 100


def test_a_fifth_of_the_frames_is_blank():
    env, blanks = Catch(blank=0.2), []
    for seed in range(200):
        obs, _ = env.reset(seed=seed)
        blanks.append(obs.max() == 0)
        for _ in range(10):
            obs, *_ = env.step(1)
            blanks.append(obs.max() == 0)
    assert abs(np.mean(blanks) - 0.2) < 3 * (0.2 * 0.8 / len(blanks)) ** 0.5


def test_the_noisy_background_changes_in_every_frame_and_never_hides_the_ball():
    env = Catch(noise=128)
    first, _ = env.reset(seed=0)
    second, *_ = env.step(1)
    assert (first != second).mean() > 0.9 and first[first < toys.INK].max() < 128
    assert toys.ball_column(second, 1) == env.column


# ------------------------------------------------------------------------------- Catch solved


def test_without_blanks_the_optimum_is_to_catch_every_ball():
    assert optimal_return(0.0) == pytest.approx(1.0, abs=1e-12)


def test_blind_the_optimum_is_the_best_place_to_wait():
    landings = []
    for column, velocity, weight in toys.first_belief():
        assert weight == 1
        for _ in range(toys.STEPS):
            column, velocity = toys.roll(column, velocity)
        landings.append(column)
    odds = [np.mean([toys.caught(p, c) for c in landings]) for p in range(0, 13, 2)]
    assert optimal_return(1.0) == pytest.approx(2 * max(odds) - 1)


def test_the_optimum_falls_as_frames_vanish():
    returns = [optimal_return(p) for p in (0.0, 0.2, 0.5, 0.8, 1.0)]
    assert all(a > b for a, b in zip(returns, returns[1:], strict=False))


def test_the_optimal_return_of_flicker_catch_is_known():
    assert optimal_return(0.2) == pytest.approx(0.99997652, abs=1e-8)


@pytest.mark.parametrize("p", [0.5, 0.8])
def test_playing_the_solution_earns_its_value(p):
    env = Catch(blank=p)
    scores = [play(env, optimal(p), seed)[0] for seed in range(1000)]
    error = np.std(scores) / len(scores) ** 0.5
    assert abs(np.mean(scores) - optimal_return(p)) < 3 * error


def test_the_solution_catches_at_the_default_flicker():
    env = Catch(blank=0.2)
    assert np.mean([play(env, optimal(0.2), seed)[0] for seed in range(300)]) > 0.98


def test_chasing_what_is_visible_falls_short_of_the_optimum():
    def chase(obs, env):  # moves under the ball where it sees it, forgets everything
        column = toys.ball_column(obs, env.time)
        return 1 if column is None else int(np.sign(column - 1 - env.paddle)) + 1

    score = np.mean([play(Catch(blank=0.2), chase, seed)[0] for seed in range(500)])
    assert 0.8 < score < 0.93 < optimal_return(0.2)


def test_the_belief_is_the_posterior_by_enumeration():
    seen = [None, 4, None, None]  # columns seen at times 0..3
    counts = {}
    for c0, v0, _ in toys.first_belief():
        path = [(c0, v0)]
        for _ in range(3):
            path.append(toys.roll(*path[-1]))
        if all(s is None or s == c for s, (c, _) in zip(seen, path, strict=True)):
            counts[path[-1]] = counts.get(path[-1], 0) + 1
    belief = toys.first_belief()
    for time, column in enumerate(seen):
        belief = toys.update(toys.predict(belief) if time else belief, column)
    assert belief == toys.normalize(counts)


# ------------------------------------------------------------------------------------- Fork


def test_fork_takes_both_branches_and_pays_a_right_bet():
    branches, scores = [], []
    for seed in range(400):
        env = Fork()
        score, steps, truncated = play(env, lambda obs, env: 1, seed)
        assert steps == 12 and not truncated and score == (env.branch == 1)
        branches.append(env.branch)
        scores.append(score)
    assert set(branches) == {-1, 1} and abs(np.mean(scores) - 0.5) < 3 * 0.5 / 400**0.5


def test_fork_looks_the_same_before_the_junction_and_pays_on_arriving_in_the_branch():
    def episode(seed):
        env = Fork()
        steps = [env.reset(seed=seed)] + [env.step(1) for _ in range(12)]
        return env.branch, np.stack([s[0] for s in steps]), [s[1] for s in steps[1:]]

    runs = {branch: (frames, rewards) for branch, frames, rewards in map(episode, range(20))}
    up, down = runs[-1], runs[1]
    np.testing.assert_array_equal(up[0][:7], down[0][:7])
    assert all((up[0][t] != down[0][t]).any() for t in range(7, 13))
    assert down[1] == [0.0] * 6 + [1.0] + [0.0] * 5 and up[1] == [0.0] * 12


# --------------------------------------------------------------------------------- MiniPong


def track(obs, env):
    """Keeps the middle of the paddle at the middle of the ball."""
    return int(np.sign(env.y - 1 - env.paddles[1])) + 1


def test_a_tracker_wins_mini_pong_and_a_random_agent_loses():
    env = MiniPong()
    wins = np.array([play(env, track, seed) for seed in range(100)])
    losses = np.array([play(env, random_policy(seed), seed) for seed in range(100)])
    assert wins[:, 0].mean() >= 3.5 and losses[:, 0].mean() <= -1.5
    assert wins[:, 1].mean() < 300 and wins[:, 2].mean() <= 0.05


def test_mini_pong_ends_at_five_points_or_is_truncated():
    env = MiniPong()
    score, _, truncated = play(env, track, 0)
    assert not truncated and max(env.score) == 5 and score == env.score[1] - env.score[0]
    _, steps, truncated = play(MiniPong(error=0.0, limit=200), track, 0)  # nobody misses
    assert steps == 200 and truncated


def test_everything_in_mini_pong_moves_at_most_one_pixel_per_step():
    env = MiniPong()
    env.reset(seed=0)
    act = random_policy()
    for _ in range(300):
        x, y, paddles, points = env.x, env.y, list(env.paddles), list(env.score)
        _, _, terminated, _, _ = env.step(act(None, env))
        served = env.score != points
        assert served or (abs(env.x - x) == 1 and abs(env.y - y) == 1)
        assert max(abs(a - b) for a, b in zip(paddles, env.paddles, strict=True)) <= 1
        if terminated:
            env.reset()


# ------------------------------------------------------------------------------------ Reach


def best(obs, env):
    return steer(env.position, env.target)


def test_steering_earns_the_optimum_and_random_play_a_third_per_step():
    rng = np.random.default_rng(0)
    for act, expected in (
        (best, reach_optimum()),
        (lambda obs, env: rng.uniform(-1, 1, 2), REACH_RANDOM),
    ):
        played = [play(Reach(), act, seed) for seed in range(400)]
        scores = [score for score, _, _ in played]
        assert abs(np.mean(scores) - expected) < 3 * np.std(scores) / len(scores) ** 0.5
        assert all(steps == 20 and truncated for _, steps, truncated in played)
    assert reach_optimum() == pytest.approx(18.65, abs=1e-12)


def test_steering_shortens_both_distances_by_a_tenth_per_step_until_they_are_zero():
    env = Reach()
    env.reset(seed=3)
    distance = abs(env.position - env.target)
    for t in range(1, 21):
        reward = env.step(best(None, env))[1]
        left = (distance - 0.1 * t).clip(0)
        np.testing.assert_allclose(abs(env.position - env.target), left, atol=1e-12)
        assert reward == pytest.approx(1 - left.sum(), abs=1e-12)
    assert left.sum() == 0


def test_no_other_actions_earn_more_than_steering():
    rng, env = np.random.default_rng(0), Reach()
    for seed in range(30):
        env.reset(seed=seed)
        start = env.position
        most = sum(env.step(best(None, env))[1] for _ in range(3))
        for actions in rng.uniform(-1, 1, (20, 3, 2)).round(rng.integers(2)):
            env.position = start
            assert sum(env.step(a)[1] for a in actions) <= most + 1e-12


def test_walls_mirror_the_dot_and_actions_are_clipped():
    env = Reach()
    env.reset(seed=0)
    env.position = np.array([0.97, 0.02])
    env.step([5.0, -5.0])
    np.testing.assert_allclose(env.position, [0.93, 0.08])


def test_the_shades_tell_the_exact_place():
    rng, pixels = np.random.default_rng(0), np.arange(16) + 0.5
    for place in (*rng.random((50, 2)), np.zeros(2), np.ones(2)):
        share = toys.square(place)
        assert share.max() <= 1 and share.sum() == pytest.approx(16)
        middle = [share.sum(1) @ pixels / 16, share.sum(0) @ pixels / 16]
        np.testing.assert_allclose(middle, 12 * place + 2)


def test_the_dot_is_brighter_than_the_target_and_hides_it():
    env = Reach()
    env.reset(seed=0)
    env.position, env.target = np.zeros(2), np.array([1.0, 0.5])
    obs = env._frame()[..., 0]
    assert (obs[:4, :4] == 255).all() and (obs[12:, 6:10] == 128).all() and (obs > 0).sum() == 32
    env.position = env.target
    assert set(np.unique(env._frame())) == {0, 255}
