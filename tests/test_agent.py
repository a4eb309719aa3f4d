"""The whole agent: which loss moves which part, and how one update hangs together."""

import copy
from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
import tiny
import torch

from dreamer_lite.distributions import OneHots
from dreamer_lite.envs import Row
from dreamer_lite.optim import LaProp
from dreamer_lite.presets import Optimizers
from dreamer_lite.rssm import State
from dreamer_lite.world_model import kl_loss

# --- who is moved by what ------------------------------------------------------------------------

PARTS = "encoder core prior posterior decoder reward continue actor critic slow".split()
ROUTES = {  # 1: the loss moves this part; 0: its gradient is exactly zero
    "reconstruction": "1101100000",
    "dyn":            "1111000000",  # encoder and posterior through earlier steps only
    "rep":            "1101000000",
    "reward":         "1101010000",
    "continue":       "1101001000",
    "actor":          "0000000100",
    "critic":         "0000000010",
    "replay critic":  "1101000010",
}  # fmt: skip


def parts_of(agent):
    model, behavior = agent.world_model, agent.behavior
    return {
        "encoder": model.encoder,
        "core": model.rssm.cell,
        "prior": model.rssm.prior_net,
        "posterior": model.rssm.post_net,
        "decoder": model.decoder,
        "reward": model.reward_net,
        "continue": model.cont_net,
        "actor": behavior.policy,
        "critic": behavior.critic,
        "slow": behavior.slow_critic.requires_grad_(),  # would be moved if something let it
    }


def all_losses(agent, batch):
    """Every row of the table as a number, KL split in two and without its floor."""
    start = agent.initial(batch.reward.shape[1])
    losses, _, _ = agent.losses(batch, start)
    states, q = agent.world_model.observe(batch, start)
    kl = partial(kl_loss, q, agent.world_model.rssm.prior(states.h), free=0.0, per_step=True)
    return {
        "reconstruction": losses["obs/image"] + losses["obs/vector"],
        "dyn": kl(dyn=1.0, rep=0.0),
        "rep": kl(dyn=0.0, rep=1.0),
        "reward": losses["reward"],
        "continue": losses["cont"],
        "actor": losses["actor"],
        "critic": losses["critic"],
        "replay critic": losses["replay_critic"],
    }


def gradient_norms(agent, batch):
    """{loss: {part: ‖gradient‖}}."""
    parts = parts_of(agent)
    weights = {k: list(part.parameters()) for k, part in parts.items()}
    flat = [p for ps in weights.values() for p in ps]
    norms = {}
    for name, loss in all_losses(agent, batch).items():
        found = torch.autograd.grad(loss, flat, retain_graph=True, materialize_grads=True)
        of = dict(zip(flat, found, strict=True))
        norms[name] = {k: sum(of[p].norm().item() for p in ps) for k, ps in weights.items()}
    return norms


@cache
def table(spec):
    torch.manual_seed(0)
    return gradient_norms(tiny.agent(spec), tiny.batch(spec))


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("loss", ROUTES)
@pytest.mark.parametrize("spec", [tiny.ONE_CHOICE, tiny.NUMBERS], ids=["choice", "numbers"])
def test_routing(spec, loss, part):
    norm = table(spec)[loss][part]
    moved = ROUTES[loss][PARTS.index(part)] == "1"
    assert (norm > 0) == moved, f"‖∂ {loss} / ∂ {part}‖ = {norm}"


def test_where_every_row_starts_an_episode_the_prior_learns_alone():
    agent, batch = tiny.agent(), tiny.batch()
    first = torch.ones_like(batch.is_first)
    norms = gradient_norms(agent, batch._replace(is_first=first))["dyn"]
    assert norms["prior"] > 0 and norms["encoder"] == norms["posterior"] == 0


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


def test_rewards_of_ten_thousand_stay_finite():
    agent = tiny.agent(cfg=replace(tiny.config(2), optim=Optimizers(LaProp(lr=1e-3, warmup=0))))
    batch = tiny.batch(time=3, size=2)
    batch = batch._replace(reward=1e4 * batch.reward.sign())
    for _ in range(50):
        _, metrics = agent.update(batch)
    assert all(x.isfinite() for x in metrics.values())


def test_half_precision_computes_the_same_losses_within_two_percent(monkeypatch):
    monkeypatch.setattr(OneHots, "sample", OneHots.mode)  # rounding must not roll other dice
    agent, batch = tiny.agent(), tiny.batch()
    model = agent.world_model
    exact = model.loss(batch)[0]
    with torch.autocast("cpu", torch.bfloat16):
        rough = model.loss(batch)[0]
    for name, loss in exact.items():
        assert rough[name].dtype == torch.float32
        torch.testing.assert_close(rough[name], loss, rtol=0.02, atol=0.02)


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


def test_the_most_likely_action_needs_no_luck_and_samples_do():
    agent, batch = tiny.agent(tiny.NUMBERS), tiny.batch(tiny.NUMBERS)
    state = State(torch.rand(3, 64), torch.rand(3, 128))
    policy = agent.behavior.policy(state.feat)
    assert torch.equal(policy.mode(), policy.mean)
    drawn = [agent.act(row_at(batch, 0), state)[0] for _ in range(2)]
    assert not np.array_equal(*drawn)
