"""The world model's losses: where the floor acts, who moves towards whom, and what is summed."""

import math
from dataclasses import replace
from functools import partial

import pytest
import tiny
import torch

from dreamer_lite.distributions import DiagNormal, Gaussian, OneHots
from dreamer_lite.presets import V3
from dreamer_lite.rssm import State
from dreamer_lite.transforms import symexp
from dreamer_lite.world_model import WorldModel, kl_loss


class Told:
    """A distribution whose KL to any other is what it was told.  kl [T,B]."""

    def __init__(self, kl):
        self.value = kl

    def kl(self, other):
        return self.value

    def detach(self):
        return self


def told():
    return torch.tensor([[0.2, 3.0], [0.4, 0.1]], requires_grad=True)


def model_and_batch(action=tiny.ONE_CHOICE):
    return tiny.agent(action).world_model, tiny.batch(action)


# --- KL ------------------------------------------------------------------------------------------


def test_the_floor_of_v3_acts_on_every_step_and_leaves_the_large_one_its_gradient():
    kl = told()
    loss = kl_loss(Told(kl), Told(kl), dyn=1.0, rep=0.0, free=1.0, per_step=True)
    assert loss.item() == pytest.approx(1.5)
    gradient = torch.autograd.grad(loss, kl)[0]
    assert gradient.tolist() == [[0.0, 0.25], [0.0, 0.0]]


def test_the_floor_of_v1_and_v2_acts_on_the_mean_and_leaves_no_gradient():
    kl = told()
    loss = kl_loss(Told(kl), Told(kl), dyn=1.0, rep=0.0, free=1.0, per_step=False)
    assert loss.item() == 1.0
    assert not torch.autograd.grad(loss, kl)[0].any()
    above = kl_loss(Told(kl), Told(kl), dyn=1.0, rep=0.0, free=0.9, per_step=False)
    assert above.item() == pytest.approx(0.925)
    assert torch.equal(torch.autograd.grad(above, kl)[0], torch.full((2, 2), 0.25))


def pair(size=1.0):
    """Logits of posterior and prior [T,B,G,K]; groups that differ by little for a small size."""
    return [(size * torch.randn(2, 3, 4, 5)).requires_grad_() for _ in range(2)]


def gradients(q, p, dyn, rep, free=0.0, unimix=0.01):
    build = partial(OneHots.of, unimix=unimix)
    return torch.autograd.grad(kl_loss(build(q), build(p), dyn, rep, free, True), [q, p])


def test_groups_are_summed_before_the_floor():
    logits = 1.2 * torch.eye(5)[:2].expand(4, 2, 5)  # each of four groups differs by 0.38 nats
    q, p = (OneHots.of(x[None, None]) for x in logits.unbind(1))
    assert kl_loss(q, p, 1.0, 0.0, 1.0, True).item() == pytest.approx(4 * 0.380, abs=0.01)


def test_below_one_nat_nothing_moves():
    q, p = pair(0.1)
    assert not any(g.any() for g in gradients(q, p, 1.0, 0.1, free=1.0))


def test_dyn_pulls_the_prior_and_rep_the_posterior():
    q, p = pair()
    dyn, rep = gradients(q, p, 1.0, 0.0), gradients(q, p, 0.0, 1.0)
    assert not dyn[0].any() and dyn[1].any()
    assert rep[0].any() and not rep[1].any()


@pytest.mark.parametrize("dyn, rep", [(1.0, 0.1), (0.8, 0.2)])
def test_the_weights_share_out_one_gradient(dyn, rep):
    q, p = pair()
    plain, balanced = gradients(q, p, 1.0, 1.0), gradients(q, p, dyn, rep)
    torch.testing.assert_close(balanced[0], rep * plain[0])
    torch.testing.assert_close(balanced[1], dyn * plain[1])


def test_equal_weights_have_the_gradient_of_the_plain_kl_of_v1():
    mean, std = torch.randn(2, 3, 4), torch.rand(2, 3, 4) + 0.5
    values = [x.clone().requires_grad_() for x in (mean, std, mean.flip(0), std.flip(0))]
    q, p = DiagNormal(*values[:2]), DiagNormal(*values[2:])
    both, plain = kl_loss(q, p, 1.0, 1.0, 0.0, False), q.kl(p).mean()
    torch.testing.assert_close(both, 2 * plain)
    for g, expected in zip(
        torch.autograd.grad(both, values), torch.autograd.grad(plain, values), strict=True
    ):
        torch.testing.assert_close(g, expected)


def test_extreme_logits_cost_at_most_the_bound_of_the_mixture():
    q = torch.zeros(1, 1, 1, 32)
    q[..., 0] = 1e4
    p = q.roll(1, -1)
    build = partial(OneHots.of, unimix=0.01)
    loss = kl_loss(build(q), build(p), 1.0, 0.0, 1.0, True)
    assert 7.9 < loss.item() < math.log(32 / 0.01)


# --- the whole loss ------------------------------------------------------------------------------


def test_every_loss_is_a_finite_number_and_every_input_has_one():
    model, batch = model_and_batch()
    losses, states, metrics = model.loss(batch)
    assert losses.keys() == {"obs/image", "obs/vector", "reward", "cont", "kl"}
    assert all(x.shape == () and x.isfinite() for x in (*losses.values(), *metrics.values()))
    assert states.h.shape == (6, 3, 64) and states.z.shape == (6, 3, 128)


def test_reconstruction_is_summed_over_pixels_and_averaged_over_rows():
    model, batch = model_and_batch()
    white = torch.full_like(batch.obs["image"], 255)
    for p in model.decoder.convs["image"].out.parameters():
        torch.nn.init.zeros_(p)
    batch = batch._replace(obs=batch.obs | {"image": white})
    losses, _, _ = model.loss(batch)
    assert losses["obs/image"].item() == pytest.approx(16 * 16 * 3 / 4)  # (1 - σ(0))² each


def test_a_fresh_model_predicts_no_reward_and_pays_the_flat_price():
    model = WorldModel(tiny.config().model, tiny.OBS, 4)
    batch = tiny.batch()
    losses, states, _ = model.loss(batch)
    assert not model.reward(states.feat).any()
    assert losses["reward"].item() == pytest.approx(math.log(255), abs=1e-4)


def test_the_label_of_continue_is_the_discount_and_ends_with_the_episode():
    model, batch = model_and_batch()
    losses, states, _ = model.loss(batch)
    logit = model.cont_net(states.feat).squeeze(-1)
    label = (1 - 1 / 333) * batch.cont.float()
    assert label.min() == 0  # the batch holds a terminal row
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logit, label)
    torch.testing.assert_close(losses["cont"], expected)
    torch.testing.assert_close(model.discount(states.feat), logit.sigmoid())


def test_reward_is_predicted_from_the_state_it_arrives_with():
    model, batch = model_and_batch()
    torch.manual_seed(1)
    losses, states, _ = model.loss(batch)
    expected = model.head.loss(model.reward_net(states.feat), batch.reward).mean()
    torch.testing.assert_close(losses["reward"], expected)


def test_without_a_stored_state_a_sequence_starts_empty():
    model, batch = model_and_batch()
    empty = State(torch.zeros(3, 64), torch.zeros(3, 128))
    both = []
    for start in (None, empty):
        torch.manual_seed(1)
        both.append(model.loss(batch, start)[0])
    assert both[0] == both[1]


def test_a_stored_state_is_where_the_sequence_begins():
    model, batch = model_and_batch()
    batch = batch._replace(is_first=torch.zeros_like(batch.is_first))
    start = State(torch.rand(3, 64), torch.rand(3, 128))
    torch.manual_seed(1)
    _, kept, _ = model.loss(batch, start)
    torch.manual_seed(1)
    _, empty, _ = model.loss(batch)
    assert not torch.allclose(kept.h[0], empty.h[0])


def test_the_loss_writes_into_nothing():
    model, batch = model_and_batch()
    copies = {k: x.clone() for k, x in batch.obs.items()}, [x.clone() for x in batch[1:]]
    sum(model.loss(batch)[0].values()).backward()
    assert all(torch.equal(batch.obs[k], x) for k, x in copies[0].items())
    assert all(torch.equal(x, y) for x, y in zip(batch[1:], copies[1], strict=True))


def test_metrics_tell_the_kl_before_the_floor():
    model, batch = model_and_batch()
    _, _, metrics = model.loss(batch)
    assert 0 < metrics["kl"] and 0 < metrics["entropy_posterior"] <= 32 * math.log(4)
    assert not any(x.requires_grad for x in metrics.values())


def test_what_it_believes_to_see_is_in_the_units_of_the_observation():
    model, batch = model_and_batch()
    s, _ = model.observe(batch, None)
    seen = model.reconstruct(s)
    assert {k: tuple(x.shape[2:]) for k, x in seen.items()} == tiny.OBS
    assert 0 <= seen["image"].min() and seen["image"].max() <= 1
    raw = model.decoder(s.h, s.z)["vector"]
    torch.testing.assert_close(seen["vector"], symexp(raw))


def model_of(name, **changes):
    cfg = tiny.PAPERS[name]
    return tiny.agent(cfg=replace(cfg, model=replace(cfg.model, **changes))).world_model


def test_without_a_continue_predictor_the_discount_is_a_constant():
    model = model_of("V1")
    losses, states, _ = model.loss(tiny.batch())
    assert "cont" not in losses and model.cont_net is None
    assert torch.equal(model.discount(states.feat), torch.full((6, 3), 0.99))


@pytest.mark.parametrize("name", ["V1", "V2"])
def test_the_continue_loss_is_weighted_and_its_label_is_the_discount(name):
    found = []
    for scale in (1.0, 5.0):
        torch.manual_seed(0)
        found.append(model_of(name, cont_scale=scale).loss(tiny.batch())[0])
    torch.testing.assert_close(found[1]["cont"], 5 * found[0]["cont"])
    assert found[1]["reward"] == found[0]["reward"]


def test_rewards_are_squashed_before_they_are_learned():
    model, batch = model_of("V2"), tiny.batch()
    batch = batch._replace(reward=100 * batch.reward)
    torch.manual_seed(1)
    losses, states, _ = model.loss(batch)
    params = model.reward_net(states.feat)
    expected = model.head.loss(params, torch.tanh(batch.reward)).mean()
    torch.testing.assert_close(losses["reward"], expected)
    torch.testing.assert_close(model.reward(states.feat), params.squeeze(-1))


def test_what_v1_believes_to_see_is_an_image_that_can_be_shown():
    model, batch = model_of("V1"), tiny.batch()
    states, _ = model.observe(batch, None)
    seen = model.reconstruct(states)
    assert 0 <= seen["image"].min() and seen["image"].max() <= 1
    torch.testing.assert_close(seen["vector"], model.decoder(*states)["vector"])


@pytest.mark.parametrize("name", tiny.PAPERS)
def test_every_paper_learns_from_images_and_vectors(name):
    losses, states, metrics = model_of(name).loss(tiny.batch())
    assert all(x.isfinite() for x in (*losses.values(), *metrics.values()))
    assert losses.keys() >= {"obs/image", "obs/vector", "reward", "kl"}


def test_the_numbers_of_the_papers_kl_losses():
    kl = {name: cfg.model.kl for name, cfg in tiny.PAPERS.items()}
    assert (kl["V1"].dyn, kl["V1"].rep, kl["V1"].free, kl["V1"].per_step) == (1, 1, 3, False)
    assert (kl["V2"].dyn, kl["V2"].rep, kl["V2"].free, kl["V2"].per_step) == (0.08, 0.02, 0, False)
    control = kl["V2 control"]
    assert (control.dyn, control.rep, control.free, control.per_step) == (0.8, 0.2, 1, False)


def test_the_settings_of_v3_are_those_of_the_authors():
    kl = V3.model.kl
    assert (kl.dyn, kl.rep, kl.free, kl.per_step) == (1.0, 0.1, 1.0, True)
    assert V3.model.gamma == 1 - 1 / 333 and V3.model.latent.unimix == 0.01


def test_gaussian_latents_learn_as_well():
    cfg = tiny.config()
    cfg = replace(cfg, model=replace(cfg.model, latent=Gaussian(8)))
    agent = tiny.agent(cfg=cfg)
    losses, states, _ = agent.world_model.loss(tiny.batch())
    assert states.z.shape == (6, 3, 8) and all(x.isfinite() for x in losses.values())
