"""DreamerV3 computes what the authors' code computes: values and gradients, function by function.

The vectors in `parity/` were recorded from the authors' functions. They are batch-major and keep
rewards and actions of several keys apart; where this package is laid out otherwise, the mapping
stands in the test. Options that no preset uses are a few lines of the test itself; the few that
are left out are listed in `parity/README.md`. Which test a case belongs to is read from its arrays
and hyperparameters, never from its name.
"""

import json
import math
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from parity.layout import View, fill, leaf, numbered, swap, views
from parity.parity_io import Case, cases, close, refuse_untested
from torch import Tensor, nn

from dreamer_lite import networks
from dreamer_lite.agent import Dreamer
from dreamer_lite.behavior import (
    ActorConfig,
    BehaviorConfig,
    CriticConfig,
    Dream,
    ReturnScale,
    SlowCopy,
    actor_loss,
    critic_loss,
    replay_return,
)
from dreamer_lite.distributions import BoundedNormal, Categorical, DiagNormal, OneHots
from dreamer_lite.heads import BernoulliHead, NormalHead, PixelHead, SymlogHead, TwoHotHead
from dreamer_lite.networks import (
    BlockGRU,
    BlockLinear,
    ChannelNorm,
    Conv,
    ConvDecoder,
    Decoder,
    Encoder,
    RMSNorm,
    Style,
    mlp,
)
from dreamer_lite.optim import LaProp, Optimizer, adaptive_clip
from dreamer_lite.presets import Config, Optimizers
from dreamer_lite.replay import Sequence
from dreamer_lite.returns import discount_weights, lambda_return
from dreamer_lite.rssm import RSSM, State
from dreamer_lite.spaces import ActionSpec
from dreamer_lite.transforms import identity, symexp, symexp_bins, symlog
from dreamer_lite.world_model import KL, ModelConfig, kl_loss

# --- from the authors' layout to ours ------------------------------------------------------------


def one_by_one(loss, *tensors: Tensor) -> Tensor:
    """A loss that averages over [A,B], asked about one element at a time.  -> [A,B]."""
    lead = tensors[0].shape[:2]
    rows = zip(*(x.flatten(0, 1) for x in tensors), strict=True)
    return torch.stack([loss(*row) for row in rows]).unflatten(0, lead)


def onehot_actions(action: Tensor, size: int) -> Tensor:
    """Indices [B,T] -> one-hots [B,T,A]; numbers [B,T,A] stay."""
    return action if action.is_floating_point() else F.one_hot(action.long(), size).float()


def h_first(arrays: dict[str, Tensor], deter: int) -> dict[str, Tensor]:
    """The authors' decoder of vectors reads [z; h], everything else (and ours) [h; z]."""
    swapped = {k: v.roll(deter, 0) for k, v in arrays.items() if k == "dec/mlp/linear0/kernel"}
    return arrays | swapped


def mlp_names(name: str, layers: int) -> list[str]:
    return numbered(layers, f"{name}/mlp/linear{{}}", f"{name}/mlp/norm{{}}")


def rssm_names(hp: dict) -> list[str]:
    """The recurrent cell, the prior and the posterior."""
    return [
        *numbered(3, "dyn/dynin{}", "dyn/dynin{}norm"),
        *("dyn/dynhid0", "dyn/dynhid0norm", "dyn/dyngru"),
        *numbered(hp["imglayers"], "dyn/prior{}", "dyn/prior{}norm"),
        "dyn/priorlogit",
        *numbered(hp["obslayers"], "dyn/obs{}", "dyn/obs{}norm"),
        "dyn/obslogit",
    ]


def encoder_names(spec: dict, layers: int, stages: int) -> list[str]:
    ranks = {len(shape) for shape in spec.values()}
    vectors = numbered(layers, "enc/mlp{}", "enc/mlp{}norm") if 1 in ranks else []
    images = numbered(stages, "enc/cnn{}", "enc/cnn{}norm") if 3 in ranks else []
    return vectors + images


def decoder_names(spec: dict, layers: int, stages: int) -> list[str]:
    vectors = [k for k, shape in spec.items() if len(shape) == 1]
    names = mlp_names("dec", layers) if vectors else []
    names += [f"dec/vec/{k}/pred" for k in vectors]
    if len(vectors) < len(spec):
        names += ["dec/sp0", "dec/sp1", "dec/sp1norm", "dec/sp2", "dec/spnorm"]
        for i in reversed(range(stages - 1)):
            names += [f"dec/conv{i}", f"dec/conv{i}norm"]
        names += ["dec/imgout"]
    return names


def observations(x: dict[str, Tensor]) -> tuple[dict, dict]:
    """Official obs/<key> [B,T,...] -> spec, time-major observations (flags and reward aside)."""
    flags = ("reward", "is_first", "is_last", "is_terminal")
    obs = {k.split("/")[1]: swap(v) for k, v in sorted(x.items()) if k.startswith("obs/")}
    obs = {k: v for k, v in obs.items() if k not in flags}
    return {k: tuple(v.shape[2:]) for k, v in obs.items()}, obs


@pytest.fixture
def official_stages(monkeypatch):
    """The authors halve an image once per entry of mults; we stop at 4×4 (the same from 64×64)."""
    rule = lambda shape, depth, mults: [depth * m for m in mults]  # noqa: E731
    monkeypatch.setattr(networks, "stages", rule)


# --- transforms, heads, distributions ------------------------------------------------------------


@cases("v3_symlog")
def test_symlog_and_symexp(case: Case):
    close(symlog(case.x["x"]), case.out["symlog"], case)
    close(symexp(case.x["y"]), case.out["symexp"], case)
    close(symexp(symlog(case.x["x"])), case.out["roundtrip"], case)


@cases("v3_twohot")
def test_twohot(case: Case):
    head = TwoHotHead(case.hp["bins"])
    close(symexp_bins(case.hp["bins"]), case.out["bins"], case)
    targets = case.x["targets"]
    logits = {k[:-7]: v for k, v in case.x.items() if k.endswith("_logits")}
    logits["zeros"] = torch.zeros_like(next(iter(logits.values())))
    for kind, params in logits.items():
        params = leaf(params)
        loss = head.loss(params.expand(len(targets), -1, -1), targets)
        close(loss, case.out[f"{kind}_loss"], case)
        pred = head.mean(params)
        size = (params.softmax(-1) * head.bins.abs()).sum(-1)  # what cancels in the sum
        close(pred, case.out[f"{kind}_pred"], case, extra=1e-6 * size.detach())
        if (name := f"{kind}_loss0_logits") in case.grad:
            close(torch.autograd.grad(loss[0].sum(), params)[0], case.grad[name], case)
        if (name := f"{kind}_pred_logits") in case.grad:
            expected = case.grad[name]
            extra = 1e-5 * expected.abs().amax(-1, keepdim=True)
            close(torch.autograd.grad(pred.sum(), params)[0], expected, case, extra)
    assert (head.mean(logits["zeros"]) == 0).all(), "a flat softmax must predict exactly 0"


@cases("v3_categorical")
def test_categorical(case: Case):
    one = lambda x: x[..., None, :]  # noqa: E731  one group of K classes
    logits, other = leaf(case.x["logits"]), leaf(case.x["other"])
    p, q = (OneHots.of(one(x), case.hp["unimix"]) for x in (logits, other))
    close(p.probs.squeeze(-2), case.out["probs"], case)
    close(p.logp.squeeze(-2), case.out["mixed_logits"].log_softmax(-1), case)
    close(p.mode(), case.out["pred"], case)
    assert torch.equal(p.probs.squeeze(-2).argmax(-1).int(), case.out["pred_index"])
    scalars = {"kl": p.kl(q), "entropy": p.entropy(), "logp": p.log_prob(case.x["event"])}
    for name, value in scalars.items():
        expected = case.out["logp_event" if name == "logp" else name]
        close(value, expected, case)
        close(torch.autograd.grad(value.sum(), logits, retain_graph=True)[0],
              case.grad[f"{name}_logits"], case)  # fmt: skip
    close(torch.autograd.grad(scalars["kl"].sum(), other, retain_graph=True)[0],
          case.grad["kl_other"], case)  # fmt: skip
    index = F.one_hot(case.x["index"].long(), logits.shape[-1]).float()
    close(p.log_prob(index), case.out["logp_index"], case)
    sample = p.sample()  # another draw than the authors', the same straight-through gradient
    assert torch.equal(sample.detach().sum(-1).round(), torch.ones(sample.shape[:-1]))
    gradient = torch.autograd.grad((sample * case.x["g"]).sum(), logits)[0]
    close(gradient, case.grad["sample_logits"], case)


@cases("v3_bounded_normal")
def test_bounded_normal(case: Case, monkeypatch):
    build = BoundedNormal(case.hp["minstd"], case.hp["maxstd"])
    raw, event = leaf(case.x["raw"]), case.x["event"]
    p = build(raw)
    monkeypatch.setattr(torch, "randn_like", lambda mean: case.x["noise"])
    values = {
        "logp": p.log_prob(event),
        "entropy": p.entropy(),
        "kl": p.kl(build(case.x["other"])),
        "sample": p.sample(),
    }
    for name, value in values.items():
        close(value, case.out[name], case)
        weight = case.x["g"] if name == "sample" else torch.ones_like(value)
        gradient = torch.autograd.grad((value * weight).sum(), raw, retain_graph=True)[0]
        close(gradient, case.grad[f"{name}_raw"], case)
    close(p.mode(), case.out["pred"], case)
    close(p.std, case.out["stddev"], case)
    dims = DiagNormal(p.mean[..., None], p.std[..., None])
    close(dims.log_prob(event[..., None]), case.out["logp_dims"], case)
    for name, std in {"minent": build.min_std, "maxent": build.max_std}.items():
        constant = DiagNormal(torch.zeros_like(p.mean), torch.full_like(p.std, std))
        close(constant.entropy(), case.out[name], case)


def check_head(case: Case, head, params: Tensor, target: Tensor, name: str):
    params = leaf(params)
    loss = head(params, target)
    close(loss, case.out["loss"], case)
    close(torch.autograd.grad(loss.sum(), params)[0], case.grad[name], case)


def smooth_error(mean: Tensor, target: Tensor) -> Tensor:
    """An option of the authors, `Huber`, that no preset uses."""
    return (((mean - target) ** 2 + 1).sqrt() - 1).sum(-1)


def vector_head(kind: str):
    """Which cases hold this one of the authors' heads: their files do not name it."""

    def wanted(case: Case) -> bool:
        if "mean" not in case.x:
            return False
        mean, x = case.x["mean"], case.x["target"]
        squared = {"mse": mean - x, "symlog_mse": mean - x.sign() * x.abs().log1p()}
        losses = {k: (error**2).sum(-1) for k, error in squared.items()}
        losses["huber"] = smooth_error(mean, x)
        return kind == min(losses, key=lambda k: (losses[k] - case.out["loss"]).abs().sum())

    return wanted


@cases("v3_heads", vector_head("symlog_mse"))
def test_head_of_vectors(case: Case):
    check_head(case, SymlogHead().loss, case.x["mean"], case.x["target"], "mean")
    pred = symlog(SymlogHead().mean(case.x["mean"]))  # official: pred stays in symlog space
    close(pred, case.out["pred"], case)


def squared_error(mean: Tensor, target: Tensor) -> Tensor:
    """The authors' `MSE` from ours, which has a half and a constant.  [...,n], [...,n] -> [...]."""
    constant = 0.5 * torch.tensor(2 * torch.pi).log()
    return 2 * (NormalHead().loss(mean[..., None], target) - constant).sum(-1)


@cases("v3_heads", vector_head("mse"))
def test_normal_head_is_half_the_squared_error_and_a_constant(case: Case):
    check_head(case, squared_error, case.x["mean"], case.x["target"], "mean")
    close(NormalHead().mean(case.x["mean"][..., None]), case.out["pred"], case)


@cases("v3_heads", vector_head("huber"))
def test_smooth_absolute_error(case: Case):
    check_head(case, smooth_error, case.x["mean"], case.x["target"], "mean")
    close(case.x["mean"], case.out["pred"], case)


@cases("v3_heads", lambda case: "image" in case.x)
def test_head_of_images(case: Case):
    check_head(case, PixelHead().loss, case.x["logits"], case.x["image"], "logits")


@cases("v3_heads", lambda case: "is_terminal" in case.x)
def test_head_of_continue(case: Case):
    gamma = 1 - 1 / case.hp["horizon"] if case.hp["contdisc"] else 1.0
    cont = ~case.x["is_terminal"]
    close(gamma * cont.float(), case.x["target"], case)
    head = BernoulliHead()
    loss = lambda logit, target: head.loss(logit[..., None], target)  # noqa: E731
    check_head(case, loss, case.x["logit"], gamma * cont.float(), "logit")
    prob = head.mean(case.x["logit"][..., None])
    close(prob, case.out["prob"], case)
    assert torch.equal(prob > 0.5, case.out["pred"])


# --- layers --------------------------------------------------------------------------------------


def official_style(hp: dict) -> Style:
    """V3's style, or the optional gelu and LayerNorm."""
    acts = {"silu": nn.SiLU, "gelu": partial(nn.GELU, approximate="tanh")}
    norms = {"rms": RMSNorm, "layer": partial(nn.LayerNorm, eps=1e-4)}
    return Style(norms[hp.get("norm", "rms")], acts[hp.get("act", "silu")])


def known_style(hp: dict) -> bool:
    """Whether `official_style` has the norm and the activation."""
    return hp.get("norm", "rms") in ("rms", "layer") and hp.get("act", "silu") in ("silu", "gelu")


def small_kernel(size: int) -> bool:
    """Whether a kernel is one of ours, 5×5, with a border of zeros."""
    return size in (1, 3, 5)


class Same(nn.Module):
    """The zeros around [N,C,H,W] with which a 5×5 convolution of stride 2 halves it, rounded up."""

    def forward(self, x: Tensor) -> Tensor:
        rows, cols = x.shape[-2:]
        return F.pad(x, (1 + cols % 2, 2, 1 + rows % 2, 2))


class Scatter(nn.Module):
    """Puts every pixel at the lower right of a 2×2 cell of zeros.  [N,C,H,W] -> [N,C,2H,2W]."""

    def forward(self, x: Tensor) -> Tensor:
        rows, cols = x.shape[-2:]
        y = x.new_zeros(*x.shape[:2], rows, 2, cols, 2)
        y[:, :, :, 1, :, 1] = x
        return y.flatten(4, 5).flatten(2, 3)


def down_strided(i: int, o: int, style: Style) -> nn.Sequential:
    """The authors' option `strided`: pads an even image by 1 and 2, not symmetrically."""
    layer = networks.initialized(nn.Conv2d(i, o, 5, 2), style)
    return nn.Sequential(Same(), layer, ChannelNorm(o, style))


def up_strided(i: int, o: int, style: Style) -> nn.Sequential:
    """The authors' option `strided`, transposed."""
    return nn.Sequential(Scatter(), networks.initialized(nn.Conv2d(i, o, 5, padding=2), style))


def check_layer(case: Case, layer: nn.Module, names: list[str], x: Tensor | None = None) -> Tensor:
    """The layer with the recorded weights, applied to x (default: the recorded input)."""
    fill(views(layer, names, case.w), case.w)
    return layer(case.x["x"] if x is None else x)


def layer_of(dims: int):
    """Which cases hold one layer whose kernel [..., in, out] has so many dimensions."""
    return lambda case: "m/kernel" in case.w and case.w["m/kernel"].dim() == dims


@cases("v3_layers", lambda case: "m/scale" in case.w)
def test_norms(case: Case):
    norm = nn.LayerNorm if "m/shift" in case.w else RMSNorm
    layer = norm(case.x["x"].shape[-1])
    if norm is nn.LayerNorm or case.hp["eps"] != 1e-4:  # options
        layer.eps = case.hp["eps"]
    close(check_layer(case, layer, ["m"]), case.out["y"], case)


@cases("v3_layers", layer_of(2))
def test_linear(case: Case):
    inputs, outputs = case.w["m/kernel"].shape
    y = check_layer(case, networks.linear(inputs, outputs, Style()), ["m"])
    units = case.hp["units"]
    close(y.unflatten(-1, units if isinstance(units, list) else [units]), case.out["y"], case)


@cases("v3_layers", layer_of(3))
def test_block_linear(case: Case):
    blocks, x = case.hp["blocks"], case.x["x"]
    layer = BlockLinear(x.shape[-1], case.hp["units"], blocks, Style())
    y = check_layer(case, layer, ["m"], x.unflatten(-1, (blocks, -1)))
    close(y.flatten(-2), case.out["y"], case)


@cases("v3_layers", lambda case: "m/linear0/kernel" in case.w and known_style(case.hp))
def test_mlp(case: Case):
    layers, units = case.hp["layers"], case.hp["units"]
    net = mlp(case.x["x"].shape[-1], units, layers, official_style(case.hp))
    names = numbered(layers, "m/linear{}", "m/norm{}")
    close(check_layer(case, net, names), case.out["y"], case)


@cases("v3_layers", lambda case: layer_of(4)(case) and small_kernel(case.hp["kernel"]))
def test_convolutions(case: Case):
    build = down_strided if case.hp["stride"] == 2 else networks.down_pool
    build = up_strided if case.hp["transp"] else build
    net = build(*case.w["m/kernel"].shape[2:], Style())
    last = next(i for i, layer in enumerate(net) if isinstance(layer, nn.Conv2d))
    x = case.x["x"].permute(0, 3, 1, 2)
    y = check_layer(case, net[: last + 1], ["m"], x)  # without pooling and norm
    close(y.permute(0, 2, 3, 1), case.out["y"], case)


def default_images(case: Case) -> bool:
    """At most one image, halved by every stage, by kernels that fit into ours."""
    spec, _ = observations(case.x)
    one = sum(len(shape) == 3 for shape in spec.values()) <= 1
    return one and known_style(case.hp) and plain_images(case.hp)


def plain_images(hp: dict) -> bool:
    """`outer` would leave the first stage at full size."""
    return not hp["outer"] and small_kernel(hp.get("kernel", 5))


@cases("v3_encoder_decoder", default_images)
def test_encoder_and_decoder(case: Case, official_stages):
    hp, style = case.hp, official_style(case.hp)
    spec, obs = observations(case.x)
    conv = Conv(hp.get("depth", 1), tuple(hp.get("mults", (1,))))
    conv = replace(conv, decoder=partial(ConvDecoder, blocks=hp["bspace"]))
    if hp["strided"]:
        conv = replace(conv, down=down_strided, up=up_strided)
    h, z = swap(case.x["deter"]), swap(case.x["stoch"]).flatten(-2)
    squash = symlog if hp["symlog"] else identity
    encoder = Encoder(spec, conv, hp["units"], hp["layers"], style, squash)
    decoder = Decoder(spec, conv, h.shape[-1], z.shape[-1], hp["units"], hp["layers"], style)
    names = encoder_names(spec, hp["layers"], len(conv.mults))
    found = views(encoder, names, case.w)
    found |= views(decoder, decoder_names(spec, hp["layers"], len(conv.mults)), case.w)
    fill(found, h_first(case.w, h.shape[-1]))

    close(swap(encoder(obs)), case.out["tokens"], case)
    for key, output in decoder(h, z).items():
        vector = SymlogHead().loss if hp["symlog"] else squared_error
        loss = PixelHead().loss if len(spec[key]) == 3 else vector
        pred = output.sigmoid() if len(spec[key]) == 3 else output  # official: in symlog space
        close(swap(pred), case.out[f"pred/{key}"], case)
        close(swap(loss(output, obs[key])), case.out[f"loss/{key}"], case)


# --- the recurrent state-space model -------------------------------------------------------------


@cases("v3_rssm_loss")
def test_rssm_loss(case: Case):
    post, prior = leaf(case.x["post_logit"]), leaf(case.x["prior_logit"])
    build = partial(OneHots.of, unimix=case.hp["unimix"])

    def element(q, p, dyn, rep):  # the mean over one element is the element
        return kl_loss(build(q[None]), build(p[None]), dyn, rep, case.hp["free_nats"], True)

    one, zero = torch.ones(post.shape[:2]), torch.zeros(post.shape[:2])
    dyn = one_by_one(element, post, prior, one, zero)
    rep = one_by_one(element, post, prior, zero, one)
    close(dyn, case.out["dyn"], case)
    close(rep, case.out["rep"], case)
    weighted = (case.x["g_dyn"] * dyn + case.x["g_rep"] * rep).sum()
    grads = torch.autograd.grad(weighted, [post, prior])
    close(grads[0], case.grad["post_logit"], case)
    close(grads[1], case.grad["prior_logit"], case)
    close(build(prior).entropy().mean(), case.out["dyn_ent"], case)
    close(build(post).entropy().mean(), case.out["rep_ent"], case)


def build_rssm(case: Case) -> RSSM:
    hp, style = case.hp, official_style(case.hp)
    latent = Categorical(hp["stoch"], hp["classes"], hp["unimix"])
    action, tokens = case.x["actemb"].shape[-1], case.x["tokens"].shape[-1]
    cell = BlockGRU(hp["deter"], hp["hidden"], latent.size, action, style, hp["blocks"])
    layers = hp["imglayers"], hp["obslayers"]
    rssm = RSSM(cell, latent, hp["deter"], hp["hidden"], tokens, *layers, style)
    fill(views(rssm, rssm_names(hp), case.w), case.w)
    return rssm


def logits_of(rssm: RSSM, params: Tensor) -> Tensor:
    """[T,B,G·K] -> [B,T,G,K]."""
    return swap(params).unflatten(-1, (rssm.latent.groups, rssm.latent.classes))


def actions_of(case: Case, key: str) -> Tensor:
    """All action keys side by side, time-major.  [T,B,A]."""
    keys = zip(case.hp["action_keys"], case.hp["action_classes"], strict=True)
    return swap(torch.cat([onehot_actions(case.x[f"{key}/{k}"], n) for k, n in keys], -1))


def recorded(monkeypatch, stoch: Tensor) -> None:
    """Samples come from the record: stoch [B,T,G,K]."""
    samples = iter(swap(stoch).flatten(-2))
    monkeypatch.setattr(OneHots, "sample", lambda self: next(samples))


def default_rssm(case: Case) -> bool:
    return plain_rssm(case.hp)


def plain_rssm(hp: dict) -> bool:
    """One hidden layer in the cell, and a posterior that sees the memory."""
    return hp["dynlayers"] == 1 and not hp["absolute"] and known_style(hp)


@cases("v3_rssm", default_rssm)
def test_rssm_cell_and_prior(case: Case):
    rssm = build_rssm(case)
    h, z, a = (leaf(case.x[k]) for k in ("deter", "stoch", "actemb"))
    new = rssm.recur(State(h, z.flatten(-2)), a)
    close(new, case.out["core_deter"], case)
    prior = rssm.prior_net(new).reshape(z.shape)
    close(prior, case.out["core_prior_logit"], case)
    gradients = torch.autograd.grad((new * case.x["g"]).sum(), [h, z, a])
    for name, gradient in zip(("deter", "stoch", "actemb"), gradients, strict=True):
        close(gradient, case.grad[f"core_{name}"], case)


@cases("v3_rssm", default_rssm)
def test_rssm_observes(case: Case, monkeypatch):
    rssm = build_rssm(case)
    tokens, first = swap(case.x["tokens"]), swap(case.x["reset"])
    recorded(monkeypatch, case.out["stoch"])
    start = State(case.x["deter"], case.x["stoch"].flatten(-2))
    states, q = rssm.observe(tokens, actions_of(case, "action"), first, start)
    close(swap(states.h), case.out["deter"], case)
    close(logits_of(rssm, rssm.post_params(states.h, tokens)), case.out["post_logit"], case)
    close(logits_of(rssm, rssm.prior_net(states.h)), case.out["prior_logit"], case)
    p = rssm.prior(states.h)
    close(swap(q.kl(p).clamp(min=1)), case.out["dyn"], case)  # dyn and rep have one value
    loss = kl_loss(q, p, 1.0, 0.1, 1.0, True)
    close(loss, case.out["dyn"].mean() + 0.1 * case.out["rep"].mean(), case)


@cases("v3_rssm", default_rssm)
def test_rssm_imagines(case: Case, monkeypatch):
    rssm = build_rssm(case)
    recorded(monkeypatch, case.out["imag_stoch"])
    last = State(case.out["deter"][:, -1], case.out["stoch"][:, -1].flatten(-2))
    states = rssm.follow(last, actions_of(case, "imag_action"))
    close(swap(states.h), case.out["imag_deter"], case)
    close(logits_of(rssm, rssm.prior_net(states.h)), case.out["imag_logit"], case)


# --- returns, actor, critic ----------------------------------------------------------------------


@cases("v3_lambda_return")
def test_lambda_return(case: Case):
    lam, gamma = case.hp["lam"], case.hp["disc"]
    x = {k: swap(v.float())[1:] for k, v in case.x.items()}  # entry t holds time t+1
    ret = lambda_return(x["rew"], gamma * (1 - x["term"]), x["boot"], lam * (1 - x["last"]))
    close(swap(ret), case.out["ret"], case)


def return_scale(hp: dict) -> ReturnScale:
    return ReturnScale(hp["rate"], hp["perclo"] / 100, hp["perchi"] / 100, hp["limit"])


class Normalizer:
    """`ReturnScale`, or an option of the authors: no bias, mean and deviation, nothing at all."""

    def __init__(self, hp: dict):
        self.hp, self.percentiles = hp, return_scale(hp)
        self.moments, self.corr = torch.zeros(2), torch.tensor(0.0)

    def update(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Offset and scale after this batch."""
        rate, limit, kind = self.hp["rate"], self.hp["limit"], self.hp["impl"]
        self.corr += rate * (1 - self.corr)  # the sum of the weights so far
        weight = self.corr if self.hp["debias"] else 1.0
        if kind == "none":
            return torch.tensor(0.0), torch.tensor(1.0)
        if kind == "meanstd":
            self.moments.lerp_(torch.stack([x.mean(), (x**2).mean()]), rate)
            mean, square = self.moments / weight
            return mean, (square - mean**2).clamp(min=0).sqrt().clamp(min=limit)
        scale, (low, high) = self.percentiles.update(x), self.percentiles.range / weight
        return low, (high - low).clamp(min=limit) if self.hp["debias"] else scale

    def state(self) -> dict[str, Tensor]:
        """What the authors keep, by their names."""
        values = *self.percentiles.range, *self.moments, self.corr
        return dict(zip(("lo", "hi", "mean", "sqrs", "corr"), values, strict=True))


@cases("v3_normalize")
def test_return_scale_and_other_normalizers(case: Case):
    normalizer = Normalizer(case.hp)
    for i, x in enumerate(case.x["x"]):
        offset, scale = normalizer.update(x)
        close(offset, case.out["offset"][i], case)
        close(scale, case.out["scale"][i], case)
        for name in (k for k in case.out if k.startswith("state/")):
            close(normalizer.state()[name.removeprefix("state/")], case.out[name][i], case)


def policy_of(case: Case, update: int, key: str):
    """The distribution of one action in one update, its raw parameters and its actions [T,B,A]."""
    raw = leaf(case.x[f"policy_raw/{key}"][update])
    actions = onehot_actions(case.x[f"act/{key}"][update], raw.shape[-1])
    if case.x[f"act/{key}"].is_floating_point():
        return BoundedNormal(case.hp["minstd"], case.hp["maxstd"])(swap(raw)), raw, swap(actions)
    return OneHots.of(swap(raw)[..., None, :]), raw, swap(actions)


def dream_metrics(ret, base, offset, scale, entropies: dict, choices: dict, **means: Tensor):
    """The authors' statistics of dreams: the advantage, the scaled return, and plain means.

    choices: how many actions there are, for discrete ones (the range of their entropy is recorded).
    """
    advantage, scaled = (ret - base) / scale, (ret - offset) / scale
    entropy = {k: x.mean() for k, x in entropies.items()}
    return {
        **{k: x.mean() for k, x in means.items()},
        "adv": advantage.mean(),
        "adv_std": advantage.std(correction=0),
        "adv_mag": advantage.abs().mean(),
        "ret": scaled.mean(),
        "ret_min": scaled.min(),
        "ret_max": scaled.max(),
        "ret_rate": (scaled.abs() >= 1).float().mean(),
        "tar": ret.mean(),
        **{f"ent/{k}": x for k, x in entropy.items()},
        **{f"rand/{k}": entropy[k] / math.log(n) for k, n in choices.items()},
    }


@cases("v3_imag_loss")
def test_actor_and_critic_loss(case: Case):
    hp, head = case.hp, TwoHotHead(case.hp["bins"])
    scales = {k.removeprefix("retnorm_"): v for k, v in hp.items() if k.startswith("retnorm_")}
    normalizer = Normalizer(scales)
    gamma = 1.0 if hp["contdisc"] else 1 - 1 / hp["horizon"]  # contdisc: con contains it
    for i in range(hp["updates"]):
        policies = {k: policy_of(case, i, k) for k in hp["action_keys"]}
        logits = leaf(case.x["value_logits"][i])
        slow = head.mean(swap(case.x["slowvalue_logits"][i]))
        value, params = head.mean(swap(logits)), swap(logits)[:-1]
        base = slow if hp["slowtar"] else value.detach()
        reward, cont = swap(case.x["rew"][i]), swap(case.x["con"][i])
        ret = lambda_return(reward[1:], gamma * cont[1:], base[1:], hp["lam"])
        every = torch.cat(
            [gamma * cont[1:], cont[:1]]
        )  # one more, for the weight of the last state
        weights = discount_weights(cont[0], every)  # official c₀ is the predicted one
        weight = weights[:-1]
        size = (logits.detach().softmax(-1) * head.bins.abs()).sum(-1).max()  # what cancels
        check = partial(close, case=case, extra=1e-6 * size)

        check(swap(value), case.out["val_pred"][i])
        check(swap(slow), case.out["slowval_pred"][i])
        check(swap(ret), case.out["ret"][i])
        offset, scale = normalizer.update(ret)
        for name in ("lo", "hi"):
            if f"retnorm_{name}" in case.out:
                check(normalizer.state()[name], case.out[f"retnorm_{name}"][i])

        # Several actions at once are one: entropies and log-probabilities add up.
        entropies = {k: pi.entropy()[:-1] for k, (pi, _, _) in policies.items()}
        entropy = sum(entropies.values())
        logp = sum(pi.log_prob(actions)[:-1] for pi, _, actions in policies.values())
        rules = {"rho": 1.0, "eta": hp["actent"], "scale": scale}
        pieces = ret, base[:-1], logp, entropy, weight
        check(swap(one_by_one(partial(actor_loss, **rules), *pieces)), case.out["policy_loss"][i])
        loss = partial(critic_loss, head, slow_regularizer=hp["slowreg"])
        values = one_by_one(loss, params, ret, weight, slow[:-1])
        check(swap(values), case.out["value_loss"][i])

        raws = {k: raw for k, (_, raw, _) in policies.items()}
        means = {"rew": reward, "con": cont, "val": value, "slowval": slow, "weight": weights}
        choices = {k: x.shape[-1] for k, x in raws.items() if f"metric/rand/{k}" in case.out}
        watched = dream_metrics(ret, base[:-1], offset, scale, entropies, choices, **means)
        assert {f"metric/{k}" for k in watched} == {k for k in case.out if k.startswith("metric/")}
        for k, x in watched.items():
            check(x, case.out[f"metric/{k}"][i])

        actor_grads = torch.autograd.grad(actor_loss(*pieces, **rules), list(raws.values()))
        critic_grad = torch.autograd.grad(loss(params, ret, weight, slow[:-1]), logits)[0]
        for k, gradient in zip(raws, actor_grads, strict=True):
            close(gradient, case.grad[f"policy_raw/{k}"][i], case)
        close(critic_grad, case.grad["value_logits"][i], case)


VALUES = {"rate": 0.01, "limit": 1e-8, "perclo": 5.0, "perchi": 95.0, "debias": True}


@cases("v3_repl_loss")
def test_replay_value_loss(case: Case):
    hp, head = case.hp, TwoHotHead(case.hp["bins"])
    last, reward, boot = (swap(case.x[k]) for k in ("last", "rew", "boot"))
    first = last.roll(1, 0)  # a row is the first of an episode iff the row before was the last
    cont = ~swap(case.x["term"])
    ret, weight = replay_return(reward, cont, first, boot, 1 - 1 / hp["horizon"], hp["lam"])
    close(swap(ret), case.out["ret"], case)
    logits = leaf(case.x["value_logits"])
    slow = head.mean(swap(case.x["slowvalue_logits"]))[:-1]
    loss = partial(critic_loss, head, slow_regularizer=hp["slowreg"])
    offset, scale = Normalizer(VALUES | {"impl": hp["valnorm"]}).update(ret)  # V3: none, 0 and 1
    pieces = swap(logits)[:-1], (ret - offset) / scale, weight, slow
    close(swap(one_by_one(loss, *pieces)), case.out["repval_loss"], case)
    close(torch.autograd.grad(loss(*pieces), logits)[0], case.grad["value_logits"], case)


@cases("v3_slowmodel")
def test_slow_copy(case: Case):
    names = sorted(k.removeprefix("initial/") for k in case.x if k.startswith("initial/"))
    fast = nn.ParameterDict({k: case.x[f"initial/{k}"].clone() for k in names})
    slow = SlowCopy(fast, case.hp["every"], case.hp["rate"])
    for count in range(len(case.x[f"source/{names[0]}"])):
        for k in names:
            fast[k].data.copy_(case.x[f"source/{k}"][count])
        slow.update(count)
        for k in names:
            close(slow.module[k], case.out[f"slow/{k}"][count], case)


# --- optimizer -----------------------------------------------------------------------------------


def laprop(hp: dict) -> LaProp:
    numbers = hp["lr"], hp["agc"], hp["beta1"], hp["beta2"], hp["eps"], hp["warmup"]
    if hp["schedule"] == "const":
        return LaProp(*numbers)
    return Annealed(*numbers, schedule=hp["schedule"], anneal=hp["anneal"])


@dataclass(frozen=True)
class Annealed(LaProp):
    """The authors' option `schedule` (V3: const): after the warm-up the rate falls."""

    schedule: str = "linear"
    anneal: int = 1000

    def rate(self, count: int) -> float:
        if count < self.warmup:
            return super().rate(count)
        share = min((count - self.warmup) / (self.anneal - self.warmup), 1.0)
        if self.schedule == "linear":
            return self.lr * (1 - 0.9 * share)
        low = 0.1 * self.lr  # the authors' code multiplies it by lr once more
        return self.lr * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * share)))


def default_momentum(case: Case) -> bool:
    return not case.hp["nesterov"] and case.hp["pmin"] == 1e-3


def decay(optimizer: Optimizer, before: dict[str, Tensor], hp: dict, count: int) -> None:
    """The authors' option `wd` (V3: 0): kernels shrink by lr·wd after the step."""
    for k, p in optimizer.params.items():
        if k.endswith("kernel"):
            p.sub_(optimizer.rule.rate(count) * hp["wd"] * before[k])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@cases("v3_optimizer", default_momentum)
def test_laprop(case: Case, dtype):
    names = sorted(k.removeprefix("params/") for k in case.x if k.startswith("params/"))
    params = {k: case.x[f"params/{k}"].to(dtype, copy=True) for k in names}
    optimizer = Optimizer(params, laprop(case.hp))
    for count in range(case.hp["steps"]):
        before = {k: p.clone() for k, p in params.items()}
        optimizer.step([case.x[f"grads/{k}"][count].to(dtype) for k in names])
        decay(optimizer, before, case.hp, count)
        for k in names:
            most = case.out[f"updates/{k}"].abs().max()
            expected = case.out[f"params/{k}"][count]
            close(params[k], expected, case, 1e-4 * most + torch.finfo(torch.float32).eps)
            if dtype == torch.float64:  # float32 parameters are too coarse to show a small update
                update = params[k] - before[k]
                close(update, case.out[f"updates/{k}"][count], case, 1e-5 * most)


@cases("v3_optimizer")
def test_adaptive_clip(case: Case):
    names = sorted(k.removeprefix("params/") for k in case.x if k.startswith("params/"))
    grads = [case.x[f"grads/{k}"][0] for k in names]
    params = [case.x[f"params/{k}"] for k in names]
    clipped = adaptive_clip(grads, params, case.hp["agc"], case.hp["pmin"])
    for k, g in zip(names, clipped, strict=True):
        close(g, case.out[f"agc/{k}"], case)


# --- everything at once --------------------------------------------------------------------------


def official_config(hp: dict) -> Config:
    """The authors' settings as ours: the same numbers, other names."""
    dyn, enc, dec = hp["dyn"]["rssm"], hp["enc"]["simple"], hp["dec"]["simple"]
    scales, imag, policy = hp["loss_scales"], hp["imag_loss"], hp["policy"]
    blocks = dec["bspace"]
    model = ModelConfig(
        latent=Categorical(dyn["stoch"], dyn["classes"], dyn["unimix"]),
        cell=partial(BlockGRU, blocks=dyn["blocks"]),
        deter=dyn["deter"],
        hidden=dyn["hidden"],
        prior_layers=dyn["imglayers"],
        post_layers=dyn["obslayers"],
        units=enc["units"],
        vector_layers=enc["layers"],
        reward_layers=hp["rewhead"]["layers"],
        cont_layers=hp["conhead"]["layers"],
        head=partial(TwoHotHead, hp["rewhead"]["bins"]),
        conv=Conv(enc["depth"], tuple(enc["mults"]), decoder=partial(ConvDecoder, blocks=blocks)),
        style=official_style(dyn),
        kl=KL(scales["dyn"], scales["rep"], dyn["free_nats"]),
        gamma=1 - 1 / hp["horizon"],
    )
    actor = ActorConfig(
        layers=policy["layers"],
        eta=imag["actent"],
        unimix=0.0,  # the authors' code has lost it
        continuous=BoundedNormal(policy["minstd"], policy["maxstd"]),
    )
    critic = CriticConfig(
        layers=hp["value"]["layers"],
        slow_target=imag["slowtar"],
        slow_regularizer=imag["slowreg"],
        replay=scales["repval"],
    )
    behavior = BehaviorConfig(actor, critic, hp["imag_length"], imag["lam"])
    return Config(model, behavior, Optimizers(laprop(hp["opt"])))


def default_agent(case: Case) -> bool:
    """Everything as in V3 but for numbers; one width for all networks."""
    hp = json.loads(case.hp["config"])
    dyn, enc, dec = hp["dyn"]["rssm"], hp["enc"]["simple"], hp["dec"]["simple"]
    heads = [enc, dec, *(hp[k] for k in ("rewhead", "conhead", "policy", "value"))]
    return (
        len({head["units"] for head in heads}) == 1
        and plain_rssm(dyn)
        and all(plain_images(x) and not x["strided"] for x in (enc, dec))
        and enc["symlog"]
        and enc["mults"] == dec["mults"]
        and hp["rewhead"]["bins"] == hp["value"]["bins"]
        and all(hp[k] for k in ("contdisc", "reward_grad", "repval_loss", "repval_grad"))
        and not (hp["ac_grads"] or hp["imag_last"])
        and hp["retnorm"]["impl"] == "perc" and not hp["retnorm"]["debias"]
        and hp["valnorm"]["impl"] == hp["advnorm"]["impl"] == "none"
    )  # fmt: skip


def agent_views(agent: Dreamer, hp: dict, weights: dict) -> dict[str, View]:
    """Every trained weight of an agent under its official name."""
    model, behavior, enc = agent.world_model, agent.behavior, hp["enc"]["simple"]
    sizes = enc["layers"], len(enc["mults"])
    head = lambda name, layers, out: [*mlp_names(name, layers), out]  # noqa: E731
    action = "pol/head/action/"
    logits = (f"{action}mean", f"{action}stddev") if agent.action.continuous else f"{action}logits"
    parts = {
        model.encoder: encoder_names(agent.obs, *sizes),
        model.rssm: rssm_names(hp["dyn"]["rssm"]),
        model.decoder: decoder_names(agent.obs, *sizes),
        model.reward_net: head("rew", hp["rewhead"]["layers"], "rew/head/logits"),
        model.cont_net: head("con", hp["conhead"]["layers"], "con/head/logit"),
        behavior.policy: head("pol", hp["policy"]["layers"], logits),
        behavior.critic: head("val", hp["value"]["layers"], "val/head/logits"),
        behavior.slow_critic: head("slowval", hp["value"]["layers"], "slowval/head/logits"),
    }
    found = {}
    for module, names in parts.items():
        found |= views(module, names, weights)
    return found


def official_batch(case: Case, action: ActionSpec) -> tuple[Sequence, State]:
    """One batch as rows: prev_action and reward arrive together with the observation."""
    _, obs = observations(case.x)
    reward, first, last, terminal = (
        swap(case.x[f"obs/{k}"]) for k in ("reward", "is_first", "is_last", "is_terminal")
    )
    assert torch.equal(first[1:], last[:-1]), "rows tell the end of an episode by the next start"
    prev_action = swap(onehot_actions(case.x["prevact"], action.size))
    start = State(case.x["carry_deter"], case.x["carry_stoch"].flatten(-2))
    return Sequence(obs, prev_action, reward, ~terminal, first), start


def official_action(case: Case) -> ActionSpec:
    if case.x["prevact"].is_floating_point():
        return ActionSpec(continuous=case.x["prevact"].shape[-1])
    return ActionSpec(discrete=(case.w["pol/head/action/logits/bias"].numel(),))


def official_agent(case: Case, monkeypatch) -> tuple[Dreamer, dict]:
    """An agent with the recorded weights that samples modes and weighs dreams as the authors do."""
    hp = json.loads(case.hp["config"])
    monkeypatch.setattr(OneHots, "sample", OneHots.mode)
    monkeypatch.setattr(DiagNormal, "sample", DiagNormal.mode)
    agent = Dreamer(official_config(hp), observations(case.x)[0], official_action(case))
    fill(agent_views(agent, hp, case.w), h_first(case.w, hp["dyn"]["rssm"]["deter"]))
    agent.behavior.scale = return_scale(hp["retnorm"])
    dream = agent.behavior.dream
    predicted = lambda model, s, cont: dream(model, s, model.discount(s.feat).detach())  # noqa: E731
    monkeypatch.setattr(agent.behavior, "dream", predicted)  # official c₀ is the predicted one
    return agent, hp


# Ours: which of the authors' losses, averaged over [B,T], and with which of their scales.
PARTS = {
    "reward": ("rew",),
    "cont": ("con",),
    "kl": ("dyn", "rep"),
    "actor": ("policy",),
    "critic": ("value",),
    "replay_critic": ("repval",),
}


def check_means(case: Case, losses: dict[str, Tensor], scales: dict[str, float]) -> None:
    """Our losses are weighted means of the authors'."""
    parts = PARTS | {k: (k.removeprefix("obs/"),) for k in losses if k.startswith("obs/")}
    assert losses.keys() == parts.keys()
    for name, official in parts.items():
        means = [scales.get(k, scales["rec"]) * case.out[f"losses/{k}"].mean() for k in official]
        close(losses[name], sum(means), case)
    close(sum(losses.values()), case.out["loss"], case)


@cases("v3_agent_loss", default_agent)
def test_whole_agent(case: Case, official_stages, monkeypatch):
    agent, hp = official_agent(case, monkeypatch)
    batch, start = official_batch(case, agent.action)
    losses, states, _ = agent.losses(batch, start)
    check_means(case, losses, hp["loss_scales"])
    tokens, rssm = agent.world_model.encoder(batch.obs), agent.world_model.rssm
    close(swap(tokens), case.out["tokens"], case)
    close(swap(states.h), case.out["repfeat/deter"], case)
    close(swap(states.z), case.out["repfeat/stoch"].flatten(-2), case)
    logits = logits_of(rssm, rssm.post_params(states.h, tokens))
    close(logits, case.out["repfeat/logit"], case)
    close(agent.behavior.scale.range[0], case.out["retnorm_lo"], case)
    close(agent.behavior.scale.range[1], case.out["retnorm_hi"], case)


def model_losses(agent: Dreamer, batch: Sequence, states: State, q, p) -> dict[str, Tensor]:
    """The world model's losses before the mean, by the authors' names.  [T,B] each."""
    model, free = agent.world_model, agent.cfg.model.kl.free
    outputs, label = model.decoder(states.h, states.z), model.cfg.gamma * batch.cont.float()
    return {
        **{k: model.obs_heads[k].loss(x, batch.obs[k]) for k, x in outputs.items()},
        "rew": model.head.loss(model.reward_net(states.feat), batch.reward),
        "con": model.event.loss(model.cont_net(states.feat), label),
        "dyn": q.detach().kl(p).clamp(min=free),
        "rep": q.kl(p.detach()).clamp(min=free),
    }


def dream_losses(agent: Dreamer, dream: Dream, monkeypatch) -> dict[str, Tensor]:
    """Policy and value loss of every dream alone, under the scale that all have made.  [N] each."""
    scale = agent.behavior.scale.value()
    monkeypatch.setattr(agent.behavior.scale, "update", lambda ret: scale)
    found = []
    for i in range(dream.ret.shape[1]):
        alone = Dream(*(x.map(lambda y, i=i: y[:, i : i + 1]) if isinstance(x, State)
                        else x[:, i : i + 1] for x in dream))  # fmt: skip
        found.append(agent.behavior.losses(alone)[0])
    names = {"policy": "actor", "value": "critic"}
    return {k: torch.stack([x[ours] for x in found]) for k, ours in names.items()}


def replay_losses(agent: Dreamer, batch: Sequence, states: State, bootstrap: Tensor) -> Tensor:
    """The value loss of every replayed row alone.  [T-1,B]."""
    behavior, feat = agent.behavior, states.feat[:-1]
    gamma, lam = agent.cfg.model.gamma, behavior.cfg.lam
    rows = batch.reward, batch.cont, batch.is_first, bootstrap
    ret, weight = replay_return(*rows, gamma, lam)
    loss = partial(behavior.critic_loss, slow=behavior.cfg.critic.slow_regularizer)
    return one_by_one(loss, feat, ret, weight)


@cases("v3_agent_loss", default_agent)
def test_every_loss_and_statistic_of_the_whole_agent(case: Case, official_stages, monkeypatch):
    agent, _ = official_agent(case, monkeypatch)
    batch, start = official_batch(case, agent.action)
    model, behavior = agent.world_model, agent.behavior
    dreams, dreaming = [], behavior.dream
    monkeypatch.setattr(behavior, "dream", lambda *a: dreams.append(dreaming(*a)) or dreams[0])
    agent.losses(batch, start)
    states, q = model.observe(batch, start)
    p, dream, rows = model.rssm.prior(states.h), dreams[0], batch.reward.shape
    bootstrap = dream.ret[0].unflatten(0, rows)
    losses = model_losses(agent, batch, states, q, p)
    dreamt = dream_losses(agent, dream, monkeypatch)
    losses |= {k: x.unflatten(0, rows) for k, x in dreamt.items()}
    losses["repval"] = replay_losses(agent, batch, states, bootstrap)
    assert {f"losses/{k}" for k in losses} == {k for k in case.out if k.startswith("losses/")}
    for k, x in losses.items():
        close(swap(x), case.out[f"losses/{k}"], case)

    feat = dream.states.feat  # the authors' means begin with the state that the dream starts from
    cont = model.discount(feat)
    means = {"rew": model.reward(feat), "con": cont, "val": dream.value}
    means |= {"slowval": behavior.slow_value(feat)}
    means |= {"weight": discount_weights(cont[0], torch.cat([cont[1:], cont[:1]]))}
    means |= {f"loss/{k}": x for k, x in losses.items()}
    means |= {"dyn_ent": p.entropy(), "rep_ent": q.entropy()}
    entropies = {"action": behavior.policy(feat[:-1]).entropy()}
    count = sum(agent.action.discrete)
    choices = {"action": count} if count else {}
    offset, scale = behavior.scale.range[0], behavior.scale.value()
    watched = dream_metrics(dream.ret, dream.value[:-1], offset, scale, entropies, choices, **means)
    assert {f"metric/{k}" for k in watched} == {k for k in case.out if k.startswith("metric/")}
    for k, x in watched.items():
        close(x, case.out[f"metric/{k}"], case)


@cases("v3_agent_loss", default_agent)
def test_gradient_of_the_whole_agent(case: Case, official_stages, monkeypatch):
    agent, hp = official_agent(case, monkeypatch)
    losses, _, _ = agent.losses(*official_batch(case, agent.action))
    gradients = agent.gradients(losses)["model"]  # one optimizer moves everything
    of = dict(zip(agent.optimizers["model"].params.values(), gradients, strict=True))
    found = agent_views(agent, hp, case.w)
    trained = {k: view for k, view in found.items() if not k.startswith("slowval/")}
    assert trained.keys() == case.grad.keys()
    official = h_first(case.grad, hp["dyn"]["rssm"]["deter"])
    for name, view in trained.items():
        expected = official[name]
        extra = 1e-5 * expected.abs().max()
        close(view.of(of[view.parameter]), expected, case, extra)


def test_every_case_has_a_test():
    refuse_untested("v3")
