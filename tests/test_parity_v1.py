"""DreamerV1 computes what the authors' code computes: values and gradients, function by function.

The vectors in `parity/` were recorded from the authors' functions. Where this package is laid out
otherwise, the mapping stands in the test: V1 counts the reward of a state into its value, and its
recurrent cell is that of Keras.
"""

import pytest
import torch
from parity.layout import fill, leaf, swap, views
from parity.parity_io import Case, cases, check_gradients, close, refuse_untested
from torch import Tensor, nn

from dreamer_lite.behavior import actor_loss, critic_loss
from dreamer_lite.distributions import DiagNormal, Gaussian, TanhNormal
from dreamer_lite.heads import BernoulliHead, NormalHead, NormalPixelHead, unit_normal_loss
from dreamer_lite.networks import (
    GRU,
    Conv,
    StrideDecoder,
    StrideEncoder,
    Style,
    glorot_uniform,
)
from dreamer_lite.optim import Adam, Optimizer
from dreamer_lite.returns import discount_weights, lambda_return
from dreamer_lite.rssm import RSSM, State
from dreamer_lite.transforms import identity
from dreamer_lite.world_model import kl_loss

ACTS = {"elu": nn.ELU, "relu": nn.ReLU}


# --- returns, actor, critic ----------------------------------------------------------------------


def filled(value, like: Tensor) -> Tensor:
    return torch.full_like(like, value) if isinstance(value, float) else value


@cases("v1_lambda_return")
def test_lambda_return(case: Case):
    hp = case.hp
    time = lambda x: x.movedim(hp["axis"], 0)  # noqa: E731
    x = {k: leaf(v) for k, v in case.x.items()}
    discount = filled(hp["pcont"] if hp["pcont_is_scalar"] else x["pcont"], x["reward"])
    last = x["bootstrap"] if hp["has_bootstrap"] else torch.zeros_like(time(x["reward"])[0])
    value = torch.cat([time(x["value"])[1:], last[None]])  # theirs begins one step earlier
    ret = lambda_return(time(x["reward"]), time(discount), value, hp["lambda_"])
    ret = ret.movedim(0, hp["axis"])
    close(ret, case.out["returns"], case)
    check_gradients(case, (ret * case.x["g"]).sum(), x)


def behavior_of(case: Case):
    """Leaves, discounts [H,N], and the returns and weights of the first H-1 states."""
    x = {k: leaf(v) for k, v in case.x.items()}
    discount = torch.full_like(x["reward"], case.hp["discount"])
    if case.hp["pcont"]:
        discount = BernoulliHead().mean(x["pcont_logit"][..., None])
    # The reward of a state is in its value: rewards and discounts of t beside values of t+1.
    ret = lambda_return(x["reward"][:-1], discount[:-1], x["value"][1:], case.hp["disclam"])
    weight = discount_weights(torch.ones_like(ret[0]), discount[:-1])
    return x, ret, weight


@cases("v1_actor_value_loss")
def test_actor_loss(case: Case):
    x, ret, weight = behavior_of(case)
    close(ret, case.out["returns"], case)
    close(weight, case.out["weight"], case)
    loss = actor_loss(ret, None, None, None, weight, rho=0.0, eta=0.0)
    close(loss, case.out["actor_loss"], case)
    check_gradients(case, loss, x, "actor_")


@cases("v1_actor_value_loss")
def test_critic_loss(case: Case):
    x, ret, weight = behavior_of(case)
    loss = critic_loss(NormalHead(), x["value"][:-1, ..., None], ret, weight)
    close(loss, case.out["value_loss"], case)
    check_gradients(case, loss, x, "value_")


# --- the actor's distribution --------------------------------------------------------------------


def squashed(case: Case):
    """The raw outputs as a leaf, and their distribution."""
    raw = leaf(case.x["raw"])
    return raw, TanhNormal(case.hp["init_std"], case.hp["min_std"], case.hp["mean_scale"])(raw)


@pytest.fixture
def drawn(monkeypatch):
    """drawn(p, x): the next draw of p, before tanh, is x."""

    def arrange(p, x: Tensor) -> None:
        noise = ((x - p.loc) / p.scale).detach()
        monkeypatch.setattr(torch, "randn_like", lambda _: noise)

    return arrange


@cases("v1_action_dist")
def test_parameters_of_the_policy(case: Case):
    _, p = squashed(case)
    close(p.loc, case.out["mean_param"], case)
    close(p.scale, case.out["std_param"], case)


@cases("v1_action_dist")
def test_log_probability_of_actions(case: Case):
    _, p = squashed(case)
    for name in ("mean", "mode", "entropy"):
        x = case.x[f"pretanh_{name}"]
        close(x.tanh(), case.x[f"samples_{name}"], case)
        close(p.at(x), case.out[f"logp_samples_{name}"], case)
    close(p.log_prob(case.x["actions"]), case.out["logp_actions"], case)
    inside = case.x["actions"].clamp(-1 + 2**-24, 1 - 2**-24)
    close(inside.atanh(), case.out["inverse_actions"], case)


@cases("v1_action_dist")
def test_mode_and_entropy_are_read_from_a_hundred_samples(case: Case, drawn):
    _, p = squashed(case)
    drawn(p, case.x["pretanh_entropy"])
    close(p.entropy(), case.out["dist_entropy"], case)
    drawn(p, case.x["pretanh_mode"])
    ours = p.mode()
    close(ours[0], case.out["dist_mode"][0], case)
    best = p.at(case.x["pretanh_mode"]).argmax(0)  # each row its own; theirs take that of row 0
    for row, index in enumerate(best):
        close(ours[row], case.x["samples_mode"][index, row], case)
    close(case.x["samples_mode"][best[0]], case.out["dist_mode"], case)
    mean = case.x["pretanh_mean"].tanh().mean(0)  # of their hundred samples; nothing here asks it
    close(mean, case.out["dist_mean"], case)


@cases("v1_action_dist")
def test_sample_and_its_gradient(case: Case, monkeypatch):
    raw, p = squashed(case)
    monkeypatch.setattr(torch, "randn_like", lambda _: case.x["eps"])
    a = p.sample()
    close(p.before(), case.out["sample_pretanh"], case)
    close(a, case.out["sample"], case)
    check_gradients(case, (a * case.x["g"]).sum(), {"raw": raw})


# --- the world model -----------------------------------------------------------------------------


@cases("v1_model_loss")
def test_model_loss(case: Case):
    hp, x = case.hp, {k: leaf(v) for k, v in case.x.items()}
    q, p = (DiagNormal(x[f"{k}_mean"], x[f"{k}_std"]) for k in ("post", "prior"))
    close(q.kl(p), case.out["kl"], case)
    close(q.entropy(), case.out["post_ent"], case)
    close(p.entropy(), case.out["prior_ent"], case)
    # dyn = rep = 1 has the gradient of the plain KL and twice its value.
    div = kl_loss(swap_rows(q), swap_rows(p), 1.0, 1.0, hp["free_nats"], per_step=False)
    close(div / 2, case.out["div"], case)
    image = unit_normal_loss(x["image_mean"], x["image"]).sum((-3, -2, -1)).mean()
    reward = NormalHead().loss(x["reward_mean"][..., None], x["reward"]).mean()
    close(-image, case.out["like_image"], case)
    close(-reward, case.out["like_reward"], case)
    total = hp["kl_scale"] * div + image + reward
    if hp["pcont"]:
        label = hp["discount"] * x["discount"]
        event = hp["pcont_scale"] * BernoulliHead().loss(x["pcont_logit"][..., None], label).mean()
        close(-event, case.out["like_pcont"], case)
        total = total + event
    close(total - hp["kl_scale"] * div / 2, case.out["model_loss"], case)
    check_gradients(case, total, x)


def swap_rows(p: DiagNormal) -> DiagNormal:
    return DiagNormal(swap(p.mean), swap(p.std))


KERAS = ("z", "r", "h")  # the order of the gates in Keras; here r, z, n
OURS = [KERAS.index(k) for k in ("r", "z", "h")]


def reorder(w: Tensor) -> Tensor:
    """Columns [..., z r h] of Keras -> rows [r z n, ...] of torch.nn.GRUCell."""
    return torch.cat([w.chunk(3, -1)[i] for i in OURS], -1).movedim(-1, 0)


def build_rssm(case: Case) -> RSSM:
    hp, w = case.hp, case.w
    style = Style(norm=None, act=ACTS[hp["act"]], init=glorot_uniform)
    latent, action = Gaussian(hp["stoch"]), case.x["action"].shape[-1]
    cell = GRU(hp["deter"], hp["hidden"], latent.size, action, style)
    tokens = case.x["embed"].shape[-1]
    rssm = RSSM(cell, latent, hp["deter"], hp["hidden"], tokens, 1, 1, style)
    dense = {k: v for k, v in w.items() if not k.startswith("gru/")}
    fill(views(rssm, ["img1", "img2", "img3", "obs1", "obs2"], dense), dense)
    with torch.no_grad():
        cell.gru.weight_ih.copy_(reorder(w["gru/kernel"]))
        cell.gru.weight_hh.copy_(reorder(w["gru/recurrent_kernel"]))
        cell.gru.bias_ih.copy_(reorder(w["gru/bias"][0]))
        cell.gru.bias_hh.copy_(reorder(w["gru/bias"][1]))
    return rssm


def check_normal(case: Case, p: DiagNormal, name: str) -> None:
    close(p.mean, case.out[f"{name}_mean"], case)
    close(p.std, case.out[f"{name}_std"], case)


@pytest.fixture
def recorded(monkeypatch):
    """recorded(stoch [B,T,S]): samples of the latent come from the record."""

    def arrange(stoch: Tensor) -> None:
        samples = iter(swap(stoch))
        monkeypatch.setattr(DiagNormal, "sample", lambda self: next(samples))

    return arrange


@cases("v1_rssm", lambda case: case.hp["gru_reset_after"])
def test_rssm_takes_a_step(case: Case):
    rssm, x = build_rssm(case), case.x
    close(rssm.cell.gru(x["gru_input"], x["gru_state"]), case.out["gru_output"], case)
    h = rssm.recur(State(x["step_deter"], x["step_stoch"]), x["step_action"])
    close(h, case.out["step_prior_deter"], case)
    close(h, case.out["step_post_deter"], case)
    check_normal(case, rssm.prior(h), "step_prior")
    check_normal(case, rssm.latent(rssm.post_params(h, x["step_embed"])), "step_post")


@cases("v1_rssm", lambda case: case.hp["gru_reset_after"])
def test_rssm_observes(case: Case, recorded):
    rssm, embed = build_rssm(case), swap(case.x["embed"])
    recorded(case.out["post_stoch"])
    first = torch.zeros(embed.shape[:2], dtype=torch.bool)  # V1 has no such flag
    states, q = rssm.observe(embed, swap(case.x["action"]), first, rssm.initial(embed.shape[1]))
    close(swap(states.h), case.out["post_deter"], case)
    close(swap(states.h), case.out["prior_deter"], case)
    check_normal(case, swap_rows(q), "post")
    check_normal(case, swap_rows(rssm.prior(states.h)), "prior")


@cases("v1_rssm", lambda case: case.hp["gru_reset_after"])
def test_rssm_imagines(case: Case, recorded):
    rssm = build_rssm(case)
    recorded(case.out["imag_stoch"])
    last = State(case.out["post_deter"][:, -1], case.out["post_stoch"][:, -1])
    states = rssm.follow(last, swap(case.x["imag_action"]))
    close(swap(states.h), case.out["imag_deter"], case)
    check_normal(case, swap_rows(rssm.prior(states.h)), "imag")


@cases("v1_conv")
def test_encoder_and_decoder(case: Case):
    image, feat = case.x["image"], case.x["feat"]
    style = Style(norm=None, act=nn.ELU, init=glorot_uniform)
    kinds = {"encoder": StrideEncoder, "decoder": StrideDecoder, "act": ACTS[case.hp["act"]]}
    conv = Conv(case.hp["depth"], (1, 2, 4, 8), **kinds)
    encoder = StrideEncoder(image.shape[1:], conv, style)
    decoder = StrideDecoder(image.shape[1:], conv, feat.shape[-1], 0, 0, style)  # [z; h] is one
    found = views(encoder, [f"enc/h{i}" for i in range(1, 5)], case.w)
    found |= views(decoder, [f"dec/h{i}" for i in range(1, 6)], case.w)
    fill(found, case.w)
    close(image[:, :2].float() / 255 - 0.5, case.out["image_first_rows"], case)
    close(encoder(image), case.out["embed"], case)
    output = decoder(feat, feat[:, :0])
    close(output, case.out["recon_mode"], case)
    close(-NormalPixelHead().loss(output, image), case.out["recon_logprob"], case)
    squash = {"none": identity, "tanh": torch.tanh}[case.hp["clip_rewards"]]
    close(squash(case.x["reward"]), case.out["reward"], case)


# --- optimizer -----------------------------------------------------------------------------------


@cases("v1_adam")
def test_adam(case: Case):
    names = sorted(k.removeprefix("params/") for k in case.x if k.startswith("params/"))
    params = {k: case.x[f"params/{k}"].clone() for k in names}
    hp = case.hp
    optimizer = Optimizer(params, Adam(lr=hp["lr"], clip=hp["clip"], eps=hp["eps"]))
    for count in range(hp["steps"]):
        norm = optimizer.step([case.x[f"grads/{k}"][count] for k in names])
        close(norm, case.out["grad_norm"][count], case)
        for k in names:
            close(params[k], case.out[f"params/{k}"][count], case)


def test_every_case_has_a_test():
    refuse_untested("v1")
