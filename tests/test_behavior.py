"""Actor, critic and dreams: who is moved by what, and by how much."""

from dataclasses import replace

import pytest
import tiny
import torch
from torch import nn

from dreamer_lite.agent import Dreamer
from dreamer_lite.behavior import (
    ReturnScale,
    SlowCopy,
    actor_loss,
    critic_loss,
    explore,
    replay_return,
)
from dreamer_lite.distributions import BoundedNormal, OneHots, TanhNormal, TruncNormal
from dreamer_lite.heads import NormalHead, TwoHotHead
from dreamer_lite.rssm import State


def dreaming(action=tiny.ONE_CHOICE, rho=1.0, eta=3e-4, horizon=4, continuous=None, **critic):
    cfg = tiny.config(horizon)
    actor = replace(cfg.behavior.actor, rho=rho, eta=eta, continuous=continuous or BoundedNormal())
    behavior = replace(cfg.behavior, actor=actor, critic=replace(cfg.behavior.critic, **critic))
    return tiny.agent(action, cfg=replace(cfg, behavior=behavior))


def start_of(agent, dreams=6):
    s = agent.initial(dreams)
    return State(torch.rand_like(s.h), torch.rand_like(s.z))


def dream_of(agent, dreams=6, cont=None):
    cont = torch.ones(dreams, dtype=torch.bool) if cont is None else cont
    return agent.behavior.dream(agent.world_model, start_of(agent, dreams), cont)


def actor_gradient(agent, dream):
    losses, _ = agent.behavior.losses(dream)
    parameters = list(agent.behavior.policy.parameters())
    return torch.cat([g.flatten() for g in torch.autograd.grad(losses["actor"], parameters)])


# --- dreams --------------------------------------------------------------------------------------


def test_a_dream_of_15_steps_has_16_states_and_15_of_everything_that_follows_an_action():
    dream = dream_of(dreaming(horizon=15))
    assert len(dream.states.h) == len(dream.states.z) == len(dream.value) == 16
    after = (dream.actions, dream.reward, dream.discount, dream.ret, dream.weight)
    assert [len(x) for x in after] == [15] * 5


def test_a_dream_begins_where_it_was_told_to():
    agent = dreaming()
    start = start_of(agent)
    dream = agent.behavior.dream(agent.world_model, start, torch.ones(6).bool())
    assert torch.equal(dream.states.h[0], start.h) and torch.equal(dream.states.z[0], start.z)


def test_rewards_and_discounts_are_read_on_arriving_and_values_everywhere():
    agent = dreaming()
    dream = dream_of(agent)
    feat = dream.states.feat
    torch.testing.assert_close(dream.reward, agent.world_model.reward(feat[1:]))
    torch.testing.assert_close(dream.discount, agent.world_model.discount(feat[1:]))
    torch.testing.assert_close(dream.value, agent.behavior.value(feat))


def test_returns_follow_the_value_of_the_state_arrived_at():
    dream = dream_of(dreaming())
    r, d, v = dream.reward, dream.discount, dream.value
    torch.testing.assert_close(dream.ret[-1], r[-1] + d[-1] * v[-1])
    mixed = 0.05 * v[-2] + 0.95 * dream.ret[-1]
    torch.testing.assert_close(dream.ret[-2], r[-2] + d[-2] * mixed)


@pytest.mark.parametrize("spec", tiny.ACTIONS.values(), ids=tiny.ACTIONS)
def test_reinforce_needs_no_graph_of_the_dream(spec):
    dream = dream_of(dreaming(spec))
    assert not any(x.requires_grad for x in (*dream.states, dream.actions, *dream[2:]))


def test_values_of_the_slow_copy_are_used_only_on_request():
    agents = [dreaming(slow_target=flag) for flag in (False, True)]
    for agent in agents:
        nn.init.zeros_(agent.behavior.slow_critic[-1].weight)
        nn.init.zeros_(agent.behavior.slow_critic[-1].bias)
    plain, slow = (dream_of(agent).value for agent in agents)
    assert plain.abs().min() > 0 and not slow.any()


# --- actor ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rho", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("spec", tiny.ACTIONS.values(), ids=tiny.ACTIONS)
def test_every_estimator_moves_every_kind_of_policy(spec, rho):
    agent = dreaming(spec, rho, eta=0.0)
    assert actor_gradient(agent, dream_of(agent)).norm() > 0


@pytest.mark.parametrize("rho", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("kind", [BoundedNormal(), TanhNormal(), TruncNormal()])
def test_every_estimator_moves_every_kind_of_continuous_policy(kind, rho):
    agent = dreaming(tiny.NUMBERS, rho, eta=0.0, continuous=kind)
    gradient = actor_gradient(agent, dream_of(agent))
    assert gradient.isfinite().all() and gradient.norm() > 0


def test_what_has_no_weight_is_not_computed():
    agent = dreaming(tiny.NUMBERS, rho=0.0, eta=0.0, continuous=TanhNormal())
    agent.behavior.policy.cfg = replace(agent.behavior.policy.cfg, continuous=NoLogProb)
    losses, metrics = agent.behavior.losses(dream_of(agent))
    assert losses["actor"].requires_grad and not metrics["entropy_policy"].requires_grad


class NoLogProb(type(TanhNormal()(torch.zeros(2)))):
    """An actor without a density."""

    def __new__(cls, params):
        return super().__new__(cls, *TanhNormal()(params))

    def log_prob(self, a):
        raise AssertionError("V1 needs no log-probability")


def test_the_actor_of_v1_climbs_the_return_through_the_model():
    ret, weight = torch.randn(3, 2, requires_grad=True), torch.rand(3, 2)
    loss = actor_loss(ret, None, None, None, weight, rho=0.0, eta=0.0)
    torch.testing.assert_close(loss, -(weight * ret).mean())
    torch.testing.assert_close(torch.autograd.grad(loss, ret)[0], -weight / 6)


@pytest.mark.parametrize("spec", tiny.ACTIONS.values(), ids=tiny.ACTIONS)
def test_an_action_is_judged_in_the_state_it_was_taken_in(spec):
    agent = dreaming(spec)
    dream = dream_of(agent)
    pi = agent.behavior.policy(dream.states.feat[:-1])
    scale = ReturnScale().update(dream.ret)  # the returns are seen before they are divided
    advantage = (dream.ret - dream.value[:-1]) / scale
    score = advantage * pi.log_prob(dream.actions) + 3e-4 * pi.entropy()
    losses, _ = agent.behavior.losses(dream)
    torch.testing.assert_close(losses["actor"], -(dream.weight * score).mean())


def test_reinforce_is_the_softmax_minus_the_action_times_the_advantage():
    logits = torch.randn(1, 3, 4, requires_grad=True)
    pi = OneHots.of(logits[..., None, :])
    action, advantage = pi.sample().detach(), torch.randn(1, 3)
    ones = torch.ones(1, 3)
    loss = actor_loss(advantage, 0 * ones, pi.log_prob(action), pi.entropy(), ones, rho=1.0, eta=0)
    expected = (logits.softmax(-1) - action) * advantage[..., None] / 3
    torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], expected)


def test_reinforce_finds_the_better_arm_of_a_bandit():
    logits = torch.zeros(2, requires_grad=True)
    for _ in range(200):
        pi = OneHots.of(logits.expand(1, 64, 1, 2))
        action = pi.sample().detach()
        ret = action @ torch.tensor([0.0, 1.0])
        base = ret.mean().expand_as(ret)
        terms = (ret, base, pi.log_prob(action), pi.entropy(), torch.ones_like(ret))
        gradient = torch.autograd.grad(actor_loss(*terms, rho=1.0, eta=3e-4), logits)[0]
        logits.data -= 0.3 * gradient
    assert logits.softmax(-1)[1] > 0.95


def test_gradients_of_the_estimators_add_up_with_rho():
    def gradients(rho):
        ret, logp = (torch.tensor([[x]], requires_grad=True) for x in (3.0, -0.7))
        one = torch.ones(1, 1)
        loss = actor_loss(ret, one, logp, one, one, rho=rho, eta=0.0, scale=torch.tensor(2.0))
        return [g.item() for g in torch.autograd.grad(loss, [ret, logp], materialize_grads=True)]

    assert gradients(1.0) == [0.0, -1.0]  # (3 - 1) / 2 on the log-probability, no path
    assert gradients(0.0) == [-0.5, 0.0]
    assert gradients(0.25) == [-0.375, -0.25]


def test_entropy_is_a_bonus():
    one, entropy = torch.ones(1, 1), torch.tensor([[0.7]], requires_grad=True)
    loss = actor_loss(one, one, one, entropy, one, rho=1.0, eta=0.1)
    assert torch.autograd.grad(loss, entropy)[0].item() == pytest.approx(-0.1)


def test_terminal_starts_train_neither_actor_nor_critic():
    agent = dreaming()
    dream = dream_of(agent, cont=torch.tensor([False] * 5 + [True]))
    last = lambda x: x[:, -1:]  # noqa: E731
    alone = {k: last(getattr(dream, k)) for k in dream._fields if k != "states"}
    alone = dream._replace(states=dream.states.map(last), **alone)
    agent.behavior.scale.rate = 0.0  # one ruler for both
    of_six, of_one = (agent.behavior.losses(d)[0] for d in (dream, alone))
    for name in ("actor", "critic"):
        torch.testing.assert_close(6 * of_six[name], of_one[name])


@pytest.mark.parametrize("spec", tiny.ACTIONS.values(), ids=tiny.ACTIONS)
def test_a_fresh_policy_is_nearly_indifferent(spec):
    policy = Dreamer(tiny.config(), tiny.OBS, spec).behavior.policy
    pi = policy(torch.randn(32, 64 + 128))
    if spec.continuous:
        assert pi.mean.abs().max() < 0.2 and (pi.std - 0.893).abs().max() < 0.05  # 0.1 + 0.9 σ(2)
    else:
        most = sum(torch.tensor(float(n)).log() for n in spec.discrete)
        assert (most - pi.entropy()).max() < 0.01


def test_a_fresh_critic_values_everything_at_exactly_zero():
    agent = Dreamer(tiny.config(), tiny.OBS, tiny.ONE_CHOICE)
    dream = dream_of(agent)
    assert not dream.value.any() and not dream.reward.any() and not dream.ret.any()


# --- exploration ---------------------------------------------------------------------------------


def test_without_noise_an_action_is_carried_out_as_it_is():
    action = torch.randn(4, 2)
    assert explore(action, tiny.NUMBERS, 0.0) is action


def test_v1_adds_noise_to_numbers_and_stays_in_range():
    action = torch.zeros(50_000, 2)
    found = explore(action, tiny.NUMBERS, 0.3)
    assert found.std().item() == pytest.approx(0.3, abs=0.005) and not action.any()
    assert explore(action + 0.9, tiny.NUMBERS, 0.3).max() == 1


@pytest.mark.parametrize("spec", [tiny.ONE_CHOICE, tiny.TWO_CHOICES], ids=["one", "two"])
def test_v1_replaces_some_choices_by_random_ones(spec):
    action = torch.zeros(50_000, spec.size)
    first = [sum(spec.discrete[:i]) for i in range(len(spec.discrete))]
    action[:, first] = 1
    found = explore(action, spec, 0.3)
    assert (found.sum(1) == len(first)).all() and set(found.unique().tolist()) == {0, 1}
    kept = (found == action).all(1).float().mean()
    same_by_chance = 1.0
    for n in spec.discrete:
        same_by_chance /= n
    assert kept.item() == pytest.approx(0.7 + 0.3 * same_by_chance, abs=0.01)


# --- return scale --------------------------------------------------------------------------------


def test_the_scale_starts_at_zero_and_is_not_debiased():
    scale, returns = ReturnScale(), torch.linspace(0, 100, 101) / 9  # percentiles differ by 10
    seen = []
    for _ in range(11):
        answer = scale.update(returns)
        seen.append((scale.range[1] - scale.range[0]).item())
    assert seen[4] == pytest.approx(0.490, abs=5e-4)
    assert seen[9] < 1 < seen[10] == answer.item()


def test_small_returns_are_not_magnified():
    scale = ReturnScale()
    assert all(scale.update(0.001 * torch.randn(100)) == 1 for _ in range(50))


def scaled_gradient(agent, dream, factor):
    """The actor's gradient after the scale has seen returns times `factor` for a long time."""
    louder = dream._replace(ret=dream.ret * factor, value=dream.value * factor)
    for _ in range(2000):
        agent.behavior.scale.update(louder.ret)
    return actor_gradient(agent, louder)


def test_rewards_a_thousand_times_larger_leave_the_actor_gradient_alone():
    agent = dreaming(eta=0.0, horizon=2)
    dream = dream_of(agent)
    dream = dream._replace(ret=10 * torch.randn_like(dream.ret))
    loud, louder = (scaled_gradient(agent, dream, x) for x in (1.0, 1000.0))
    torch.testing.assert_close(loud, louder, rtol=1e-3, atol=1e-3 * loud.abs().max().item())


def test_rewards_a_thousand_times_smaller_shrink_the_actor_gradient():
    agent = dreaming(eta=0.0, horizon=2)
    dream = dream_of(agent)
    dream = dream._replace(ret=0.1 * torch.randn_like(dream.ret), value=0 * dream.value)
    quiet, quieter = (scaled_gradient(agent, dream, x) for x in (1.0, 0.001))
    limit = 1e-3 * quiet.abs().max().item()
    torch.testing.assert_close(1000 * quieter, quiet, rtol=1e-3, atol=limit)


def test_the_scale_divides_the_advantage_not_the_target_of_the_critic():
    agent = dreaming()
    dream = dream_of(agent)
    losses = []
    for size in (1.0, 1000.0):
        agent.behavior.scale.range.copy_(torch.tensor([0.0, size]))
        losses.append(agent.behavior.losses(dream)[0])
    assert losses[0]["critic"] == losses[1]["critic"]
    assert losses[0]["actor"] != losses[1]["actor"]


# --- critic --------------------------------------------------------------------------------------


def test_the_loss_towards_a_value_is_least_when_predicted():
    head = TwoHotHead()
    ret, one = torch.tensor([[3.0]]), torch.ones(1, 1)
    params = torch.zeros(1, 1, 255, requires_grad=True)
    for _ in range(300):
        gradient = torch.autograd.grad(critic_loss(head, params, ret, one, ret, 1.0), params)[0]
        params.data -= 3 * gradient
    assert head.mean(params).item() == pytest.approx(3.0, abs=0.05)


def test_the_critic_pays_for_the_return_and_for_leaving_its_slow_copy():
    head, params = TwoHotHead(), torch.randn(3, 2, 255)
    ret, weight, slow = torch.randn(3, 2), torch.rand(3, 2), torch.randn(3, 2)
    each = head.loss(params, ret) + 0.5 * head.loss(params, slow)
    loss = critic_loss(head, params, ret, weight, slow, 0.5)
    torch.testing.assert_close(loss, (weight * each).mean())
    plain = (weight * head.loss(params, ret)).mean()
    torch.testing.assert_close(critic_loss(head, params, ret, weight), plain)


def test_targets_carry_no_gradient():
    ret, slow = torch.ones(1, 1, requires_grad=True), torch.ones(1, 1, requires_grad=True)
    params = torch.randn(1, 1, 1, requires_grad=True)
    loss = critic_loss(NormalHead(), params, ret, torch.ones(1, 1), slow, 1.0)
    gradients = torch.autograd.grad(loss, [params, ret, slow], allow_unused=True)
    assert gradients[0].any() and gradients[1] is None and gradients[2] is None


def test_the_slow_copy_starts_equal_and_follows_by_two_percent():
    fast = nn.Linear(3, 2)
    slow = SlowCopy(fast, every=1, mix=0.02)
    assert torch.equal(slow.module.weight, fast.weight)
    old = slow.module.weight.clone()
    nn.init.normal_(fast.weight)
    slow.update(0)
    torch.testing.assert_close(slow.module.weight, 0.98 * old + 0.02 * fast.weight)


def test_a_hard_copy_happens_every_so_many_updates():
    fast = nn.Linear(1, 1, bias=False)
    slow = SlowCopy(fast, every=3, mix=1.0)
    seen = []
    for count in range(7):
        nn.init.constant_(fast.weight, count)
        slow.update(count)
        seen.append(slow.module.weight.item())
    assert seen == [0, 0, 0, 3, 3, 3, 6]


def test_v1_keeps_no_slow_copy_and_v2_learns_from_a_hard_one():
    v1, v2 = (tiny.agent(cfg=tiny.PAPERS[name]).behavior for name in ("V1", "V2"))
    assert v1.slow is None and v1.slow_critic is None
    assert (v2.slow.every, v2.slow.mix, v2.cfg.critic.slow_target) == (100, 1.0, True)


def test_targets_and_baseline_of_v2_are_those_of_the_slow_copy():
    agent = tiny.agent(cfg=tiny.PAPERS["V2"])
    nn.init.zeros_(agent.behavior.slow_critic[-1].weight)
    nn.init.constant_(agent.behavior.slow_critic[-1].bias, 7.0)
    dream = dream_of(agent)
    assert (dream.value == 7).all() and agent.behavior.value(dream.states.feat).max() != 7
    last = dream.reward[-1] + dream.discount[-1] * 7
    torch.testing.assert_close(dream.ret[-1], last)


def test_no_optimizer_knows_the_slow_copy_and_it_needs_no_gradient():
    agent = dreaming()
    slow = {id(p) for p in agent.behavior.slow_critic.parameters()}
    for optimizer in agent.optimizers.values():
        assert not slow & {id(p) for p in optimizer.params.values()}
    assert not any(p.requires_grad for p in agent.behavior.slow_critic.parameters())


def test_the_slow_copy_is_saved_with_the_agent():
    assert any(k.startswith("behavior.slow_critic.") for k in dreaming().state_dict())


# --- values of replayed states -------------------------------------------------------------------


def flags(*values):
    return torch.tensor(values, dtype=torch.bool)[:, None]


def column(*values):
    return torch.tensor(values)[:, None]


def test_replayed_returns_by_hand():
    # Rows 0-2 are an episode that terminates, rows 3-4 the beginning of the next.
    reward, bootstrap = column(0.0, 1.0, 2.0, 0.0, 5.0), column(10.0, 20.0, 30.0, 40.0, 50.0)
    cont, first = flags(1, 1, 0, 1, 1), flags(1, 0, 0, 1, 0)
    ret, weight = replay_return(reward, cont, first, bootstrap, 0.9, 0.5)
    r1 = 2.0  # the terminal ends it: reward 2, nothing after
    r0 = 1 + 0.9 * (0.5 * 20 + 0.5 * r1)
    r3 = 5 + 0.9 * 50  # the last row only serves as bootstrap
    torch.testing.assert_close(ret[[0, 1, 3]], column(r0, r1, r3))
    assert weight.flatten().tolist() == [1, 1, 0, 1]  # no step from one episode into the next


def test_a_truncated_episode_keeps_its_bootstrap_and_ends_the_trace():
    reward, bootstrap = column(0.0, 1.0, 2.0, 0.0), column(10.0, 20.0, 30.0, 40.0)
    cont, first = flags(1, 1, 1, 1), flags(1, 0, 0, 1)
    ret, weight = replay_return(reward, cont, first, bootstrap, 0.9, 0.5)
    r1 = 2 + 0.9 * 30
    torch.testing.assert_close(ret[:2], column(1 + 0.9 * (0.5 * 20 + 0.5 * r1), r1))
    assert weight.flatten().tolist() == [1, 1, 0]


def test_the_bootstrap_belongs_to_the_same_row():
    zero = torch.zeros(4, 1)
    bootstrap = column(1000.0, 100.0, 10.0, 1.0)
    ret, _ = replay_return(zero, flags(1, 1, 1, 1), flags(0, 0, 0, 0), bootstrap, 1.0, 0.0)
    assert ret.flatten().tolist() == [100, 10, 1]


def test_a_first_row_at_the_beginning_of_the_chunk_changes_nothing():
    reward, bootstrap, cont = torch.randn(5, 2), torch.randn(5, 2), torch.ones(5, 2).bool()
    first = torch.zeros(5, 2, dtype=torch.bool)
    begun = first.clone()
    begun[0] = True
    plain, begins = (replay_return(reward, cont, f, bootstrap, 0.9, 0.9) for f in (first, begun))
    assert torch.equal(plain[0], begins[0]) and begins[1].all()
