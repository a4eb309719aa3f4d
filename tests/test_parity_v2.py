"""DreamerV2 computes what the authors' code computes: values and gradients, function by function.

The vectors in `parity/` were recorded from the authors' functions. Where this package is laid out
otherwise, the mapping stands in the test: V2 counts the reward of a state into its value, and its
actor terms lie one step later. Options that no preset uses are a few lines of the test itself.
"""

import re

import pytest
import torch
from parity.layout import fill, leaf, swap, views
from parity.parity_io import Case, cases, check_gradients, close, refuse_untested
from torch import Tensor, nn

from dreamer_lite.behavior import actor_loss, critic_loss
from dreamer_lite.distributions import (
    Categorical,
    DiagNormal,
    Gaussian,
    OneHots,
    TruncNormal,
)
from dreamer_lite.heads import (
    BernoulliHead,
    NormalHead,
    NormalPixelHead,
    NormalVectorHead,
    raw_image,
)
from dreamer_lite.networks import (
    Conv,
    LayerNorm,
    NormGRU,
    StrideDecoder,
    StrideEncoder,
    Style,
    glorot_uniform,
)
from dreamer_lite.optim import Adam, Optimizer
from dreamer_lite.returns import discount_weights, lambda_return
from dreamer_lite.rssm import RSSM, State
from dreamer_lite.transforms import identity, sigmoid2
from dreamer_lite.world_model import kl_loss

SQUASH = {"identity": identity, "tanh": torch.tanh, "sign": torch.sign}


def official_style(hp: dict) -> Style:
    norm = LayerNorm if hp.get("norm") == "layer" else None
    return Style(norm, {"elu": nn.ELU, "relu": nn.ReLU}[hp["act"]], glorot_uniform)


# --- distributions -------------------------------------------------------------------------------


@cases("v2_onehot")
def test_onehots(case: Case):
    logits = leaf(case.x["logits"])
    p = OneHots.of(logits[..., None, :])
    close(p.probs.squeeze(-2), case.out["probs"], case)
    close(p.mode(), case.out["mode"], case)
    close(p.log_prob(case.x["event"]), case.out["logprob"], case)
    close(p.entropy(), case.out["entropy"], case)
    check_gradients(case, p.log_prob(case.x["event"]).sum(), {"logits": logits}, "logprob_")
    check_gradients(case, p.entropy().sum(), {"logits": logits}, "entropy_")
    sample = p._straight_through(case.out["sample"].argmax(-1, keepdim=True))
    close(sample, case.out["sample"], case)
    check_gradients(case, (sample * case.x["g"]).sum(), {"logits": logits}, "sample_")


@cases("v2_trunc_normal")
def test_truncated_normal(case: Case, monkeypatch):
    raw, hp = leaf(case.x["raw"]), case.hp
    p = TruncNormal(hp["min_std"], hp["init_std"])(raw)
    close(p.loc, case.out["loc"], case)
    close(p.scale, case.out["scale"], case)
    close(p.mode(), case.out["mode"], case)
    low, high = p.edges()
    density = lambda x: (-0.5 * x**2).exp() / (2 * torch.pi) ** 0.5  # noqa: E731
    close(p.loc + p.scale * (density(low) - density(high)) / p.mass(), case.out["mean"], case)
    values = {"logprob": p.log_prob(case.x["actions"]), "entropy": p.entropy()}
    for name, value in values.items():
        close(value, case.out[name], case)
        check_gradients(case, value.sum(), {"raw": raw}, f"{name}_")
    noise = ((case.out["sample"] - p.loc) / p.scale).detach()
    monkeypatch.setattr(torch.special, "ndtri", lambda _: noise)
    close(p.sample(), case.out["sample"], case)
    check_gradients(case, (p.sample() * case.x["g"]).sum(), {"raw": raw}, "sample_")


# --- returns, actor, critic ----------------------------------------------------------------------


@cases("v2_lambda_return")
def test_lambda_return(case: Case):
    hp = case.hp
    time = lambda x: x.movedim(hp["axis"], 0)  # noqa: E731
    reward = time(case.x["reward"])
    discount = torch.full_like(reward, hp["pcont"]) if hp["pcont_is_scalar"] else case.x["pcont"]
    value = torch.cat([time(case.x["value"])[1:], case.x["bootstrap"][None]])
    ret = lambda_return(reward, time(discount), value, hp["lambda_"])
    close(ret.movedim(0, hp["axis"]), case.out["returns"], case)


@cases("v2_imagine_weights")
def test_discount_and_weights_of_a_dream(case: Case):
    hp, x = case.hp, case.x
    discount = torch.full_like(x["discount_logit"], hp["discount"])
    if hp["has_head"]:
        discount = BernoulliHead().mean(x["discount_logit"][..., None])
        if hp["has_is_terminal"]:  # the first one is the true one
            discount[0] = hp["discount"] * (~x["is_terminal"]).float().flatten()
    close(discount, case.out["discount"], case)
    weight = discount_weights(torch.ones_like(discount[0]), discount)
    close(weight, case.out["weight"], case)


def scheduled(text: str, step: int) -> float:
    """A number, or a schedule of the authors such as "linear(from,to,steps)" at this step."""
    if not (match := re.match(r"(\w+)\((.+)\)", text)):
        return float(text)
    kind, numbers = match[1], [float(x) for x in match[2].split(",")]
    if kind == "exp":
        first, last, half = numbers
        return last + (first - last) * 0.5 ** (step / half)
    first, last, steps = [0.0, *reversed(numbers)] if kind == "warmup" else numbers
    share = min(max(step / steps, 0.0), 1.0)
    value = (1 - share) * first + share * last
    return {"linear": float, "warmup": float, "horizon": lambda x: 1 - 1 / x}[kind](value)


def official_rho(hp: dict) -> float:
    """Our share of REINFORCE; the authors' mix is that of the dynamics."""
    auto = "reinforce" if hp["discrete"] else "dynamics"
    kind = auto if hp["actor_grad"] == "auto" else hp["actor_grad"]
    mix = scheduled(hp["actor_grad_mix"], hp["step"])
    return {"reinforce": 1.0, "dynamics": 0.0, "both": 1.0 - mix}[kind]


def policy(hp: dict, raw: Tensor):
    return OneHots.of(raw[..., None, :]) if hp["discrete"] else TruncNormal(hp["min_std"])(raw)


def dream_of(case: Case):
    """Leaves, the values that make targets, and the targets [H,N]."""
    x = {k: leaf(v) for k, v in case.x.items()}
    value = x["slow_value"] if case.hp["slow_target"] else x["value"]
    # The reward of a state is in its value: rewards and discounts of t beside values of t+1.
    ret = lambda_return(x["reward"][:-1], x["discount"][:-1], value[1:], case.hp["discount_lambda"])
    close(ret, case.out["target"], case)
    return x, value, ret


@cases("v2_actor_critic")
def test_actor_loss(case: Case):
    hp, (x, value, ret) = case.hp, dream_of(case)
    eta, rho = scheduled(hp["actor_ent"], hp["step"]), official_rho(hp)
    pi = policy(hp, x["policy_raw"])
    # action[t+1] is taken in state t; it is judged by target[t+1] against the value of state t.
    action, weight = x["action"][1:-1], x["weight"][:-2].detach()
    stopped = hp["discrete"] or hp["actor_grad"] != "both"
    logp, entropy = pi.log_prob(action.detach() if stopped else action), pi.entropy()
    loss = actor_loss(ret[1:], value[:-2], logp, entropy, weight, rho=rho, eta=eta)
    close(logp, case.out["policy_logprob"], case)
    close(entropy, case.out["policy_entropy"], case)
    close(torch.tensor(eta), case.out["ent_scale"], case)
    close(loss, case.out["actor_loss"], case)
    check_gradients(case, loss, x, "actor_")


@cases("v2_actor_critic")
def test_critic_loss(case: Case):
    x, _, ret = dream_of(case)
    loss = critic_loss(NormalHead(), x["value"][:-1, ..., None], ret, x["weight"][:-1])
    close(loss, case.out["critic_loss"], case)
    check_gradients(case, loss, x, "critic_")


@cases("v2_stream_norm")
def test_normalizing_rewards_by_a_running_mean(case: Case):
    # An option that is off by default (momentum 1) and that this package does not have.
    hp, mag = case.hp, torch.tensor(1.0)
    for i, x in enumerate(case.x["x"]):
        mag = hp["momentum"] * mag + (1 - hp["momentum"]) * x.abs().mean()
        close(mag, case.out["mag"][i], case)
        close(x / (mag + hp["eps"]) * hp["scale"], case.out["output"][i], case)


# --- the world model -----------------------------------------------------------------------------


def pair(case: Case, *names: str):
    """Leaves, and one distribution [T,B] for each name."""
    x = {k: leaf(v) for k, v in case.x.items() if k.startswith(names) and v.is_floating_point()}
    if f"{names[0]}_logit" in x:
        return x, [OneHots.of(swap(x[f"{k}_logit"])) for k in names]
    return x, [DiagNormal(swap(x[f"{k}_mean"]), swap(x[f"{k}_std"])) for k in names]


def official_kl(q, p, balance: float, free: float, free_avg: bool, forward: bool) -> Tensor:
    """KL balancing with the authors' options; the presets have forward=False, free_avg=True."""
    if forward:
        q, p, balance = p, q, 1 - balance
    if balance == 0.5:  # a branch of its own: the plain KL, with a floor for every step
        return q.kl(p).clamp(min=free).mean()
    return kl_loss(q, p, balance, 1 - balance, free, per_step=not free_avg)


@cases("v2_kl_loss")
def test_kl_loss(case: Case):
    hp, (x, (q, p)) = case.hp, pair(case, "post", "prior")
    first, second = (p, q) if hp["forward"] else (q, p)
    close(swap(first.kl(second)), case.out["value"], case)
    loss = official_kl(q, p, hp["balance"], hp["free"], hp["free_avg"], hp["forward"])
    close(loss, case.out["loss"], case)
    check_gradients(case, loss, x)


@cases("v2_preprocess")
def test_inputs_and_labels(case: Case):
    x, hp = case.x, case.hp
    close(SQUASH[hp["clip_rewards"]](x["reward"]), case.out["reward"], case)
    close(raw_image(x["image"], x["image"]) - 0.5, case.out["image"], case)
    close(hp["discount"] * (~x["is_terminal"]).float(), case.out["discount"], case)


@cases("v2_model_loss")
def test_model_loss(case: Case):
    hp, w, (x, (q, p)) = case.hp, case.w, pair(case, "post", "prior")
    x |= {k: leaf(case.x[k]) for k in ("stoch", "deter")}
    close(p.entropy().mean(), case.out["prior_ent"], case)
    close(q.entropy().mean(), case.out["post_ent"], case)
    close(q.kl(p).mean(), case.out["model_kl"], case)
    feat = torch.cat([x["stoch"].flatten(-2), x["deter"]], -1)
    kinds = {"decoder": NormalVectorHead(), "reward": NormalHead(), "discount": BernoulliHead()}
    labels = {
        "decoder": case.x["proprio"],
        "reward": SQUASH[hp["clip_rewards"]](case.x["reward"]),
        "discount": hp["discount"] * (~case.x["is_terminal"]).float(),
    }
    names = [k for k in kinds if f"{k}/kernel" in w]
    assert ("discount" in names) == hp["pred_discount"]
    kl = official_kl(q, p, hp["kl_balance"], hp["kl_free"], hp["kl_free_avg"], hp["kl_forward"])
    close(kl, case.out["kl_loss"], case)
    total = hp["scale_kl"] * kl
    for name in names:
        seen = feat if name in hp["grad_heads"] else feat.detach()
        output = seen @ w[f"{name}/kernel"] + w[f"{name}/bias"]
        loss = kinds[name].loss(output, labels[name])
        official = "proprio" if name == "decoder" else name
        close(-loss, case.out[f"like_{official}"], case)
        close(loss.mean(), case.out[f"{official}_loss"], case)
        total = total + hp[f"scale_{official}"] * loss.mean()
    close(total, case.out["model_loss"], case)
    check_gradients(case, total, x)


@cases("v2_gru", lambda case: case.hp["update_bias"] == -1)
def test_gru(case: Case):
    x = {k: leaf(case.x[k]) for k in ("x", "state")}
    size, inputs = case.hp["size"], case.x["x"].shape[-1]
    cell = NormGRU(size, inputs, inputs, 0, official_style({"act": "elu"}))
    cell.inputs = nn.Identity()  # x enters as it is
    if case.hp["norm"]:
        assert cell.norm.eps == case.hp["eps"]
        fill(views(cell, ["dense", "norm"], case.w), case.w)
    else:
        cell.norm = nn.Identity()
        fill(views(cell, ["dense"], case.w), case.w)
    h = cell(x["state"], x["x"], x["x"][:, :0])
    close(h, case.out["output"], case)
    check_gradients(case, (h * case.x["g"]).sum(), x)


def build_rssm(case: Case) -> RSSM:
    hp, style = case.hp, official_style(case.hp)
    stds = {"softplus": nn.functional.softplus, "sigmoid": torch.sigmoid, "sigmoid2": sigmoid2}
    std = stds[hp["std_act"]]
    latent = Gaussian(hp["stoch"], hp["min_std"], std)
    if hp["discrete"]:
        latent = Categorical(hp["stoch"], hp["discrete"])
    cell = NormGRU(hp["deter"], hp["hidden"], latent.size, hp["A"], style)
    rssm = RSSM(cell, latent, hp["deter"], hp["hidden"], hp["E"], 1, 1, style)
    normed = lambda name, norm: [name, norm] if style.norm else [name]  # noqa: E731
    names = [
        *normed("img_in", "img_in_norm"),
        *("gru/dense", "gru/norm"),
        *normed("img_out_0", "img_out_norm_0"),
        "img_dist_0",
        *normed("obs_out", "obs_out_norm"),
        "obs_dist",
    ]
    fill(views(rssm, names, case.w), case.w)
    return rssm


def flat(case: Case, stoch: Tensor) -> Tensor:
    """[...,S,K] -> [...,S·K]; numbers [...,S] stay."""
    return stoch.flatten(-2) if case.hp["discrete"] else stoch


def check_latent(case: Case, rssm: RSSM, params: Tensor, name: str) -> None:
    """Raw parameters [T,B,.] against the recorded logits, or means and deviations."""
    if case.hp["discrete"]:
        return close(swap(params).unflatten(-1, case.out[f"{name}_logit"].shape[-2:]),
                     case.out[f"{name}_logit"], case)  # fmt: skip
    p = rssm.latent(params)
    close(swap(p.mean), case.out[f"{name}_mean"], case)
    close(swap(p.std), case.out[f"{name}_std"], case)


def begin(case: Case) -> State:
    return State(case.x["init_deter"], flat(case, case.x["init_stoch"]))


@cases("v2_rssm")
def test_rssm_observes(case: Case, monkeypatch):
    rssm, embed = build_rssm(case), swap(case.x["embed"])
    samples = iter(swap(flat(case, case.out["post_stoch"])))
    kind = OneHots if case.hp["discrete"] else DiagNormal
    monkeypatch.setattr(kind, "sample", lambda self: next(samples))
    action, first = swap(case.x["action"]), swap(case.x["is_first"])
    states, _ = rssm.observe(embed, action, first, begin(case))
    close(swap(states.h), case.out["post_deter"], case)
    check_latent(case, rssm, rssm.post_params(states.h, embed), "post")
    check_latent(case, rssm, rssm.prior_net(states.h), "prior")
    close(swap(torch.cat([states.z, states.h], -1)), case.out["feat"], case)  # theirs is [z; h]


@cases("v2_rssm")
def test_rssm_takes_a_step_without_chance(case: Case, monkeypatch):
    kind = OneHots if case.hp["discrete"] else DiagNormal
    monkeypatch.setattr(kind, "sample", kind.mode)
    rssm, x = build_rssm(case), case.x
    row = (x[k][:, 0] for k in ("action", "embed", "is_first"))
    s, _ = rssm.step(begin(case), *row)
    close(s.h, case.out["mode_post_deter"], case)
    close(s.z, flat(case, case.out["mode_post_stoch"]), case)
    close(rssm.prior(s.h).mode(), flat(case, case.out["mode_prior_stoch"]), case)


@cases("v2_conv")
def test_encoder_and_decoder(case: Case):
    image, feat, style = case.x["image"], case.x["feat"], official_style(case.hp)
    conv = Conv(case.hp["depth"], (1, 2, 4, 8), encoder=StrideEncoder, decoder=StrideDecoder)
    encoder = StrideEncoder(image.shape[-3:], conv, style)
    decoder = StrideDecoder(image.shape[-3:], conv, feat.shape[-1], 0, 0, style)  # [z; h] is one
    pattern = ["{0}/conv{1}", "{0}/convnorm{1}"] if style.norm else ["{0}/conv{1}"]
    names = [text.format("enc", i) for i in range(4) for text in pattern]
    found = views(encoder, names, case.w)
    names = [text.format("dec", i) for i in range(3) for text in pattern]
    found |= views(decoder, ["dec/convin", *names, "dec/conv3"], case.w)
    fill(found, case.w)
    close(encoder(image), case.out["embed"], case)
    output = decoder(feat, feat[..., :0])
    close(output, case.out["recon_mode"], case)
    close(-NormalPixelHead().loss(output, image), case.out["recon_logprob"], case)


# --- optimizer -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@cases("v2_optimizer")
def test_adam_with_weight_decay(case: Case, dtype):
    names = sorted(k.removeprefix("params/") for k in case.x if k.startswith("params/"))
    params = {k: case.x[f"params/{k}"].to(dtype, copy=True) for k in names}
    hp = case.hp
    rule = Adam(lr=hp["lr"], clip=hp["clip"], eps=hp["eps"], decay=hp["wd"])
    optimizer = Optimizer(params, rule)
    for count in range(hp["steps"]):
        norm = optimizer.step([case.x[f"grads/{k}"][count].to(dtype) for k in names])
        close(norm, case.out["grad_norm"][count], case)
        for k in names:
            close(params[k], case.out[f"params/{k}"][count], case)


def test_schedules_of_the_authors():
    # No case holds one; the numbers are those of the formulas.
    expected = {"2e-3": 2e-3, "linear(1,0,8)": 0.75, "warmup(8,4)": 1.0, "exp(3,1,2)": 2.0}
    assert {text: scheduled(text, 2) for text in expected} == expected
    assert scheduled("horizon(2,10,4)", 2) == 1 - 1 / 6


def test_every_case_has_a_test():
    refuse_untested("v2")
