"""All three papers learn: a task of buttons that needs memory, and one of numbers.

Each run takes from ten minutes to an hour of one processor core, so only `make test-slow` does
them. What is asked is a share of the way from random play (0) to the exact optimum (1).
"""

from dataclasses import replace
from typing import NamedTuple

import pytest

from dreamer_lite import envs, toys, training
from dreamer_lite.presets import TOY, TOY_V1, TOY_V2, V2_DMC, Config

CATCH, REACH = "dreamer_lite/FlickerCatch-v0", "dreamer_lite/Reach-v0"
BEST = {CATCH: toys.optimal_return(0.2), REACH: toys.reach_optimum()}


class Case(NamedTuple):
    """What is trained, on what, for how long, and the least share of the optimum it must reach."""

    cfg: Config
    env: str
    steps: int
    share: float


def control(cfg: Config) -> Config:
    """DreamerV2 as it learns continuous actions: dynamics backprop and a smaller entropy bonus."""
    paper = V2_DMC.behavior.actor
    actor = replace(cfg.behavior.actor, rho=paper.rho, eta=paper.eta)
    return replace(cfg, behavior=replace(cfg.behavior, actor=actor))


CASES = {
    "V1, buttons": Case(TOY_V1, CATCH, 192_000, 0.5),
    "V2, buttons": Case(TOY_V2, CATCH, 192_000, 0.5),
    "V3, buttons": Case(TOY, CATCH, 192_000, 0.8),
    "V1, numbers": Case(TOY_V1, REACH, 192_000, 0.5),
    "V2, numbers": Case(control(TOY_V2), REACH, 192_000, 0.5),
    "V3, numbers": Case(TOY, REACH, 192_000, 0.5),
}


def random_play(env: str, episodes: int = 1000) -> float:
    """Mean return of uniformly random actions."""
    world, scores = envs.make(env, 8, seed=1), []
    world.reset()
    while len(scores) < episodes:
        world.step(world.sample())
        scores += [episode.score for episode in world.finished]
    world.close()
    return sum(scores) / len(scores)


def share(score: float, env: str) -> float:
    """0: random play, 1: the optimum."""
    low = random_play(env)
    return (score - low) / (BEST[env] - low)


def hurried(cfg: Config, updates: int) -> tuple[Config, int]:
    """Settings that begin to learn at once, and the steps in which they do so many updates."""
    begin, size = 40 * cfg.envs, cfg.replay.batch * cfg.replay.length
    prefill = begin if cfg.replay.prefill else 0
    replay = replace(cfg.replay, warmup=begin, prefill=prefill, ratio=size / cfg.envs)
    return replace(cfg, replay=replay), begin + (updates - 1) * cfg.envs


@pytest.mark.parametrize("name", CASES)
def test_every_case_can_be_trained_and_evaluated(name, tmp_path):
    case = CASES[name]
    cfg, steps = hurried(case.cfg, updates=2)
    agent = training.train(cfg, case.env, steps, tmp_path, progress=False)
    assert agent.updates == 2
    assert training.evaluate(agent, case.env, 1).cut == 0


def test_random_play_is_far_from_the_optimum():
    assert random_play(REACH) == pytest.approx(toys.REACH_RANDOM, abs=0.3)
    assert share(BEST[CATCH], CATCH) == 1 and random_play(CATCH) < -0.5


@pytest.mark.learning
@pytest.mark.parametrize("name", CASES)
def test_it_learns(name, tmp_path):
    case = CASES[name]
    agent = training.train(case.cfg, case.env, case.steps, tmp_path, progress=False)
    score = training.evaluate(agent, case.env, 100)
    reached = share(score.mean, case.env)
    print(f"{name}: {score.mean:.2f} ± {score.sd:.2f}, share {reached:.2f}, {case.steps} steps")
    assert reached >= case.share
