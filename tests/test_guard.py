"""Bad input: public functions name the argument, what they expected, what came, and a remedy."""

import re
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from gymnasium import spaces

from dreamer_lite import (
    Dreamer,
    checkpoint,
    diff,
    envs,
    kl_loss,
    lambda_return,
    replay,
    report,
    scores,
    sized,
    study,
    symexp,
    symlog,
    toys,
    training,
    twohot,
)
from dreamer_lite.behavior import (
    ActorConfig,
    BehaviorConfig,
    CriticConfig,
    ReturnScale,
    SlowCopy,
    actor_loss,
    critic_loss,
    explore,
    replay_return,
)
from dreamer_lite.distributions import (
    Bernoulli,
    BoundedNormal,
    Categorical,
    DiagNormal,
    Gaussian,
    OneHots,
    TanhNormal,
    TruncNormal,
    choices,
)
from dreamer_lite.fast import FastTwoHotHead
from dreamer_lite.guard import between, floats, pixels, refuse_unread, require, shown
from dreamer_lite.heads import (
    BernoulliHead,
    NormalHead,
    NormalPixelHead,
    NormalVectorHead,
    PixelHead,
    SymlogHead,
    SymlogTwoHotHead,
    TwoHotHead,
    unit_normal_loss,
)
from dreamer_lite.networks import BlockLinear, Conv, Style, mlp, stages
from dreamer_lite.optim import Adam, LaProp, Optimizer, adaptive_clip
from dreamer_lite.presets import V1, V3, Config, Optimizers, ReplayConfig, from_dict
from dreamer_lite.replay import LatentSpec, Replay
from dreamer_lite.returns import discount_weights
from dreamer_lite.rssm import State, stack
from dreamer_lite.spaces import ActionSpec
from dreamer_lite.transforms import sigmoid2, symexp_bins
from dreamer_lite.world_model import KL, ModelConfig

NAN = float("nan")
H = torch.rand(4, 3)  # [H,N]
BROKEN = H.clone().index_put((torch.tensor(1), torch.tensor(2)), torch.tensor(NAN))
INTEGERS, EMPTY = torch.ones(4, 3, dtype=torch.long), torch.zeros(0, 3)
FLAGS = torch.ones(4, 3, dtype=torch.bool)
PIXELS = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
BINS = symexp_bins(5)
TWO = ActionSpec(continuous=2)
PARAMS = {  # what turns four outputs of a network into a distribution
    "Gaussian": Gaussian(2),
    "dice": Categorical(2, 2),
    "choices": lambda x: choices(x, (2, 2), 0.0),
    "V1's action": TanhNormal(),
    "V2's action": TruncNormal(),
    "V3's action": BoundedNormal(),
}
HEADS = (NormalHead(), BernoulliHead(), TwoHotHead(5), SymlogTwoHotHead(5), FastTwoHotHead(5))


def dice(*shape):
    return OneHots.of(torch.zeros(shape))


def normal(*shape):
    return DiagNormal(torch.zeros(shape), torch.ones(shape))


def losses(ret=H, base=H, logp=H, entropy=H, weight=H):
    return actor_loss(ret, base, logp, entropy, weight, rho=0.5, eta=0.1)


def returned(reward=H, cont=FLAGS, first=FLAGS, bootstrap=H):
    return replay_return(reward, cont, first, bootstrap, 0.99, 0.95)


def model_loss(**changes):
    agent, batch = tiny.agent(), tiny.batch()
    return agent.world_model.loss(batch._replace(**{k: f(batch) for k, f in changes.items()}))


def observed(embed=None, action=None, first=None, start=None):
    rssm = tiny.agent().world_model.rssm
    size = rssm.post_net[0].in_features - rssm.deter
    given = (
        torch.zeros(5, 2, size) if embed is None else embed,
        torch.zeros(5, 2, 4) if action is None else action,
        torch.zeros(5, 2, dtype=torch.bool) if first is None else first,
    )
    return rssm.observe(*given, start or rssm.initial(2))


def memory(**changes):
    return Replay(
        **dict(capacity=40, streams=2, obs_spec={"vector": (3,)}, action_size=2) | changes
    )


def added(latent=None, state=None, **changes):
    obs = {"vector": np.zeros((2, 3), np.float32)}
    action, reward = np.zeros((2, 2), np.float32), np.zeros(2, np.float32)
    row = envs.Row(obs, action, reward, np.ones(2, bool), np.zeros(2, bool))
    memory(latent=latent, online=False).add(row._replace(**changes), state)


def model():
    return tiny.agent().world_model


def acted(streams):
    world = envs.make("CartPole-v1", 2)
    world.reset()
    return world.step(np.zeros((streams, 2), np.float32))


def filmed(**options):
    return report.save_video(PIXELS.numpy(), "x.gif", **options)


def mover():
    return Optimizer({"a": torch.zeros(2, requires_grad=True)}, Adam())


def stepped(grads):
    return Optimizer({"a": torch.zeros(2), "b": torch.zeros(3)}, Adam()).step(grads)


BAD = {  # what is called: the call, and what the message says
    "twohot of integers": (lambda: twohot(INTEGERS, BINS), "x must be a float tensor, got int64"),
    "twohot of NaN": (lambda: twohot(BROKEN, BINS), "x must be without NaN, got NaN in float32"),
    "twohot of nothing": (lambda: twohot(EMPTY, BINS), "x must be not empty, got float32 [0, 3]"),
    "twohot without bins": (lambda: twohot(H, H), "bins must be ascending [K] with K >= 2, got"),
    "bins": (lambda: symexp_bins(1), "count must be at least 2, got 1"),
    "bins without range": (lambda: symexp_bins(5, 0.0), "limit must be in (0, 88], got 0.0"),
    # returns
    "return of NaN": (lambda: lambda_return(BROKEN, H, H, 0.9), "reward must be without NaN"),
    "return of integers": (lambda: lambda_return(H, H, INTEGERS, 0.9), "value must be a float"),
    "return of nothing": (lambda: lambda_return(EMPTY, EMPTY, EMPTY, 0.9), "must be not empty"),
    "return, one value too many": (
        lambda: lambda_return(H[1:], H[1:], H, 0.9),
        "[3, 3], [3, 3], [4, 3]; pass value[1:]?",
    ),
    "return, batch first": (lambda: lambda_return(H, H.T, H, 0.9), "must have one shape [H,...]"),
    "return, λ above 1": (lambda: lambda_return(H, H, H, 1.5), "lam must be in [0, 1], got 1.5"),
    "return, λ of another shape": (
        lambda: lambda_return(H, H, H, H[0]),
        "lam must be one number or [4, 3], got float32 [3]",
    ),
    "weights, flags of a batch": (lambda: discount_weights(FLAGS, H), "cont must be [3], one flag"),
    "weights of NaN": (lambda: discount_weights(FLAGS[0], BROKEN), "discount must be without NaN"),
    # losses
    "KL of different kinds": (
        lambda: kl_loss(dice(2, 3, 4, 5), normal(2, 3, 4), 1, 1, 1, True),
        "p must be a OneHots like q, got DiagNormal",
    ),
    "KL, batch first": (
        lambda: kl_loss(dice(2, 3, 4, 5), dice(3, 2, 4, 5), 1, 1, 1, True),
        "p must be [2, 3, 4, 5] like q, got float32 [3, 2, 4, 5]",
    ),
    "KL below zero": (
        lambda: kl_loss(dice(2, 3, 4, 5), dice(2, 3, 4, 5), 1, 1, -1.0, True),
        "free must be at least 0, got -1.0",
    ),
    "KL weights": (lambda: KL(dyn=-1.0), "dyn must be at least 0, got -1.0; V1: 1, 1, 3 nats"),
    "actor, batch first": (lambda: losses(weight=H.T), "weight must be [4, 3] like ret, got float"),
    "actor, last state too": (lambda: losses(base=torch.rand(5, 3)), "base must be [4, 3] like"),
    "actor, NaN": (lambda: losses(ret=BROKEN), "ret must be without NaN"),
    "actor, no log-probability": (lambda: losses(logp=H[0]), "logp must be [4, 3] like ret, got"),
    "critic, weights": (
        lambda: critic_loss(NormalHead(), H[..., None], H, H[0]),
        "weight must be [4, 3], got float32 [3]",
    ),
    "critic, target": (
        lambda: critic_loss(NormalHead(), H[..., None], H[..., None], H[..., None]),
        "target must be [4, 3], got float32 [4, 3, 1]",
    ),
    "replayed, one row": (
        lambda: returned(H[:1], FLAGS[:1], FLAGS[:1], H[:1]),
        "reward must be [T,B] with T >= 2, got float32 [1, 3]",
    ),
    "replayed, float flags": (lambda: returned(cont=H), "cont must be bool [4, 3], got float32"),
    "replayed, batch first": (lambda: returned(first=FLAGS.T), "is_first must be bool [4, 3], got"),
    # heads
    "head, outputs": (lambda: TwoHotHead(5).loss(H, H[:, 0]), "params must be [..., 5], got float"),
    "head of 2023, bins": (lambda: SymlogTwoHotHead(1), "bins must be at least 2, got 1"),
    "head of 2023, target": (
        lambda: SymlogTwoHotHead(3).loss(H, H),
        "target must be [4], got float32 [4, 3]",
    ),
    "event, target": (lambda: BernoulliHead().loss(H[:, :1], H), "target must be [4], got float32"),
    "image of floats": (
        lambda: PixelHead().loss(PIXELS.float(), PIXELS.float()),
        "image must be uint8 [2, 8, 8, 3], got float32 [2, 8, 8, 3]",
    ),
    "image of another size": (
        lambda: NormalPixelHead().loss(PIXELS.float(), PIXELS[:, :4]),
        "image must be uint8 [2, 8, 8, 3], got uint8 [2, 4, 8, 3]",
    ),
    "vector": (lambda: SymlogHead().loss(H, H.T), "target must be [4, 3], got float32 [3, 4]"),
    "plain vector": (lambda: NormalVectorHead().loss(H, H[0]), "target must be [4, 3], got float"),
    # distributions
    "Gaussian, width": (lambda: Gaussian(2)(H), "params must be [..., 4], got float32 [4, 3]"),
    "dice, width": (lambda: Categorical(2, 2)(H), "params must be [..., 4], got float32 [4, 3]"),
    "no number": (lambda: Gaussian(0), "size must be at least 1, got 0"),
    "dice of one face": (lambda: Categorical(4, 1), "classes must be at least 2, got 1"),
    "all uniform": (lambda: Categorical(4, 4, 1.5), "unimix must be in [0, 1], got 1.5"),
    "choices": (lambda: choices(H, (2, 2), 0.0), "logits must be [..., 4], got float32 [4, 3]"),
    **{
        f"{kind.__name__}, odd width": (
            lambda kind=kind: kind()(H),
            "params must be [..., 2A], got float32 [4, 3]",
        )
        for kind in (BoundedNormal, TanhNormal, TruncNormal)
    },
    # the model
    "rows, float flags": (
        lambda: model_loss(cont=lambda b: b.cont.float()),
        "cont must be bool [6, 3], got float32 [6, 3]",
    ),
    "rows, reward batch first": (
        lambda: model_loss(reward=lambda b: b.reward.T),
        "reward must be [6, 3], got float32 [3, 6]; rows have time first",
    ),
    "rows, NaN": (
        lambda: model_loss(reward=lambda b: b.reward * NAN),
        "reward must be without NaN, got NaN in float32 [6, 3]",
    ),
    "rows, another observation": (
        lambda: model_loss(obs=lambda b: {"image": b.obs["image"]}),
        "obs must be ['image', 'vector'], got ['image']",
    ),
    "rows, another vector": (
        lambda: model_loss(obs=lambda b: b.obs | {"vector": b.obs["vector"][..., :4]}),
        "obs['vector'] must be [6, 3, 5], got float32 [6, 3, 4]",
    ),
    "rows, a float image": (
        lambda: model_loss(obs=lambda b: b.obs | {"image": b.obs["image"] / 255}),
        "obs['image'] must be uint8 [6, 3, 16, 16, 3], got float32 [6, 3, 16, 16, 3]",
    ),
    "tokens of one row": (
        lambda: observed(embed=torch.zeros(2, 80)),
        "embed must be [T, B, 208], got float32 [2, 80]",
    ),
    "actions of another length": (
        lambda: observed(action=torch.zeros(4, 2, 4)),
        "prev_action must be [5, 2, 4], got float32 [4, 2, 4]",
    ),
    "flags batch first": (
        lambda: observed(first=torch.zeros(2, 5, dtype=torch.bool)),
        "is_first must be bool [5, 2], got bool [2, 5]",
    ),
    "state of another batch": (
        lambda: observed(start=State(torch.zeros(3, 64), torch.zeros(3, 128))),
        "s.h must be [2, 64], got float32 [3, 64]",
    ),
    "dream of no step": (
        lambda: tiny.agent().world_model.rssm.imagine(None, None, 0),
        "horizon must be at least 1, got 0",
    ),
    "no action to follow": (
        lambda: tiny.agent().world_model.rssm.follow(
            tiny.agent().initial(2), torch.zeros(0, 2, 4)
        ),
        "actions must be not empty, got float32 [0, 2, 4]",
    ),
    "an agent without actions": (
        lambda: Dreamer(tiny.config(), tiny.OBS, ActionSpec()),
        "action must be at least 1, got 0; see ActionSpec.size",
    ),
    "an agent without eyes": (
        lambda: Dreamer(tiny.config(), {}, tiny.ONE_CHOICE),
        "spec must be at least one observation, got {}",
    ),
    "another number of streams": (
        lambda: tiny.agent().act(tiny.batch(), tiny.agent().initial(2)),
        "is_first must be bool [2], got bool [6, 3]",
    ),
    # behavior, optimizers, settings
    "exploring another action": (
        lambda: explore(H, tiny.NUMBERS, 0.3),
        "action must be [N, 2], got float32 [4, 3]",
    ),
    "noise below zero": (lambda: explore(H[:, :2], tiny.NUMBERS, -1.0), "noise must be at least 0"),
    "scale of nothing": (lambda: ReturnScale().update(EMPTY), "ret must be not empty, got float32"),
    "scale, rate": (lambda: ReturnScale(rate=2.0), "rate must be in [0, 1], got 2.0"),
    "slow copy, mix": (lambda: SlowCopy(None, 1, 1.5), "mix must be in [0, 1], got 1.5"),
    "slow copy, never": (lambda: SlowCopy(None, 0, 1.0), "every must be at least 1, got 0"),
    "horizon": (lambda: BehaviorConfig(horizon=0), "horizon must be at least 1, got 0"),
    "ρ": (
        lambda: replace(V3.behavior.actor, rho=1.1),
        "rho must be in [0, 1], got 1.1; V1: rho = 0",
    ),
    "γ": (lambda: ModelConfig(gamma=99.0), "gamma must be in [0, 1], got 99.0"),
    "learning rate": (lambda: Adam(lr=-1.0), "lr must be at least 0, got -1.0"),
    "not a number": (lambda: LaProp(lr="fast"), "lr must be at least 0, got 'fast'"),
    "NaN": (lambda: LaProp(lr=NAN), "lr must be at least 0, got nan"),
    "nothing to move": (lambda: Optimizer({}, Adam()), "params must be at least one tensor, got"),
    "gradients of another shape": (
        lambda: stepped([torch.zeros(3), torch.zeros(2)]),
        "grads must be [[2], [3]], got [[3], [2]]; use `gradients(loss)`",
    ),
    "a gradient too few": (lambda: stepped([torch.zeros(2)]), "grads must be [[2], [3]], got [[2"),
    "batch of nothing": (lambda: ReplayConfig(batch=0), "batch must be at least 1, got 0"),
    "size": (lambda: sized(V3, "huge"), "size must be one of tiny, 1m"),
    "settings of another kind": (
        lambda: from_dict({"type": "KL", "forward": True}),
        "KL has no field forward",
    ),
    # formulas, distributions and heads, once more: each function that is given tensors
    "symlog of integers": (lambda: symlog(INTEGERS), "x must be a float tensor, got int64 [4, 3]"),
    "symexp of an array": (lambda: symexp(np.ones(3)), "x must be a float tensor, got float64 [3]"),
    "deviation of flags": (lambda: sigmoid2(FLAGS), "x must be a float tensor, got bool [4, 3]"),
    "twohot, NaN bins": (
        lambda: twohot(H, torch.tensor([0.0, NAN, 1.0])),
        "bins must be without NaN, got NaN in float32 [3]",
    ),
    "normal, another vector": (
        lambda: normal(4, 3).log_prob(H[:, :2]),
        "x must be [4, 3], got float32 [4, 2]",
    ),
    "normal, batch first": (lambda: normal(4, 3).log_prob(H.T), "x must be [4, 3], got float32 [3"),
    "normal, KL": (
        lambda: normal(2, 3, 4).kl(normal(3, 2, 4)),
        "other must be [2, 3, 4], got float32 [3, 2, 4]",
    ),
    "V1's action, width": (
        lambda: TanhNormal()(torch.zeros(4, 4)).log_prob(H),
        "a must be [4, 2], got float32 [4, 3]",
    ),
    "V2's action, width": (
        lambda: TruncNormal()(torch.zeros(4, 4)).log_prob(H),
        "a must be [4, 2], got float32 [4, 3]",
    ),
    "dice, log-probability": (
        lambda: dice(2, 3, 4, 5).log_prob(torch.zeros(2, 3, 5)),
        "x must be [..., 20], got float32 [2, 3, 5]",
    ),
    "dice, KL": (lambda: dice(4, 5).kl(dice(5, 4)), "other must be [4, 5], got float32 [5, 4]"),
    "dice without groups": (lambda: OneHots.of(H[0]), "logits must be [..., G, K], got float32"),
    "dice, too uniform": (lambda: OneHots.of(H, 2.0), "unimix must be in [0, 1], got 2.0"),
    "choices, log-probability": (
        lambda: choices(torch.zeros(4, 5), (3, 2), 0.0).log_prob(H),
        "x must be [..., 5], got float32 [4, 3]",
    ),
    "event, label": (lambda: Bernoulli(H).log_prob(H.T), "x must be [4, 3], got float32 [3, 4]"),
    **{
        f"{kind}, {what}": (lambda f=f, x=x: f(x), message)
        for kind, f in PARAMS.items()
        for what, x, message in (
            ("NaN", torch.full((4, 4), NAN), "must be without NaN, got NaN in float32 [4, "),
            ("integers", torch.ones(4, 4).long(), "must be a float tensor, got int64 [4, 4]"),
            ("nothing", torch.zeros(0, 4), "must be not empty, got float32 [0, "),
            ("width", torch.zeros(4, 5), ", got float32 [4, 5]; give"),
        )
    },
    **{
        f"mean of {type(head).__name__}": (
            lambda head=head: head.mean(H),
            f"params must be [..., {head.num_params}], got float32 [4, 3]",
        )
        for head in HEADS
    },
    **{
        f"{what} for {type(head).__name__}": (
            lambda head=head, x=x: head.loss(torch.zeros(4, head.num_params), x),
            message,
        )
        for head in HEADS
        for what, x, message in (
            ("NaN", BROKEN[:, 2], "target must be without NaN, got NaN in float32 [4]"),
            ("integers", INTEGERS[:, 0], "target must be a float tensor, got int64 [4]"),
        )
    },
    "vector of NaN": (lambda: SymlogHead().loss(H, BROKEN), "target must be without NaN, got NaN"),
    "plain vector of NaN": (lambda: NormalVectorHead().loss(H, BROKEN), "target must be without N"),
    "squared error": (lambda: unit_normal_loss(H, H[0]), "target must be [4, 3], got float32 [3]"),
    "image without height": (
        lambda: PixelHead().loss(H, PIXELS[0, 0]),
        "logits must be [..., H, W, C], got float32 [4, 3]",
    ),
    # networks and model
    "odd blocks": (
        lambda: BlockLinear(10, 8, 4, Style()),
        "blocks must be a divisor of inputs and outputs, got 10 to 8 in 4 blocks",
    ),
    "layers of nothing": (lambda: mlp(0, 4, 1, Style()), "inputs must be at least 1, got 0"),
    "odd image": (lambda: stages((20, 30, 1), 8, (1, 2)), "image must be 8..16 pixels and halve"),
    "memory of nobody": (lambda: model().rssm.initial(0), "batch must be at least 1, got 0"),
    "prior, width": (lambda: model().rssm.prior(H), "h must be [..., 64], got float32 [4, 3]"),
    "dream from elsewhere": (
        lambda: model().rssm.imagine(None, State(H, H), 1),
        "s.h must be [N, 64], got float32 [4, 3]",
    ),
    "reward, width": (lambda: model().reward(H), "feat must be [..., 192], got float32 [4, 3]"),
    "discount, width": (lambda: model().discount(H), "feat must be [..., 192], got float32 [4, 3]"),
    "policy, width": (
        lambda: tiny.agent().behavior.policy(H),
        "feat must be [..., 192], got float32 [4, 3]",
    ),
    "replayed, γ": (
        lambda: replay_return(H, FLAGS, FLAGS, H, 99.0, 0.95),
        "gamma must be in [0, 1], got 99.0",
    ),
    "replayed, bootstrap": (lambda: returned(bootstrap=H.T), "bootstrap must be [4, 3], got"),
    "clipping others": (
        lambda: adaptive_clip([H], [H.T], 0.3),
        "grads must be [[3, 4]], got [[4, 3]]; use `gradients(loss)`",
    ),
    # memory
    "no stream": (lambda: memory(streams=0), "streams must be at least 1, got 0"),
    "no room": (lambda: memory(capacity=3), "capacity must hold 2 rows of each of the 2 streams"),
    "too many faces": (
        lambda: memory(latent=LatentSpec(4, 2, 300)),
        "latent.classes must be 1..256 to fit a byte, got 300",
    ),
    "row of float64": (lambda: added(reward=np.zeros(2)), "row reward must be float32 [2], got"),
    "row of another width": (
        lambda: added(prev_action=np.zeros((2, 3), np.float32)),
        "row prev_action must be float32 [2, 2], got float32 [2, 3]",
    ),
    "row, stream last": (
        lambda: added(obs={"vector": np.zeros((3, 2), np.float32)}),
        "row obs/vector must be float32 [2, 3], got float32 [3, 2]",
    ),
    "row of NaN": (
        lambda: added(reward=np.full(2, NAN, np.float32)),
        "row reward must be without NaN, got 2 of 2",
    ),
    "row of something else": (lambda: added(obs={}), "row must have ['cont', 'is_first', 'obs/vec"),
    "row without a state": (
        lambda: added(LatentSpec(4, 2, 3)),
        "state must be the agent's State at this row, got None",
    ),
    "row with another state": (
        lambda: added(LatentSpec(4, 2, 3), State(torch.zeros(2, 5), torch.zeros(2, 6))),
        "state must have h [2, 4], z [2, 6], got [2, 5], [2, 6]",
    ),
    "windows of nothing": (lambda: memory().sample(0, 1), "length must be at least 1, got 0"),
    "windows of an empty memory": (lambda: memory().sample(9, 1), "asked for length 9 but"),
    "difference of floats": (
        lambda: replay.difference(np.zeros((2, 8, 8, 1))),
        "frames must be uint8 [T, ...], got float64 [2, 8, 8, 1]",
    ),
    "more than there is": (lambda: replay.check_memory(2, 1), "replay needs 0.00 GB when full but"),
    # worlds
    "no world": (lambda: envs.make("CartPole-v1", 0), "num_envs must be at least 1, got 0"),
    "unknown world": (lambda: envs.make("Nothing-v0"), "cannot make 'Nothing-v0'"),
    "unknown protocol": (
        lambda: envs.make("ALE/Boxing-v5", protocol="mine"),
        "protocol must be one of ['atari100k', 'atari200m'",
    ),
    "protocol, image": (lambda: envs.AtariProtocol(size=50), "size must be one of (16, 32"),
    "protocol, sticky": (lambda: envs.AtariProtocol(sticky=2.0), "sticky must be in [0, 1], got 2"),
    "protocol, repeat": (lambda: envs.AtariProtocol(repeat=0), "repeat must be at least 1, got 0"),
    "step before a reset": (
        lambda: envs.make("CartPole-v1").step(np.zeros((1, 2))),
        "step() needs a running episode",
    ),
    "action of another width": (
        lambda: envs.clean_action(TWO, np.zeros((4, 3))),
        "action must be finite float32 [N,2] for",
    ),
    "action of NaN": (lambda: envs.clean_action(TWO, np.full((4, 2), NAN)), "with 8 NaNs; give"),
    "action without bounds": (
        lambda: envs.action_spec(spaces.Box(-np.inf, np.inf, (2,))),
        "is unbounded; the agent acts in [-1, 1]",
    ),
    "resizing floats": (
        lambda: envs.resize(np.zeros((2, 8, 8, 3))),
        "images must be uint8 [N, H, W, C], got float64 [2, 8, 8, 3]",
    ),
    "resizing one image": (
        lambda: envs.resize(np.zeros((8, 8, 3), np.uint8)),
        "images must be uint8 [N, H, W, C], got uint8 [8, 8, 3]",
    ),
    "toy, blank": (lambda: toys.Catch(blank=2.0), "blank must be in [0, 1], got 2.0"),
    "toy, noise": (lambda: toys.Catch(noise=300), "noise must be in [0, 256], got 300"),
    "toy, error": (lambda: toys.MiniPong(error=NAN), "error must be in [0, 1], got nan"),
    "toy, optimum": (lambda: toys.optimal_return(-1.0), "p must be in [0, 1], got -1.0"),
    # what is kept, shown and counted
    "checkpoint before the start": (
        lambda: checkpoint.save("x", -1, {}, {}),
        "step must be at least 0, got -1",
    ),
    "checkpoint of nothing": (lambda: checkpoint.load("no such run"), "in no such run; check"),
    "weights of nothing": (lambda: checkpoint.read_weights("nowhere"), "nowhere cannot be read"),
    "frames of floats": (
        lambda: report.psnr(PIXELS.numpy() / 1.0, PIXELS.numpy()),
        "truth must be uint8 [..., H, W, C], got float64 [2, 8, 8, 3]",
    ),
    "frames of another size": (
        lambda: report.error(PIXELS.numpy(), PIXELS.numpy()[:, :4]),
        "model must be uint8 [2, 8, 8, 3], got uint8 [2, 4, 8, 3]",
    ),
    "actions to follow": (
        lambda: report.given(H, 5, 2, 3),
        "actions must be [H,A] or [H,N,A] = (5, 2, 3), got [4, 2, 3]",
    ),
    "film of another kind": (
        lambda: report.save_video(PIXELS.numpy(), "x.mp4"),
        "path must end in .gif or .webp, got 'x.mp4'",
    ),
    "mean of nothing": (lambda: scores.iqm(np.zeros(0)), "scores must be not empty, got float64"),
    "mean of NaN": (lambda: scores.iqm(np.full(4, NAN)), "scores must be without NaN, got NaN"),
    "interval of one axis": (
        lambda: scores.interval(np.zeros(3)),
        "scores must be [runs, tasks], got float64 [3]",
    ),
    "interval, level": (
        lambda: scores.interval(np.zeros((3, 2)), level=95),
        "level must be in [0, 1], got 95",
    ),
    "share of nothing": (
        lambda: scores.share(np.zeros(3), 1.0, 1.0),
        "scale must be two different scores, got 1.0 and 1.0",
    ),
    "no such device": (lambda: training.pick_device("gpu"), "device must be auto, cpu, cuda or"),
    "no episode": (
        lambda: training.evaluate(None, "CartPole-v1", 0),
        "episodes must be at least 1, got 0",
    ),
    "no update": (lambda: study.fit(None, None, 0), "updates must be at least 1, got 0"),
    "difference to no settings": (lambda: diff(V3, None), "b must be a Config, got NoneType None"),
}  # fmt: skip


SETTINGS = {
    "settings, layers": (
        lambda: ModelConfig(prior_layers=-1),
        "prior_layers must be at least 0, got -1",
    ),
    "settings, half a unit": (
        lambda: ModelConfig(units=2.5),
        "units must be a whole number, got 2.5",
    ),
    "settings, no latent": (
        lambda: ModelConfig(latent=None),
        "latent must be a Gaussian, a Categorical",
    ),
    "settings, flat vectors": (
        lambda: ModelConfig(vector_layers=0),
        "vector_layers must be at least 1",
    ),
    "settings, half a row": (
        lambda: ReplayConfig(batch=2.5),
        "batch must be a whole number, got 2.5",
    ),
    "settings, a word": (
        lambda: ReplayConfig(latents="no"),
        "latents must be of type bool, got str 'no'",
    ),
    "settings, half a stream": (lambda: Config(envs=1.5), "envs must be a whole number, got 1.5"),
    "settings, no protocol": (
        lambda: Config(protocol="mine"),
        "protocol must be one of ['atari100k'",
    ),
    "settings, other parts": (
        lambda: Config(model=V3),
        "model must be of type ModelConfig, got Config",
    ),
    "settings, half a step": (
        lambda: BehaviorConfig(horizon=1.5),
        "horizon must be a whole number",
    ),
    "settings, no policy": (
        lambda: ActorConfig(continuous=None),
        "continuous must be what makes a dist",
    ),
    "settings, half a copy": (
        lambda: CriticConfig(slow_every=1.5),
        "slow_every must be a whole number",
    ),
    "settings, no stage": (
        lambda: Conv(mults=()),
        "mults must be a tuple with one number a stage, got",
    ),
    "settings, half a channel": (lambda: Conv(2.5), "depth must be a whole number, got 2.5"),
    "settings, memory for ever": (
        lambda: LaProp(beta1=1.0),
        "beta1 must be in [0, 0.999999], got 1.0",
    ),
    "settings, half an update": (
        lambda: LaProp(warmup=1.5),
        "warmup must be a whole number, got 1.5",
    ),
    "settings, no rule": (
        lambda: Optimizers(model=None),
        "model must be a rule, got NoneType None",
    ),
    "settings, a floor": (lambda: KL(per_step="no"), "per_step must be of type bool, got str 'no'"),
    "settings, sizes of V1": (
        lambda: sized(V1, "1m"),
        "latent must be a Categorical, got Gaussian",
    ),
    "settings, sizes of nothing": (
        lambda: sized(None, "1m"),
        "cfg must be of type Config, got None",
    ),
    "settings, deviations": (
        lambda: BoundedNormal(2.0, 1.0),
        "max_std must be at least 2, got 1.0",
    ),
    "settings, below zero": (
        lambda: TruncNormal(min_std=-3.0),
        "min_std must be at least 0, got -3.0",
    ),
    "settings, no mean": (
        lambda: TanhNormal(mean_scale=0.0),
        "mean_scale must be in [1e-06, 100], got 0",
    ),
    "settings, half a number": (lambda: Gaussian(2.5), "size must be a whole number, got 2.5"),
    "settings, half a die": (lambda: Categorical(2.5, 4), "groups must be a whole number, got 2.5"),
    "settings, half a bin": (lambda: TwoHotHead(2.5), "count must be a whole number, got 2.5"),
    "settings, lines never": (lambda: training.Watch(0), "log_every must be at least 1, got 0"),
    "settings, pace": (lambda: training.Pace(-1.0, 4), "ratio must be at least 0, got -1.0"),
    "settings, Atari, half": (lambda: envs.AtariProtocol(noop=1.5), "noop must be a whole number"),
    "settings, both kinds": (
        lambda: ActionSpec((3,), 2),
        "continuous must be 0 beside discrete choices",
    ),
    "settings, below a choice": (
        lambda: ActionSpec((-1,)),
        "discrete[0] must be at least 1, got -1",
    ),
    "settings, half an action": (
        lambda: ActionSpec((), 1.5),
        "continuous must be a whole number, got 1.5",
    ),
    "settings, no tuple": (lambda: ActionSpec(3), "discrete must be a tuple, got int 3"),
}
NUMBERS = {
    "numbers, λ of NaN": (
        lambda: lambda_return(H, H, H, BROKEN),
        "lam must be in [0, 1], got float32",
    ),
    "numbers, λ of integers": (
        lambda: lambda_return(H, H, H, INTEGERS),
        "lam must be in [0, 1], got int",
    ),
    "numbers, returns of no time": (
        lambda: lambda_return(*3 * [H.sum()], 0.9),
        "one shape [H,...]",
    ),
    "numbers, odds of NaN": (
        lambda: discount_weights(BROKEN[1], H),
        "cont must be without NaN, got NaN",
    ),
    "numbers, falling bins": (
        lambda: twohot(H, BINS.flip(0)),
        "bins must be ascending [K] with K >= 2",
    ),
    "numbers, ρ": (
        lambda: actor_loss(*5 * [H], rho=7.0, eta=0.0),
        "rho must be in [0, 1], got 7.0",
    ),
    "numbers, η": (
        lambda: actor_loss(*5 * [H], rho=1.0, eta=NAN),
        "eta must be at least 0, got nan",
    ),
    "numbers, no scale": (
        lambda: actor_loss(*5 * [H], rho=1.0, eta=0.0, scale=0.0),
        "scale must be at",
    ),
    "numbers, no logp": (
        lambda: losses(logp=None),
        "logp must be [4, 3] like ret, got NoneType None",
    ),
    "numbers, no entropy": (
        lambda: losses(entropy=None),
        "entropy must be [4, 3] like ret, got NoneType",
    ),
    "numbers, no slow value": (
        lambda: critic_loss(NormalHead(), H[..., None], H, H, None, 1.0),
        "slow_value must be a float tensor, got NoneType None",
    ),
    "numbers, no slow critic": (
        lambda: tiny.agent(cfg=tiny.PAPERS["V1"]).behavior.slow_value(torch.zeros(2, 72)),
        "slow_target must be True, or slow_regularizer above 0, got neither",
    ),
    "numbers, KL of NaN": (
        lambda: kl_loss(*2 * [dice(2, 3, 4, 5)], NAN, 1, 1, True),
        "dyn must be at",
    ),
    "numbers, scale below": (lambda: ReturnScale(limit=-1.0), "limit must be at least 0, got -1.0"),
    "numbers, scale turned": (
        lambda: ReturnScale(low=0.9, high=0.1),
        "high must be in [0.9, 1], got",
    ),
    "numbers, label of 3": (
        lambda: Bernoulli(H).log_prob(H + 3),
        "x must be in [0, 1], got float32",
    ),
    "numbers, unlike pair": (
        lambda: DiagNormal(H, H.T).entropy(),
        "std must be [4, 3], got float32 [3",
    ),
    "numbers, layers": (lambda: mlp(3, 4, -1, Style()), "layers must be at least 0, got -1"),
    "numbers, no block": (
        lambda: BlockLinear(8, 8, 0, Style()),
        "blocks must be at least 1, got 0",
    ),
    "numbers, a table": (
        lambda: tiny.agent(obs={"x": (3, 4)}),
        "x must be an image (H, W, C) or a vec",
    ),
    "numbers, no state": (lambda: stack([]), "states must be at least one State, got none"),
    "numbers, gradients of NaN": (
        lambda: stepped([H[0, :2] * NAN, H[0]]),
        "grads must be finite numbers",
    ),
    "numbers, loss of NaN": (
        lambda: mover().gradients(H.sum() * NAN),
        "loss must be without NaN, got",
    ),
    "numbers, many losses": (lambda: mover().gradients(H), "loss must be [], got float32 [4, 3]"),
    "numbers, whole weights": (
        lambda: Optimizer({"a": INTEGERS}, Adam()),
        "a must be a float tensor",
    ),
    "numbers, half a window": (
        lambda: memory().sample(1.5, 1),
        "length must be a whole number, got 1.5",
    ),
    "numbers, half a memory": (
        lambda: memory(capacity=5.5),
        "capacity must be a whole number, got 5.5",
    ),
    "numbers, no observation": (lambda: memory(obs_spec={}), "obs_spec must be at least one obs"),
    "numbers, one action for all": (lambda: acted(1), "action must be [2, 2], got float32 [1, 2]"),
    "numbers, an action too many": (lambda: acted(3), "action must be [2, 2], got float32 [3, 2]"),
    "numbers, action of words": (
        lambda: envs.clean_action(TWO, [["a", "b"]]),
        "action must be float32",
    ),
    "numbers, no id": (lambda: envs.make(None), "env_id must be of type str, got NoneType None"),
    "numbers, half a world": (
        lambda: envs.make("CartPole-v1", 1.5),
        "num_envs must be a whole number",
    ),
    "numbers, seed": (lambda: envs.make("CartPole-v1", seed=-1), "seed must be at least 0, got -1"),
    "numbers, option": (
        lambda: envs.make("CartPole-v1", foo=1),
        "kwargs must be options of 'CartPole",
    ),
    "numbers, option of Atari": (
        lambda: envs.make("ALE/Pong-v5", foo=1),
        "kwargs must be among ['size'",
    ),
    "numbers, no raw world": (
        lambda: envs.VectorEnv(None),
        "raw must be of type VectorEnv, got NoneType",
    ),
    "numbers, a list of scores": (
        lambda: scores.iqm([1.0]),
        "scores must be an array of numbers, got li",
    ),
    "numbers, a share of NaN": (
        lambda: scores.share(np.full(3, NAN), 0.0, 1.0),
        "scores must be without",
    ),
    "numbers, a curve of no point": (
        lambda: scores.curve([], 0),
        "points must be at least 1, got 0",
    ),
    "numbers, no run": (
        lambda: report.summarize([], "frame", "x"),
        "paths must be at least one run",
    ),
    "numbers, no row": (lambda: report.as_sequence([]), "rows must be at least one row, got none"),
    "numbers, two colors": (
        lambda: report.rgb(PIXELS.numpy()[..., :2]),
        "frames must be uint8 [..., H,",
    ),
    "numbers, film of no pace": (lambda: filmed(fps=0), "fps must be in [0.001, 1000], got 0"),
    "numbers, film of no size": (lambda: filmed(scale=0), "scale must be at least 1, got 0"),
    "numbers, no step": (
        lambda: training.train(V3, "CartPole-v1", 0, "x"),
        "steps must be at least 1",
    ),
    "numbers, no settings": (
        lambda: training.train(None, "CartPole-v1", 9, "x"),
        "cfg must be of type",
    ),
    "numbers, nothing played": (
        lambda: training.summarize([]),
        "played must be at least one episode",
    ),
    "numbers, no file": (lambda: replay.unpack_rows("nowhere.npz"), "nowhere.npz cannot be read"),
}
BAD |= SETTINGS | NUMBERS


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_by_name(name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        call()
    assert ";" in str(refused.value) or "one of" in message, "no remedy"


def test_good_input_of_any_size_passes():
    for x in (torch.rand(()), torch.rand(2), torch.rand(2, 3, 4)):
        torch.testing.assert_close(symexp(symlog(x)), x)
        assert twohot(x, BINS).shape == (*x.shape, 5)
    assert lambda_return(H, H, H, torch.tensor(0.5)).shape == H.shape
    assert lambda_return(H[:, 0], H[:, 0], H[:, 0], 0.5).shape == (4,)


def test_a_message_has_four_parts():
    with pytest.raises(ValueError, match="^x must be small, got 7; halve it$"):
        require(False, "x", "small", "7", "halve it")
    assert shown(torch.zeros(2, 3)) == "float32 [2, 3]" and shown(7) == "int 7"
    assert shown(np.zeros((2, 3), np.uint8)) == "uint8 [2, 3]"


def test_images_are_bytes_with_the_axes_that_are_asked_for():
    pixels("why", x=PIXELS, y=PIXELS.numpy()[0])
    pixels("why", ("N", "H", "W", "C"), x=PIXELS)
    for wrong in (PIXELS.float(), PIXELS[0, 0], None):
        with pytest.raises(ValueError, match=r"x must be uint8 \[..., H, W, C\]"):
            pixels("why", x=wrong)


def test_numbers_are_looked_at_only_where_that_costs_no_waiting():
    class OnGpu(torch.Tensor):
        is_cpu = False

    floats("why", x=torch.tensor([NAN]).as_subclass(OnGpu))  # not refused: nobody looked
    with pytest.raises(ValueError, match="without NaN"):
        floats("why", x=torch.tensor([NAN]))


def test_limits_belong_to_the_range():
    between(0, 1, "why", a=0, b=1.0)
    with pytest.raises(ValueError, match=r"a must be in \[0, 1\], got -1e-09"):
        between(0, 1, "why", a=-1e-9)


def test_a_default_that_nothing_reads_is_no_mistake():
    refuse_unread(V3.behavior.critic)
    refuse_unread(replace(V3.behavior.critic, slow_regularizer=0.0))
