"""The whole agent: how one update hangs together, and how it acts.  (Routing has its own file.)"""

import copy
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from dreamer_lite.distributions import OneHots
from dreamer_lite.envs import Row
from dreamer_lite.optim import LaProp
from dreamer_lite.presets import Optimizers
from dreamer_lite.rssm import State

# --- one update ----------------------------------------------------------------------------------


def trained(updates=1, seed=0, lr=1e-2, warmup=0, cfg=None):
    cfg = replace(cfg or tiny.config(), optim=Optimizers(LaProp(lr=lr, warmup=warmup)))
    torch.manual_seed(seed)
    agent, batch = tiny.agent(cfg=cfg), tiny.batch()
    before = copy.deepcopy(agent.state_dict())
    for _ in range(updates):
        states, metrics = agent.update(batch)
    return agent, before, states, metrics


def test_one_update_moves_every_part():
    agent, before, _, _ = trained()
    after = agent.state_dict()
    still = {k for k in before if torch.equal(before[k], after[k])}
    assert not still, "these parameters did not move"


def test_an_actor_that_learns_through_the_model_has_its_own_optimizer():
    cfg = tiny.config()
    behavior = replace(cfg.behavior, actor=replace(cfg.behavior.actor, rho=0.0))
    agent = tiny.agent(cfg=replace(cfg, behavior=behavior, optim=Optimizers(LaProp())))
    assert list(agent.optimizers) == ["model", "actor"]
    assert all(name.startswith("behavior.policy") for name in agent.optimizers["actor"].params)
    torch.manual_seed(0)
    losses, _, _ = agent.losses(tiny.batch(), None)
    whole = agent.gradients(losses)
    torch.manual_seed(0)
    agent.behavior.scale.range.zero_()
    again, _, _ = agent.losses(tiny.batch(), None)
    alone = agent.gradients(again | {"actor": 1e3 * again["actor"]})
    for one, other in zip(whole["model"], alone["model"], strict=True):
        torch.testing.assert_close(one, other)
    assert not all(map(torch.equal, whole["actor"], alone["actor"]))


def test_the_first_update_of_a_warm_up_moves_only_the_return_scale():
    agent, before, _, _ = trained(warmup=10)
    moved = {k for k, x in agent.state_dict().items() if not torch.equal(before[k], x)}
    assert moved == {"behavior.scale.range"} and agent.updates == 1


def test_the_slow_critic_follows_after_the_step():
    agent, before, _, _ = trained()
    after = agent.state_dict()
    for k in (k for k in before if k.startswith("behavior.slow_critic.")):
        fast = after[k.replace("slow_critic", "critic")]
        torch.testing.assert_close(after[k], 0.98 * before[k] + 0.02 * fast)


def test_updates_lower_the_losses_of_a_batch():
    _, _, _, first = trained(1, lr=1e-3)
    _, _, _, last = trained(30, lr=1e-3)
    for name in ("loss/obs/image", "loss/obs/vector", "loss/reward", "loss/cont"):
        assert last[name] < first[name], name


def test_an_update_answers_with_detached_states_and_numbers():
    _, _, states, metrics = trained()
    assert states.h.shape == (6, 3, 64) and not states.feat.requires_grad
    assert all(x.shape == () and x.isfinite() and not x.requires_grad for x in metrics.values())
    expected = {
        "obs/image",
        "obs/vector",
        "reward",
        "cont",
        "kl",
        "actor",
        "critic",
        "replay_critic",
    }
    assert {k[5:] for k in metrics if k.startswith("loss/")} == expected


def test_the_same_seed_gives_the_same_agent_and_another_seed_another():
    runs = [trained(2, seed)[0].state_dict() for seed in (0, 0, 1)]
    assert all(torch.equal(runs[0][k], runs[1][k]) for k in runs[0])
    assert any(not torch.equal(runs[0][k], runs[2][k]) for k in runs[0])


def test_a_batch_is_the_same_after_an_update():
    agent, batch = tiny.agent(), tiny.batch()
    kept = copy.deepcopy(batch)
    agent.update(batch)
    assert all(torch.equal(batch.obs[k], kept.obs[k]) for k in batch.obs)
    assert all(torch.equal(x, y) for x, y in zip(batch[1:], kept[1:], strict=True))


def test_every_replayed_state_starts_a_dream_with_its_own_flag(monkeypatch):
    agent, batch = tiny.agent(), tiny.batch()
    seen = []
    dream = agent.behavior.dream

    def listen(model, start, cont):
        seen.append((start, cont))
        return dream(model, start, cont)

    monkeypatch.setattr(agent.behavior, "dream", listen)
    _, states, _ = agent.losses(batch, None)
    start, cont = seen[0]
    assert torch.equal(start.h, states.h.flatten(0, 1)) and not start.feat.requires_grad
    assert torch.equal(cont, batch.cont.flatten()) and not cont.all()


def test_replayed_values_are_bootstrapped_by_the_dream_of_the_same_state(monkeypatch):
    agent, batch = tiny.agent(), tiny.batch()
    seen = {}
    dream, replay_loss = agent.behavior.dream, agent.behavior.replay_loss

    def dreaming(*args):
        seen["dream"] = dream(*args)
        return seen["dream"]

    def replaying(states, batch, bootstrap, gamma):
        seen["bootstrap"], seen["gamma"] = bootstrap, gamma
        seen["loss"] = replay_loss(states, batch, bootstrap, gamma)
        return seen["loss"]

    monkeypatch.setattr(agent.behavior, "dream", dreaming)
    monkeypatch.setattr(agent.behavior, "replay_loss", replaying)
    losses, _, _ = agent.losses(batch, None)
    assert torch.equal(seen["bootstrap"].flatten(), seen["dream"].ret[0])
    torch.testing.assert_close(losses["replay_critic"], 0.3 * seen["loss"])
    assert seen["bootstrap"].shape == batch.reward.shape and seen["gamma"] == 1 - 1 / 333


@pytest.mark.parametrize("name", tiny.PAPERS)
@pytest.mark.parametrize("spec", tiny.ACTIONS.values(), ids=tiny.ACTIONS)
def test_one_update_of_every_paper_moves_every_part(name, spec):
    cfg = tiny.PAPERS[name]
    kl = replace(cfg.model.kl, free=0.0)  # below the free nats the prior does not move
    cfg = replace(cfg, model=replace(cfg.model, kl=kl))
    if cfg.optim.actor is None:
        cfg = replace(cfg, optim=Optimizers(LaProp(lr=1e-2, warmup=0)))
    agent = tiny.agent(spec, cfg=cfg)
    before = {k: x.clone() for k, x in agent.named_parameters()}
    _, metrics = agent.update(tiny.batch(spec))
    still = [k for k, x in agent.named_parameters() if torch.equal(before[k], x)]
    assert not still and all(x.isfinite() for x in metrics.values())


def test_v2_copies_its_critic_after_the_first_step_and_every_hundredth():
    agent = tiny.agent(cfg=tiny.PAPERS["V2"])
    same = lambda: all(  # noqa: E731
        torch.equal(a, b)
        for a, b in zip(
            agent.behavior.critic.parameters(), agent.behavior.slow_critic.parameters(), strict=True
        )
    )
    batch = tiny.batch(time=2, size=1)
    agent.update(batch)
    assert same()
    agent.update(batch)
    assert not same()
    agent.updates = 100
    agent.update(batch)
    assert same()


def test_separate_optimizers_move_their_own_part_by_their_own_loss():
    cfg = replace(tiny.config(), optim=Optimizers(LaProp(), LaProp(), LaProp()))
    agent = tiny.agent(cfg=cfg)
    assert list(agent.optimizers) == ["model", "actor", "critic"]
    named = {k: set(o.params) for k, o in agent.optimizers.items()}
    assert all(k.startswith("world_model.") for k in named["model"])
    assert all(k.startswith("behavior.policy.") for k in named["actor"])
    assert all(k.startswith("behavior.critic.") for k in named["critic"])
    losses, _, _ = agent.losses(tiny.batch(), None)
    together = sum(v for k, v in losses.items() if k not in ("actor", "critic"))
    expected = torch.autograd.grad(
        together, list(agent.optimizers["model"].params.values()), retain_graph=True
    )
    for g, e in zip(agent.gradients(losses)["model"], expected, strict=True):
        torch.testing.assert_close(g, e)


def test_the_weight_of_reconstruction_scales_its_gradient_and_no_other():
    cfg = tiny.config()
    heavy = replace(cfg, model=replace(cfg.model, obs_scale=16.0))
    found = []
    for c in (cfg, heavy):
        torch.manual_seed(0)
        agent = tiny.agent(cfg=c)
        losses, _, _ = agent.losses(tiny.batch(), None)
        names = agent.optimizers["model"].params
        found.append(dict(zip(names, agent.gradients(losses)["model"], strict=True)))
    for name, gradient in found[0].items():
        if ".decoder." in name:
            torch.testing.assert_close(found[1][name], 16 * gradient)
        if name.startswith("behavior."):
            torch.testing.assert_close(found[1][name], gradient)


def shallow(cfg):
    """One hidden layer in each network: a thousand updates in ten seconds."""
    actor, critic = (replace(x, layers=1) for x in (cfg.behavior.actor, cfg.behavior.critic))
    behavior = replace(cfg.behavior, actor=actor, critic=critic)
    return replace(
        cfg, model=replace(cfg.model, vector_layers=1, prior_layers=1), behavior=behavior
    )


@pytest.mark.slow
def test_rewards_of_ten_thousand_stay_finite_for_a_thousand_updates():
    cfg, obs = shallow(tiny.config(1)), {"vector": (5,)}
    cfg = replace(cfg, optim=Optimizers(LaProp(lr=1e-3, warmup=0)))
    agent, batch = tiny.agent(obs=obs, cfg=cfg), tiny.batch(obs=obs, time=2, size=2)
    batch = batch._replace(reward=1e4 * batch.reward.sign())
    for count in range(1000):
        _, metrics = agent.update(batch)
        assert torch.stack(list(metrics.values())).isfinite().all(), f"update {count}: {metrics}"
    assert metrics["loss/reward"] < 3, "5.5 is the price of knowing nothing"


@pytest.fixture
def same_dice(monkeypatch):
    """same_dice(): what was thrown so far falls once more, so that rounding rolls no other dice."""
    thrown, throw = [], OneHots._straight_through

    def watched(self, index):
        thrown.append(index)
        return throw(self, index)

    def again():
        once_more = iter(thrown)
        monkeypatch.setattr(OneHots, "_straight_through", lambda p, _: throw(p, next(once_more)))

    monkeypatch.setattr(OneHots, "_straight_through", watched)
    return again


def test_half_precision_computes_the_same_losses_within_two_percent(same_dice):
    agent, batch = tiny.agent(), tiny.batch()
    heads = agent.world_model.reward_net, agent.behavior.critic, agent.behavior.slow_critic
    for net, peak in zip(heads, (3, 0, 0), strict=True):
        # As training leaves them: bins of 1e8 have no weight. Rewards near 20 above values near 0
        # give advantages of one sign, whose mean does not cancel to nothing.
        net[-1].bias.data.copy_(-(torch.linspace(-20, 20, 255) - peak).abs())
    exact = agent.losses(batch, None)[0]
    same_dice()
    agent.behavior.scale.range.zero_()
    with torch.autocast("cpu", torch.bfloat16):
        rough = agent.losses(batch, None)[0]
    assert {"actor", "critic", "replay_critic", "kl", "reward"} <= exact.keys()
    for name, loss in exact.items():
        assert rough[name].dtype == torch.float32
        torch.testing.assert_close(rough[name], loss, rtol=0.02, atol=0)


def test_saved_weights_are_the_agent():
    agent, other = tiny.agent(), tiny.agent()
    other.load_state_dict(agent.state_dict())
    answers = []
    for a in (agent, other):
        torch.manual_seed(3)
        a.behavior.scale.update(torch.arange(10.0))
        answers.append(a.losses(tiny.batch(), None)[0])
    assert answers[0] == answers[1]


# --- acting --------------------------------------------------------------------------------------


def row_at(batch, t):
    """The rows at time t as an environment gives them."""
    obs = {k: x[t].numpy() for k, x in batch.obs.items()}
    return Row(obs, *(x[t].numpy() for x in batch[1:]))


@pytest.mark.parametrize("mode", [False, True])
@pytest.mark.parametrize("spec", tiny.ACTIONS.values(), ids=tiny.ACTIONS)
def test_actions_are_what_the_environment_expects(spec, mode):
    agent, batch = tiny.agent(spec), tiny.batch(spec)
    action, state = agent.act(row_at(batch, 0), agent.initial(3), mode)
    assert action.dtype == np.float32 and action.shape == (3, spec.size)
    assert state.h.shape == (3, 64) and not state.feat.requires_grad
    for choice in np.split(action, np.cumsum(spec.discrete)[:-1], 1) if spec.discrete else ():
        assert (choice.sum(1) == 1).all() and set(choice.flatten()) == {0, 1}


def test_acting_row_by_row_remembers_what_training_remembers(monkeypatch):
    monkeypatch.setattr(OneHots, "sample", OneHots.mode)
    agent, batch = tiny.agent(), tiny.batch()
    states, _ = agent.world_model.observe(batch, None)
    state = agent.initial(3)
    for t in range(6):
        _, state = agent.act(row_at(batch, t), state)
        torch.testing.assert_close(state.h, states.h[t], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", tiny.PAPERS)
def test_the_posterior_is_sampled_even_where_the_action_is_the_likeliest(name):
    agent, row = tiny.agent(cfg=tiny.PAPERS[name]), row_at(tiny.batch(), 0)
    states = [agent.act(row, agent.initial(3), mode=True)[1] for _ in range(2)]
    assert torch.equal(states[0].h, states[1].h) and not torch.equal(states[0].z, states[1].z)


@pytest.mark.parametrize("name", tiny.PAPERS)
def test_the_actor_reads_features_without_a_gradient(name):
    agent, seen = tiny.agent(cfg=tiny.PAPERS[name]), []
    agent.behavior.policy.register_forward_pre_hook(lambda _, feat: seen.append(feat[0]))
    agent.losses(tiny.batch(), None)
    horizon = agent.cfg.behavior.horizon  # asked at every step, then about the whole dream
    assert len(seen) == horizon + 1 and not any(feat.requires_grad for feat in seen)


def test_only_v1_disturbs_what_it_does_while_it_collects():
    for name, cfg in tiny.PAPERS.items():
        agent = tiny.agent(tiny.NUMBERS, cfg=cfg)
        action = np.zeros((3, 2), np.float32)
        found = agent.explore(action)
        assert found.dtype == np.float32 and (found is action) == (name != "V1"), name
        assert (cfg.behavior.actor.noise, cfg.behavior.actor.greedy) == (
            0.3 if name == "V1" else 0.0,
            name != "V3",
        )


@pytest.mark.parametrize("name", tiny.PAPERS)
def test_the_likeliest_actions_of_every_paper_are_possible_ones(name):
    for spec in tiny.ACTIONS.values():
        agent = tiny.agent(spec, cfg=tiny.PAPERS[name])
        action, _ = agent.act(row_at(tiny.batch(spec), 0), agent.initial(3), mode=True)
        assert action.shape == (3, spec.size) and np.abs(action).max() <= 1


def test_replayed_rewards_are_squashed_like_those_of_the_model():
    cfg = tiny.config()
    cfg = replace(cfg, model=replace(cfg.model, squash=torch.tanh))
    agent, batch = tiny.agent(cfg=cfg), tiny.batch()
    loud = batch._replace(reward=1e6 * batch.reward.sign())
    louder = batch._replace(reward=1e9 * batch.reward.sign())
    found = []
    for rows in (loud, louder):
        torch.manual_seed(0)
        found.append(agent.losses(rows, None)[0])
        agent.behavior.scale.range.zero_()
    assert found[0]["replay_critic"] == found[1]["replay_critic"]
    assert found[0]["reward"] == found[1]["reward"]


def test_the_most_likely_action_needs_no_luck_and_samples_do():
    agent, batch = tiny.agent(tiny.NUMBERS), tiny.batch(tiny.NUMBERS)
    state = State(torch.rand(3, 64), torch.rand(3, 128))
    policy = agent.behavior.policy(state.feat)
    assert torch.equal(policy.mode(), policy.mean)
    drawn = [agent.act(row_at(batch, 0), state)[0] for _ in range(2)]
    assert not np.array_equal(*drawn)
