"""Every public function that is given tensors refuses broken ones, and says which and why.

A case is a call that is right. Each of its tensors is broken in five ways: another dtype, a NaN, no
entries, the first two axes exchanged, one entry less on the last axis. The answer must be a
ValueError that names the argument, what was expected, what came, and a remedy. What is no mistake
stands in `FINE` with its reason; a public function without a case fails unless `EXEMPT` says why.
"""

import ast
import re
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import tiny
import torch
from apipages import PACKAGE, entries, walk
from gymnasium import spaces

from dreamer_lite import (
    behavior,
    distributions,
    envs,
    heads,
    networks,
    optim,
    replay,
    report,
    returns,
    scores,
    study,
    toys,
    transforms,
    world_model,
)
from dreamer_lite.distributions import Bernoulli, DiagNormal, OneHots
from dreamer_lite.networks import Conv, Style
from dreamer_lite.rssm import State

TENSORS = re.compile(r"\b(Tensors?|ndarray|State|Row|Sequence|OneHots|DiagNormal)\b")
H, N, B, T, A = 4, 3, 3, 6, 2  # no two neighbors alike
D, Z, F = 64, 128, 192  # of a tiny agent
BINS = transforms.symexp_bins(5)
V3, V1 = tiny.agent(tiny.NUMBERS), tiny.agent(tiny.NUMBERS, cfg=tiny.PAPERS["V1"])
MODEL, BEHAVIOR = V3.world_model, V3.behavior
RSSM, E = MODEL.rssm, MODEL.encoder.size
STYLE = Style()
FOLDER = TemporaryDirectory()
SEER = tiny.agent(tiny.NUMBERS, obs={"image": (16, 16, 3)}).world_model  # of images alone


def x(*shape):
    """Numbers between 0 and 1."""
    return torch.rand(shape)


def hn():
    return x(H, N)


def image(*lead):
    return torch.randint(256, (*lead, 16, 16, 3), dtype=torch.uint8)


def frames(*lead):
    return np.zeros((*lead, 8, 8, 3), np.uint8)


def flags(*shape):
    return torch.zeros(shape, dtype=torch.bool)


def dice(*shape):
    return OneHots.of(x(*shape))


def state(*lead):
    return State(x(*lead, D), x(*lead, Z))


def batch():
    """Rows of one episode, so that a dream can follow them."""
    rows = tiny.batch(tiny.NUMBERS, time=T, size=B)
    return rows._replace(is_first=flags(T, B), cont=~flags(T, B))


def row():
    """One tick of B streams in arrays."""
    rows = batch()
    obs = {name: seen[0].numpy() for name, seen in rows.obs.items()}
    return envs.Row(obs, *(column[0].numpy() for column in rows[1:]))


def memory(**options):
    spec = {"vector": (3,)}
    return replay.Replay(40, 2, spec, A, online=False, **options)


LATENT = replay.LatentSpec(4, 2, 3)
LIVED = envs.Row(
    {"vector": np.zeros((2, 3), np.float32)}, np.zeros((2, A), np.float32),
    np.zeros(2, np.float32), np.ones(2, bool), np.zeros(2, bool),
)  # fmt: skip


def remembered():
    kept = memory(latent=LATENT)
    for _ in range(20):
        kept.add(LIVED, State(x(2, 4), x(2, 6)))
    return kept


def running():
    world = envs.make("CartPole-v1", 3)
    world.reset()
    return world


def optimizer():
    return optim.Optimizer({"a": torch.ones(H, N, requires_grad=True)}, optim.Adam())


MOVER = optimizer()


def cell(kind):
    return kind(16, 8, 6, A, STYLE), {"h": x(H, 16), "z": x(H, 6), "a": x(H, A)}


def decoder(kind, conv, style):
    return kind((16, 16, 3), conv, 16, 8, 4, style), {"h": x(5, N, 16), "z": x(5, N, 8)}


def head(made):
    """The two cases of a head."""
    name, params = f"heads.{type(made).__name__}", x(H, N, made.num_params)
    return {
        f"{name}.mean": (made.mean, {"params": params}),
        f"{name}.loss": (made.loss, {"params": params, "target": hn()}),
    }


def actions(made):
    """The case of what turns the outputs of an actor, or of a latent, into a distribution."""
    return {f"distributions.{type(made).__name__}.__call__": (made, {"params": x(5, 4)})}


def pair(**parts):
    """Two distributions of four tensors."""
    probs, logp, other, others = parts.values()
    return OneHots(probs, logp), OneHots(other, others)


def normal():
    return {"mean": hn(), "std": hn() + 0.5}


V1_CONV, V1_STYLE = tiny.PAPERS["V1"].model.conv, tiny.PAPERS["V1"].model.style
ENCODER = networks.Encoder(tiny.OBS, Conv(4), 8, 2, STYLE)
OBS = {"image": image(5, N), "vector": x(5, N, 5)}
PIXEL = {"logits": x(H, N, 8, 8, 3), "image": torch.zeros(H, N, 8, 8, 3, dtype=torch.uint8)}
GRADS = {"grads": x(H, N), "params": x(H, N)}

# What is called (more than one case may follow after a space), and a call that is right
CASES = {
    "transforms.symlog": (transforms.symlog, {"x": hn()}),
    "transforms.symexp": (transforms.symexp, {"x": hn()}),
    "transforms.sigmoid2": (transforms.sigmoid2, {"x": hn()}),
    "transforms.twohot": (transforms.twohot, {"x": hn(), "bins": BINS}),
    "returns.lambda_return": (
        returns.lambda_return,
        {"reward": hn(), "discount": hn(), "value": hn(), "lam": hn()},
    ),
    "returns.discount_weights": (
        returns.discount_weights,
        {"cont": torch.ones(N), "discount": hn()},
    ),
    # distributions
    "distributions.DiagNormal.log_prob": (
        lambda x, mean, std: DiagNormal(mean, std).log_prob(x),
        {"x": hn()} | normal(),
    ),
    "distributions.DiagNormal.kl": (
        lambda mean, std, **other: DiagNormal(mean, std).kl(DiagNormal(*other.values())),
        normal() | {"other": hn(), "other std": hn() + 0.5},
    ),
    "distributions.DiagNormal sample": (lambda **p: DiagNormal(**p).sample(), normal()),
    "distributions.DiagNormal entropy": (lambda **p: DiagNormal(**p).entropy(), normal()),
    "distributions.Squashed.at": (
        lambda x, **p: distributions.Squashed(*p.values()).at(x),
        {"x": hn(), "loc": hn(), "scale": hn() + 0.5},
    ),
    "distributions.Squashed.log_prob": (
        lambda a, **p: distributions.Squashed(*p.values()).log_prob(a),
        {"a": hn(), "loc": hn(), "scale": hn() + 0.5},
    ),
    "distributions.Truncated.log_prob": (
        lambda a, **p: distributions.Truncated(*p.values()).log_prob(a),
        {"a": hn(), "loc": hn(), "scale": hn() + 0.5},
    ),
    "distributions.OneHots.of": (OneHots.of, {"logits": x(H, N, 5)}),
    "distributions.OneHots.log_prob": (
        lambda x, **p: OneHots(**p).log_prob(x),
        {"x": x(H, N * 5)} | dice(H, N, 5)._asdict(),
    ),
    "distributions.OneHots.kl": (
        lambda probs, logp, **other: OneHots(probs, logp).kl(OneHots(*other.values())),
        dice(H, N, 5)._asdict() | {"other": dice(H, N, 5).probs, "other logp": dice(H, N, 5).logp},
    ),
    "distributions.OneHots sample": (lambda **p: OneHots(**p).sample(), dice(H, N, 5)._asdict()),
    "distributions.OneHots entropy": (lambda **p: OneHots(**p).entropy(), dice(H, N, 5)._asdict()),
    "distributions.Choices.log_prob": (
        lambda x, logits: distributions.choices(logits, (3, 2), 0.01).log_prob(x),
        {"x": x(H, 5), "logits": x(H, 5)},
    ),
    "distributions.choices": (
        lambda logits: distributions.choices(logits, (3, 2), 0.01),
        {"logits": x(H, 5)},
    ),
    "distributions.Bernoulli.log_prob": (
        lambda x, logit: Bernoulli(logit).log_prob(x),
        {"x": hn(), "logit": hn()},
    ),
    "distributions.Bernoulli mean": (lambda logit: Bernoulli(logit).mean, {"logit": hn()}),
    "distributions.halves": (distributions.halves, {"params": x(5, 4)}),
    **actions(distributions.Gaussian(2)),
    **actions(distributions.Categorical(2, 2)),
    **actions(distributions.BoundedNormal()),
    **actions(distributions.TanhNormal()),
    **actions(distributions.TruncNormal()),
    # heads
    "heads.unit_normal_loss": (heads.unit_normal_loss, {"mean": hn(), "target": hn()}),
    **head(heads.NormalHead()),
    **head(heads.BernoulliHead()),
    **head(heads.TwoHotHead(5)),
    **head(heads.SymlogTwoHotHead(5)),
    "heads.raw_image": (heads.raw_image, {"image": image(2), "like": x(2, 16, 16, 3)}),
    "heads.PixelHead.mean": (heads.PixelHead().mean, {"logits": PIXEL["logits"]}),
    "heads.PixelHead.loss": (heads.PixelHead().loss, PIXEL),
    "heads.NormalPixelHead.mean": (heads.NormalPixelHead().mean, {"output": PIXEL["logits"]}),
    "heads.NormalPixelHead.loss": (
        heads.NormalPixelHead().loss,
        {"output": PIXEL["logits"], "image": PIXEL["image"]},
    ),
    "heads.SymlogHead.mean": (heads.SymlogHead().mean, {"output": x(H, N, 5)}),
    "heads.SymlogHead.loss": (heads.SymlogHead().loss, {"output": hn(), "target": hn()}),
    "heads.NormalVectorHead.mean": (heads.NormalVectorHead().mean, {"output": x(H, N, 5)}),
    "heads.NormalVectorHead.loss": (
        heads.NormalVectorHead().loss,
        {"output": hn(), "target": hn()},
    ),
    # networks
    "networks.trunc_normal": (
        lambda weight: networks.trunc_normal(weight, 3),
        {"weight": hn()},
    ),
    "networks.glorot_uniform": (
        lambda weight: networks.glorot_uniform(weight, 3),
        {"weight": hn()},
    ),
    "networks.BlockLinear.forward": (
        networks.BlockLinear(8, 12, 4, STYLE),
        {"x": x(5, 4, 2)},
    ),
    "networks.GRU.forward": cell(networks.GRU),
    "networks.NormGRU.forward": cell(networks.NormGRU),
    "networks.BlockGRU.forward": cell(lambda *sizes: networks.BlockGRU(*sizes, blocks=4)),
    "networks.gates": (
        networks.gates,
        {"reset": hn(), "candidate": hn(), "update": hn(), "h": hn()},
    ),
    "networks.ConvEncoder.forward": (
        networks.ConvEncoder((16, 16, 3), Conv(4), STYLE),
        {"image": image(2, N)},
    ),
    "networks.StrideEncoder": (
        networks.StrideEncoder((16, 16, 3), V1_CONV, V1_STYLE),
        {"image": image(2, N)},
    ),
    "networks.ConvDecoder.forward": decoder(networks.ConvDecoder, Conv(4), STYLE),
    "networks.StrideDecoder.forward": decoder(networks.StrideDecoder, V1_CONV, V1_STYLE),
    "networks.Encoder.forward": (ENCODER, {"obs": OBS}),
    "networks.Decoder.forward": (
        networks.Decoder(tiny.OBS, Conv(4), 16, 8, 8, 2, STYLE),
        {"h": x(5, N, 16), "z": x(5, N, 8)},
    ),
    # the model
    "rssm.RSSM.recur": (RSSM.recur, {"s": state(B), "a": x(B, A)}),
    "rssm.RSSM.prior": (RSSM.prior, {"h": x(5, B, D)}),
    "rssm.RSSM.post_params": (RSSM.post_params, {"h": x(5, B, D), "e": x(5, B, E)}),
    "rssm.RSSM.step": (RSSM.step, {"s": state(B), "a": x(B, A), "e": x(B, E), "first": flags(B)}),
    "rssm.RSSM.observe": (
        RSSM.observe,
        {"embed": x(5, B, E), "prev_action": x(5, B, A), "is_first": flags(5, B), "s": state(B)},
    ),
    "rssm.RSSM.imagine": (lambda s: RSSM.imagine(BEHAVIOR.policy, s, 2), {"s": state(B)}),
    "rssm.RSSM.follow": (RSSM.follow, {"s": state(B), "actions": x(H, B, A)}),
    "world_model.kl_loss": (
        lambda **p: world_model.kl_loss(*pair(**p), 1.0, 0.1, 1.0, True),
        {k: p for n in "qp" for k, p in zip((n, f"{n} logp"), dice(H, N, 2, 5), strict=True)},
    ),
    "world_model.latent_metrics": (
        lambda **p: world_model.latent_metrics(*pair(**p)),
        {k: p for n in "qp" for k, p in zip((n, f"{n} logp"), dice(H, N, 2, 5), strict=True)},
    ),
    "world_model.WorldModel.reward": (MODEL.reward, {"feat": x(H, N, F)}),
    "world_model.WorldModel.discount": (MODEL.discount, {"feat": x(H, N, F)}),
    "world_model.WorldModel.reconstruct": (MODEL.reconstruct, {"s": state(5, B)}),
    "world_model.WorldModel.observe": (MODEL.observe, {"batch": batch(), "start": state(B)}),
    "world_model.WorldModel.loss": (MODEL.loss, {"batch": batch(), "start": state(B)}),
    # behavior
    "behavior.actor_loss": (
        lambda **terms: behavior.actor_loss(**terms, rho=0.5, eta=0.1),
        {k: hn() for k in ("ret", "base", "logp", "entropy", "weight")} | {"scale": x() + 1},
    ),
    "behavior.critic_loss": (
        lambda **p: behavior.critic_loss(heads.TwoHotHead(5), **p, slow_regularizer=1.0),
        {"params": x(H, N, 5), "target": hn(), "weight": hn(), "slow_value": hn()},
    ),
    "behavior.replay_return": (
        lambda **rows: behavior.replay_return(**rows, gamma=0.9, lam=0.9),
        {"reward": hn(), "cont": ~flags(H, N), "is_first": flags(H, N), "bootstrap": hn()},
    ),
    "behavior.ReturnScale.update": (lambda ret: behavior.ReturnScale().update(ret), {"ret": hn()}),
    "behavior.explore": (
        lambda action: behavior.explore(action, tiny.NUMBERS, 0.3),
        {"action": x(N, A)},
    ),
    "behavior.explore choices": (
        lambda action: behavior.explore(action, tiny.ONE_CHOICE, 0.3),
        {"action": x(N, 4)},
    ),
    "behavior.Policy.forward": (BEHAVIOR.policy, {"feat": x(H, N, F)}),
    "behavior.Behavior.value": (BEHAVIOR.value, {"feat": x(H, N, F)}),
    "behavior.Behavior.slow_value": (BEHAVIOR.slow_value, {"feat": x(H, N, F)}),
    "behavior.Behavior.dream": (
        lambda **p: BEHAVIOR.dream(MODEL, **p),
        {"start": state(B), "cont": ~flags(B)},
    ),
    "behavior.Behavior.critic_loss": (
        lambda **p: BEHAVIOR.critic_loss(**p, slow=1.0),
        {"feat": x(H, N, F), "target": hn(), "weight": hn()},
    ),
    "behavior.Behavior.replay_loss": (
        lambda **p: BEHAVIOR.replay_loss(**p, gamma=0.9),
        {"states": state(T, B), "batch": batch(), "bootstrap": x(T, B)},
    ),
    # the agent
    "agent.Dreamer.act": (V3.act, {"row": row(), "state": state(B)}),
    "agent.Dreamer.explore": (V1.explore, {"action": np.zeros((N, A), np.float32)}),
    "agent.Dreamer.losses": (V3.losses, {"batch": batch(), "start": state(B)}),
    "agent.Dreamer.update": (V3.update, {"batch": batch(), "start": state(B)}),
    "agent.Dreamer.differentiate": (V3.differentiate, {"batch": batch(), "start": state(B)}),
    "optim.adaptive_clip": (
        lambda grads, params: optim.adaptive_clip([grads], [params], 0.3),
        GRADS,
    ),
    "optim.Optimizer.step": (lambda grads: optimizer().step([grads]), {"grads": hn()}),
    "optim.Optimizer.gradients": (MOVER.gradients, {"loss": MOVER.params["a"].sum()}),
    # the world and what is kept of it
    "envs.VectorEnv.step": (
        lambda action: running().step(action),
        {"action": np.eye(3, A, dtype=np.float32)},
    ),
    "envs.clean_action": (
        lambda action: envs.clean_action(tiny.NUMBERS, action),
        {"action": np.zeros((H, A), np.float32)},
    ),
    "envs.env_action": (
        lambda action: envs.env_action(spaces.Box(-1, 1, (A,)), action),
        {"action": np.zeros((H, A), np.float32)},
    ),
    "envs.env_action choices": (
        lambda action: envs.env_action(spaces.Discrete(5), action),
        {"action": np.eye(H, 5, dtype=np.float32)},
    ),
    "envs.resize": (envs.resize, {"images": frames(H)}),
    "replay.Replay.add": (
        lambda row, state: memory(latent=LATENT).add(row, state),
        {"row": LIVED, "state": State(x(2, 4), x(2, 6))},
    ),
    "replay.Replay.write_back": (
        lambda states: (lambda r: r.write_back(r.sample(5, 3).where, states))(remembered()),
        {"states": State(x(5, 3, 4), x(5, 3, 6))},
    ),
    "replay.difference": (replay.difference, {"frames": frames(H, 2)}),
    # what is shown and counted
    "report.starts": (lambda is_first: report.starts(is_first, 3), {"is_first": flags(T, B)}),
    "report.clips": (lambda sequence: report.clips(V3, sequence, 3, 2), {"sequence": batch()}),
    "report.open_loop": (
        lambda **p: report.open_loop(V3, **p, context=3),
        {"sequence": batch(), "start": state(B)},
    ),
    "report.watch": (
        lambda **p: report.watch(V3, **p, rows=3),
        {"sequence": batch(), "start": state(B)},
    ),
    "report.imagine": (
        lambda state, actions: report.imagine(V3, state, H, actions),
        {"state": state(B), "actions": x(H, A)},
    ),
    "report.given": (lambda actions: report.given(actions, H, N, A), {"actions": x(H, N, A)}),
    "report.error": (report.error, {"truth": frames(H, 2), "model": frames(H, 2)}),
    "report.psnr": (report.psnr, {"truth": frames(H, 2), "model": frames(H, 2)}),
    "report.rgb": (report.rgb, {"frames": frames(H, 2)}),
    "report.error_rgb": (report.error_rgb, {"frames": frames(H, 2)}),
    "report.enlarge": (lambda frames: report.enlarge(frames, 16, 8), {"frames": frames(H)}),
    "report.headed": (lambda frame: report.headed(frame, ["a"]), {"frame": frames()}),
    "report.save_video": (
        lambda frames: report.save_video(frames, Path(FOLDER.name) / "a.gif"),
        {"frames": frames(H)},
    ),
    "scores.iqm": (scores.iqm, {"scores": np.ones((5, 3))}),
    "scores.interval": (
        lambda **p: scores.interval(**p, draws=20),
        {"scores": np.ones((5, 3))},
    ),
    "scores.share": (lambda **p: scores.share(**p, low=0.0, high=1.0), {"scores": np.ones((5, 3))}),
    "scores.row": (lambda **p: scores.row("a", "b", **p), {"scores": np.ones((5, 3))}),
    "study.dream": (
        lambda sequence: study.dream(SEER, sequence, 3),
        {"sequence": batch()._replace(obs={"image": image(T, B)})},
    ),
    "toys.ball_column": (
        lambda image: toys.ball_column(image, 3),
        {"image": np.zeros((16, 16, 1), np.uint8)},
    ),
    "toys.OptimalCatcher.act": (
        lambda image: toys.OptimalCatcher().act(image),
        {"image": np.zeros((16, 16, 1), np.uint8)},
    ),
    "toys.steer": (toys.steer, {"position": np.zeros(2), "target": np.ones(2)}),
    "toys.square": (toys.square, {"place": np.zeros(2)}),
}

# Of which cases what is no mistake: reason -> (case, "argument: how"), both may hold a *
FINE = {
    "it is elementwise: any shape": [
        *(("transforms.sy*", f"x: {how} axis") for how in ("time", "last")),
        *(("transforms.sigmoid2", f"x: {how} axis") for how in ("time", "last")),
        *(("transforms.twohot", f"x: {how} axis") for how in ("time", "last")),
        *(("distributions.Bernoulli mean", f"logit: {how} axis") for how in ("time", "last")),
        *(("scores.share", f"scores: {how} axis") for how in ("time", "last")),
    ],
    "any axes may stand in front, and nothing tells which is time": [
        ("distributions.OneHots.of", "logits: time axis"),
        ("heads.*.mean", "*: time axis"),
        ("networks.*Encoder*", "image: time axis"),
        ("rssm.RSSM.prior", "h: time axis"),
        ("world_model.WorldModel.*", "feat: time axis"),
        ("behavior.*", "feat: time axis"),
        ("behavior.ReturnScale.update", "ret: time axis"),
        ("envs.resize", "images: time axis"),
        ("replay.difference", "frames: time axis"),
        ("report.starts", "is_first: time axis"),
        ("report.*", "frames: time axis"),
        ("scores.*", "scores: time axis"),
    ],
    "a smaller one is as good": [
        ("transforms.twohot", "bins: last axis"),
        ("distributions.OneHots.of", "logits: last axis"),
        ("heads.*PixelHead.mean", "*: last axis"),
        ("heads.*VectorHead.mean", "output: last axis"),
        ("heads.SymlogHead.mean", "output: last axis"),
        ("behavior.ReturnScale.update", "ret: last axis"),
        ("envs.resize", "images: last axis"),
        ("replay.difference", "frames: last axis"),
        ("report.starts", "is_first: last axis"),
        ("report.error_rgb", "frames: last axis"),
        ("scores.*", "scores: last axis"),
    ],
    "NaN was refused where a network's answer became this distribution": [
        ("distributions.DiagNormal*", "mean: NaN"),
        ("distributions.DiagNormal*", "*std: NaN"),
        ("distributions.Squashed*", "loc: NaN"),
        ("distributions.Squashed*", "scale: NaN"),
        ("distributions.Truncated*", "loc: NaN"),
        ("distributions.Truncated*", "scale: NaN"),
        ("distributions.OneHots*", "probs: NaN"),
        ("distributions.OneHots*", "*logp: NaN"),
    ],
    "it stands in the loop over time: `observe`, `imagine` and `follow` look at the numbers": [
        ("networks.BlockLinear.forward", "x: NaN"),
        ("networks.BlockLinear.forward", "x: empty"),
        *(("networks.*GRU.forward", f"{part}: NaN") for part in "hza"),
        ("networks.gates", "*: NaN"),
        ("rssm.RSSM.recur", "*: NaN"),
        ("rssm.RSSM.post_params", "*: NaN"),
    ],
    "it stands in that loop, too: what it leads to is refused, under another name": [
        ("rssm.RSSM.prior", "h: NaN"),
        ("rssm.RSSM.prior", "h: empty"),
        ("rssm.RSSM.step", "*: NaN"),
        ("agent.Dreamer.act", "state.*: NaN"),
        ("behavior.Policy.forward", "feat: NaN"),
        ("behavior.Policy.forward", "feat: empty"),
        ("behavior.Behavior.critic_loss", "feat: NaN"),
    ],
    "it is not read": [
        ("heads.raw_image", "like: dtype"),
        ("heads.raw_image", "like: NaN"),
        ("behavior.Behavior.replay_loss", "batch.obs.*"),
        ("behavior.Behavior.replay_loss", "batch.prev_action: *"),
        ("agent.Dreamer.act", "row.reward: *"),
        ("agent.Dreamer.act", "row.cont: *"),
    ],
    "it is filled, whatever its shape and what is in it": [
        ("networks.trunc_normal", "weight: [!d]*"),
        ("networks.glorot_uniform", "weight: [!d]*"),
    ],
    "whole numbers are numbers": [
        ("envs.*action*", "action: dtype"),
        ("envs.VectorEnv.step", "action: dtype"),
        ("scores.*", "scores: dtype"),
        ("toys.*", "*: dtype"),
    ],
    "probabilities may stand for flags": [("behavior.Behavior.dream", "cont: dtype")],
    "a replay may be packed before anything was lived": [("replay.difference", "frames: empty")],
}

# Public functions with tensors that need no case, and why
EXEMPT = {
    "guard.*": "the checks themselves: tests/test_guard.py",
    "*refuse_*": "a check; it is seen through the function that calls it",
    "*.check*": "a check; it is seen through the function that calls it",
    "distributions.sound": "a check; it is seen through the methods of distributions",
    "distributions.alike": "a check; it is seen through the methods of distributions",
    "distributions.same": "a check; it is seen through the methods of distributions",
    "distributions.Distribution.*": "says what others have",
    "heads.fits": "a check; it is seen through the losses of heads",
    "heads.answers": "a check; it is seen through the means of heads",
    "heads.alike": "a check; it is seen through the losses of heads",
    "optim.norms": "a check; it is seen through adaptive_clip and Optimizer.step",
    "optim.LaProp.__call__": "Optimizer.step calls it, with its own tensors",
    "optim.Adam.__call__": "Optimizer.step calls it, with its own tensors",
    "native.*": "kernels: whoever calls them answers for shapes and numbers",
    "fast*": "twins of readable layers, inside of what checks: tests/test_fast.py",
    "bench.*": "measures what it builds itself",
    "networks.*Norm.forward": "a layer in a stack: who owns the stack checks what enters it",
    "transforms.identity": "gives back what it is given, whatever it is",
    "rssm.State.map": "changes a pair by a function of the caller's",
    "rssm.stack": "takes a list: tests/test_guard.py has the empty one",
    "agent.Dreamer.decide": "`act` between tensors, which has looked at them",
    "agent.Dreamer.gradients": "takes a dictionary; Optimizer.gradients looks at each sum",
    "study.total": "adds up the numbers of `WorldModel.loss`",
    "envs.VectorEnv.restore": "takes what `state` gave: tests/test_envs.py",
    "replay.flatten": "renames columns; Replay.add looks at them",
    "replay.is_frames": "asks for the number of axes",
    "replay.unpack_rows": "reads a file: tests/test_guard.py has broken ones",
    "report.at": "indexes; open_loop, clips and watch look at the rows",
    "report.to": "moves; open_loop, clips and watch look at the rows",
    "report.memory": "is asked by clips, after it has looked at the rows",
    "report.predict": "reads the states of open_loop and imagine",
    "report.comparable": "a check; it is seen through error and psnr",
    "checkpoint.*": "saves and loads what a run has made",
    "parts.*": "saves and loads what a run has made",
    "parcel.*": "packs what a run has made",
    "training.load_agent": "the inverse of agent_tensors; load_state_dict looks at the shapes",
    "training.Run.move": "VectorEnv.step looks at the action",
    "logger.Logger.add": "takes any number; the log counts those that are not finite",
    "distributed.*": "exchanges what other functions have looked at",
    "cli.*": "takes the words of the command line and what the package made of them",
    "sweep.*": "takes no tensors; Ray's objects have no types",
    "explore.*": "takes the positions of sliders",
    "control.Control.step": "an environment: VectorEnv looks at the action",
    "toys.*.step": "an environment: VectorEnv looks at the action",
    "toys.*.reset": "an environment: Gymnasium's own arguments",
}

ARRAYS = torch.Tensor | np.ndarray


def is_float(y):
    return y.is_floating_point() if isinstance(y, torch.Tensor) else y.dtype.kind == "f"


def as_type(y, kind):
    return y.to(getattr(torch, kind)) if isinstance(y, torch.Tensor) else y.astype(kind)


def ways(y):
    """{how: the broken tensor or array}."""
    found = {"dtype": as_type(y, "int64" if is_float(y) else "float32")}
    if is_float(y):
        found["NaN"] = as_type(y, "float32") * 1
        found["NaN"].reshape(-1)[0] = float("nan")
    if y.ndim:
        found["empty"] = y[:0]
    if y.ndim > 1 and y.shape[0] != y.shape[1]:
        found["time axis"] = y.swapaxes(0, 1)
    if y.ndim and y.shape[-1] > 1:
        found["last axis"] = y[..., :-1]
    return found


def tensors(label, value, names):
    """(label, names of which the message must have one, tensor, how to put another in its place)"""
    if isinstance(value, ARRAYS):
        yield label, names, value, lambda y: y
        return
    if isinstance(value, dict):
        parts, put = value, lambda k, y: value | {k: y}
    else:
        parts, put = value._asdict(), lambda k, y: value._replace(**{k: y})
    for key, part in parts.items():
        known = [key] if not isinstance(value, State) else [*names, key]
        for inner, words, y, back in tensors(f"{label}.{key}", part, known):
            yield inner, words, y, lambda new, k=key, f=back: put(k, f(new))


def attempts(case):
    """(argument and how it is broken, names, call)"""
    call, given = CASES[case]
    for arg, value in given.items():
        for label, names, y, put in tensors(arg, value, arg.split()):
            for how, broken in ways(y).items():
                args = given | {arg: put(broken)}
                yield f"{label}: {how}", names, lambda args=args: call(**args)


def complaint(names, call):
    """What is wrong with the answer to a broken call, "" if nothing is."""
    try:
        call()
    except ValueError as error:
        said = str(error)
        named = any(re.search(rf"\b{re.escape(name)}\b", said) for name in names)
        whole = re.search(r" must (be|have) .+, got .+; .+", said, re.DOTALL)
        return "" if named and whole else f"says only: {said}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:120]
    return "was accepted"


@cache
def found(case):
    """{argument and how it is broken: what is wrong with the answer}"""
    complaints = {what: complaint(names, call) for what, names, call in attempts(case)}
    return {what: why for what, why in complaints.items() if why}


def fine(case, what):
    """Whether it is no mistake."""
    pairs = [pair for pairs in FINE.values() for pair in pairs]
    return any(fnmatch(case, name) and fnmatch(what, text) for name, text in pairs)


def given_tensors(signature):
    """The arguments of a signature that are tensors, or may be: those without a type."""
    args = ast.parse(f"def f{signature}: pass").body[0].args
    every = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
    every = [a for a in every if a]
    types = [ast.unparse(a.annotation) if a.annotation else "Tensor" for a in every]
    return [a.arg for a, kind in zip(every, types, strict=True) if TENSORS.search(kind)]


def public():
    """Names of the functions that are given tensors."""
    for path in sorted(PACKAGE.glob("*.py")):
        for entry in walk(entries(path.stem)) if not path.stem.startswith("_") else ():
            if entry.kind in ("function", "method") and given_tensors(entry.signature):
                yield f"{path.stem}.{entry.name}"


@pytest.mark.parametrize("case", CASES)
def test_broken_tensors_are_refused_by_name(case):
    call, given = CASES[case]
    call(**given)
    assert {what: why for what, why in found(case).items() if not fine(case, what)} == {}


def test_every_public_function_that_is_given_tensors_has_a_case_or_a_reason():
    missing = [n for n in public() if n not in CASES and not any(fnmatch(n, e) for e in EXEMPT)]
    assert missing == []


def test_no_reason_is_left_over():
    names = set(public())
    idle = [e for e in EXEMPT if not any(fnmatch(n, e) and n not in CASES for n in names)]
    every = [(case, what) for case in CASES for what in found(case)]
    for name, text in (pair for pairs in FINE.values() for pair in pairs):
        if not any(fnmatch(case, name) and fnmatch(what, text) for case, what in every):
            idle.append((name, text))
    assert idle == []
    assert {c for c in CASES if " " not in c} - names == {"networks.StrideEncoder"}  # inherits


def test_what_is_accepted_or_refused_badly_is_noticed():
    def refusing(words):
        def call():
            raise ValueError(words)

        return call

    assert complaint(["y"], lambda: None) == "was accepted"
    assert complaint(["y"], lambda: torch.zeros(2) + torch.zeros(3)).startswith("RuntimeError")
    assert complaint(["y"], refusing("z must be small, got 3; halve it")).startswith("says only")
    assert complaint(["y"], refusing("y must be small")).startswith("says only")
    assert complaint(["y"], refusing("y must be small, got 3; halve it")) == ""
    assert given_tensors("(x: torch.Tensor, n: int, *more, y: 'State' = None)") == [
        "x",
        "y",
        "more",
    ]


def test_a_tensor_is_broken_in_five_ways():
    assert list(ways(torch.zeros(4, 3))) == ["dtype", "NaN", "empty", "time axis", "last axis"]
    assert list(ways(np.ones(3, bool))) == ["dtype", "empty", "last axis"]
    assert [x[0] for x in tensors("s", state(2), ["s"])] == ["s.h", "s.z"]
