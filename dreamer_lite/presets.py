"""Three papers as three settings of the same pieces, and sizes from a laptop to a GPU (chapter 12).

Numbers that differ between the papers are fields, formulas that differ are objects in fields; no
code asks which version it runs. `print(diff(a, b))` is a table of what two settings disagree on.
"""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from dreamer_lite import heads, networks, transforms
from dreamer_lite.behavior import ActorConfig, BehaviorConfig, CriticConfig
from dreamer_lite.distributions import (
    BoundedNormal,
    Categorical,
    Gaussian,
    TanhNormal,
    TruncNormal,
)
from dreamer_lite.envs import PROTOCOLS
from dreamer_lite.guard import between, instances, refuse_unread, require, whole
from dreamer_lite.heads import NormalHead, NormalPixelHead, NormalVectorHead
from dreamer_lite.networks import (
    GRU,
    Conv,
    NormGRU,
    StrideDecoder,
    StrideEncoder,
    Style,
    down_stride,
    up_stride,
)
from dreamer_lite.optim import Adam, LaProp
from dreamer_lite.world_model import KL, ModelConfig


@dataclass(frozen=True)
class Optimizers:
    """Who is moved by which rule; None: together with the world model (V3 has one optimizer).

    ValueError for what is no rule.
    """

    model: LaProp | Adam = LaProp()
    actor: LaProp | Adam | None = None
    critic: LaProp | Adam | None = None

    def __post_init__(self) -> None:
        for name in ("model", "actor", "critic"):
            rule = getattr(self, name)
            ok = callable(rule) or rule is None and name != "model"
            require(ok, name, "a rule", rule, "V1 and V2 have Adam(...), V3 LaProp(...)")


@dataclass(frozen=True)
class ReplayConfig:
    """Memory and pace. `ratio`: replayed steps per agent step.

    So there are ratio / (batch·length) updates per agent step.

    ValueError for numbers out of range, and for settings of V1 and V2 beside those of V3.
    """

    capacity: int = 5_000_000  # steps over all streams
    batch: int = 16  # B, sequences
    length: int = 64  # T, trained steps of a sequence
    latents: bool = True  # V3: start from the stored latent of the row before, and refresh it
    online: bool = True  # V3: fresh sequences are replayed once before uniform sampling
    ratio: float = 32.0  # replayed steps per agent step
    warmup: int = 1024  # agent steps before the first update
    prefill: int = 0  # agent steps with random actions
    pretrain: int = 0  # updates at once when learning begins
    episodes: bool = False  # V1, V2: draw an episode, then a window inside it
    ends: bool = False  # V2 on Atari: the last window of an episode is drawn more often

    def __post_init__(self) -> None:
        remedy = "see presets.V1, V2, V3"
        for name in ("capacity", "batch", "length"):
            whole(1, remedy, **{name: getattr(self, name)})
        for name in ("warmup", "prefill", "pretrain"):
            whole(0, remedy, **{name: getattr(self, name)})
        for name in ("latents", "online", "episodes", "ends"):
            instances(bool, remedy, **{name: getattr(self, name)})
        between(0, math.inf, remedy, ratio=self.ratio)
        kind = not self.episodes or not (self.latents or self.online)
        got = f"latents={self.latents}, online={self.online}"
        require(kind, "episodes", "False beside latents or online", got, "these are V3's way")
        refuse_unread(self)

    def unread(self) -> dict[str, str]:
        """Fields that have no meaning beside the others, and why."""
        return {} if self.episodes else {"ends": "episodes is False"}


@dataclass(frozen=True)
class Config:
    """Everything that defines an agent and its training. Defaults: V3, size 200m, for Atari.

    ValueError for parts of another kind, fewer streams than one, and an unknown protocol.
    """

    model: ModelConfig = ModelConfig()
    behavior: BehaviorConfig = BehaviorConfig()
    optim: Optimizers = Optimizers()
    replay: ReplayConfig = ReplayConfig()
    envs: int = 16  # streams stepped together
    protocol: str = "atari200m"  # `envs.PROTOCOLS`: how Atari games are presented

    def __post_init__(self) -> None:
        remedy = "presets.V1, V2, V3 are some"
        instances(ModelConfig, remedy, model=self.model)
        instances(BehaviorConfig, remedy, behavior=self.behavior)
        instances(Optimizers, remedy, optim=self.optim)
        instances(ReplayConfig, remedy, replay=self.replay)
        whole(1, "V1 and V2 have 1, V3 has 16", envs=self.envs)
        known = self.protocol in PROTOCOLS
        require(known, "protocol", f"one of {[*PROTOCOLS]}", f"{self.protocol!r}", "see envs")


@dataclass(frozen=True)
class Size:
    """One row of the paper's table of model sizes."""

    deter: int
    hidden: int
    classes: int
    depth: int
    units: int


# The paper's table of model sizes, and `tiny` for tests
SIZES = {
    "tiny": Size(64, 16, 4, 4, 16),
    "1m": Size(512, 64, 4, 4, 64),
    "12m": Size(2048, 256, 16, 16, 256),
    "25m": Size(3072, 384, 24, 24, 384),
    "50m": Size(4096, 512, 32, 32, 512),
    "100m": Size(6144, 768, 48, 48, 768),
    "200m": Size(8192, 1024, 64, 64, 1024),
    "400m": Size(12288, 1536, 96, 96, 1536),
}


def sized(cfg: Config, size: str) -> Config:
    """`cfg` with another row of `SIZES`; everything else stays.

    ValueError for an unknown size, and where the latent is not V3's.
    """
    instances(Config, "presets.V3 is one", cfg=cfg)
    if size not in SIZES:
        raise ValueError(f"size must be one of {', '.join(SIZES)}, got {size!r}; 1m is quick")
    if not isinstance(cfg.model.latent, Categorical):
        raise ValueError(
            f"latent must be a Categorical, got {cfg.model.latent}; sizes are those of V3, so set "
            "the fields one by one"
        )
    s = SIZES[size]
    model = replace(
        cfg.model,
        deter=s.deter,
        hidden=s.hidden,
        units=s.units,
        latent=replace(cfg.model.latent, classes=s.classes),
        conv=replace(cfg.model.conv, depth=s.depth),
    )
    return replace(cfg, model=model)


# --- the papers ---------------------------------------------------------------------------------

# DreamerV1 as the authors ran it on control from pixels (action repeat 2): danijar/dreamer 56d4d44,
# `dreamer.py:28-83`. Ours: vectors (V2's MLP), discrete actions (straight-through one-hots, whose
# gradient comes back through the model), images of other sizes than 64×64. The authors' optional
# continue predictor (`pcont`) has three hidden layers and weighs 10. It is off here, and settings
# that nothing reads stay at their defaults, so turning it on takes both numbers:
# `replace(V1.model, cont_scale=10.0, cont_layers=3)`.
V1 = Config(
    model=ModelConfig(
        latent=Gaussian(30),
        cell=GRU,
        deter=200,
        hidden=200,
        prior_layers=1,
        units=400,
        vector_layers=4,
        reward_layers=2,
        head=NormalHead,
        conv=Conv(32, (1, 2, 4, 8), encoder=StrideEncoder, decoder=StrideDecoder, act=nn.ReLU),
        style=Style(norm=None, act=nn.ELU, init=networks.glorot_uniform),
        kl=KL(dyn=1.0, rep=1.0, free=3.0, per_step=False),
        gamma=0.99,
        cont_scale=0.0,
        out_scale=1.0,
        image_head=NormalPixelHead,
        vector_head=NormalVectorHead,
    ),
    behavior=BehaviorConfig(
        ActorConfig(
            layers=4,
            rho=0.0,
            eta=0.0,
            normalize=False,
            unimix=0.0,
            continuous=TanhNormal(),
            out_scale=1.0,
            noise=0.3,
            greedy=True,
        ),
        CriticConfig(layers=3, slow_regularizer=0.0, replay=0.0, out_scale=1.0),
    ),
    optim=Optimizers(model=Adam(6e-4), actor=Adam(8e-5), critic=Adam(8e-5)),
    replay=ReplayConfig(
        capacity=2_500_000,
        batch=50,
        length=50,
        latents=False,
        online=False,
        ratio=500.0,
        warmup=0,
        prefill=2500,
        pretrain=100,
        episodes=True,
    ),
    envs=1,
    protocol="atari_v1",
)

# DreamerV2 on Atari: danijar/dreamerv2 07d906e, `configs.yaml:3-105`.
V2 = replace(
    V1,
    model=replace(
        V1.model,
        latent=Categorical(32, 32),
        cell=NormGRU,
        deter=600,
        hidden=600,
        reward_layers=4,
        cont_layers=4,
        conv=replace(V1.model.conv, depth=48, act=nn.ELU),
        kl=KL(dyn=0.08, rep=0.02, free=0.0, per_step=False),  # 0.1 · (0.8, 0.2)
        gamma=0.999,
        cont_scale=5.0,
        squash=torch.tanh,
    ),
    behavior=replace(
        V1.behavior,
        actor=replace(V1.behavior.actor, rho=1.0, eta=1e-3, continuous=TruncNormal(), noise=0.0),
        critic=replace(
            V1.behavior.critic, layers=4, slow_every=100, slow_mix=1.0, slow_target=True
        ),
    ),
    optim=Optimizers(
        model=Adam(2e-4, eps=1e-5, decay=1e-6),
        actor=Adam(4e-5, eps=1e-5, decay=1e-6),
        critic=Adam(1e-4, eps=1e-5, decay=1e-6),
    ),
    replay=replace(
        V1.replay, capacity=2_000_000, batch=16, ratio=50.0, prefill=50_000, pretrain=1, ends=True
    ),
    protocol="atari_v2",
)

# DreamerV2 on control from pixels (action repeat 2): `configs.yaml:107-136` of the same.
V2_DMC = replace(
    V2,
    model=replace(
        V2.model,
        deter=200,
        hidden=200,
        cont_layers=ModelConfig.cont_layers,
        kl=KL(dyn=0.8, rep=0.2, free=1.0, per_step=False),
        gamma=0.99,
        cont_scale=0.0,
        squash=transforms.identity,
    ),
    behavior=replace(V2.behavior, actor=replace(V2.behavior.actor, rho=0.0, eta=1e-4)),
    optim=Optimizers(
        model=Adam(3e-4, eps=1e-5, decay=1e-6),
        actor=Adam(8e-5, eps=1e-5, decay=1e-6),
        critic=Adam(8e-5, eps=1e-5, decay=1e-6),
    ),
    replay=replace(V2.replay, ratio=160.0, prefill=1000, pretrain=100, ends=False),
)

# DreamerV3 in its largest published setting for Atari: every default above.
V3 = Config()

# --- smaller ------------------------------------------------------------------------------------

# Atari 100k: 400k frames, one environment, 64×64 color, no sticky actions, ratio 256.
ATARI100K = replace(
    sized(V3, "12m"),
    envs=1,
    protocol="atari100k",
    replay=replace(V3.replay, ratio=256.0, capacity=200_000),
)

# For two CPU cores: the 2023 convolutions (a sixth of the work), short sequences, and larger
# learning rates than the official 4e-5, as small networks want. One gray channel counts like three
# of color, as the KL assumes. The actor moves slower than the model it learns from, and is paid
# more for staying random, or it settles before it has seen much. Steps cost little beside updates,
# so the ratio is low: at 128 the model knew its replay by heart and dreamed of points that it
# never won. Batches are small: of the same rows they make twice as many updates as batches of 16,
# and Boxing came sooner (two seeds against one, chapter 13).
LAPTOP = replace(
    V3,
    model=replace(
        V3.model,
        latent=Categorical(32, 8, unimix=0.01),
        deter=512,
        hidden=64,
        units=128,
        conv=Conv(8, (2, 3, 4, 4), down_stride, up_stride),
        obs_scale=3.0,
    ),
    behavior=replace(V3.behavior, actor=replace(V3.behavior.actor, eta=1e-3)),
    optim=Optimizers(LaProp(lr=1e-3, warmup=200), actor=LaProp(lr=1e-4, warmup=200)),
    replay=replace(V3.replay, capacity=200_000, batch=8, length=32, ratio=32.0),
    envs=4,
    protocol="atari_laptop",
)

# 16×16 toys: minutes on a laptop. A ball is 4 of 256 pixels, so reconstruction must weigh much for
# it to be noticed at all; then the KL needs as much. With dyn = 1 the dream does not follow the
# ball: the reward one step ahead was still a guess after 1,000 updates. With rep = 0.1 the codes
# keep noise that no prior can guess. More entropy than in LAPTOP, or an actor settles on one action
# before its model knows the ball.
TOY = replace(
    LAPTOP,
    model=replace(
        LAPTOP.model,
        latent=Categorical(16, 8, unimix=0.01),
        deter=128,
        hidden=128,
        units=64,
        reward_layers=2,
        obs_scale=64.0,
        kl=replace(LAPTOP.model.kl, dyn=20.0, rep=0.5),
    ),
    behavior=replace(
        V3.behavior,
        horizon=6,
        actor=replace(V3.behavior.actor, layers=2, eta=5e-3),
        critic=replace(V3.behavior.critic, layers=2),
    ),
    optim=Optimizers(LaProp(lr=4e-3, warmup=50), actor=LaProp(lr=1e-3, warmup=50)),
    replay=ReplayConfig(capacity=100_000, batch=16, length=16, ratio=4.0, warmup=512),
    envs=32,
)

# Observations that are a few numbers: CartPole, proprioception. CartPole's angles are a tenth, and
# their squares little beside the nats of the other losses, so they weigh more here, and the KL too.
VECTOR = replace(
    LAPTOP,
    model=replace(
        LAPTOP.model,
        latent=Categorical(16, 8, unimix=0.01),
        deter=256,
        hidden=128,
        vector_layers=2,
        obs_scale=16.0,
        kl=replace(LAPTOP.model.kl, dyn=5.0, rep=0.3),
    ),
    behavior=replace(LAPTOP.behavior, actor=replace(LAPTOP.behavior.actor, eta=3e-3)),
    optim=Optimizers(LaProp(lr=5e-4, warmup=100), actor=LaProp(lr=2e-4, warmup=100)),
    replay=replace(LAPTOP.replay, capacity=100_000, batch=16, length=16, ratio=16.0, warmup=1000),
    envs=8,
)

# What the small presets of V1 and V2 share. They have the size and pace of TOY and VECTOR: the
# same formulas as in the papers, smaller networks, larger learning rates, several streams. Tasks
# may end, so V1's optional continue predictor is on; short episodes are common, so windows cross
# their ends.
SMALL = {"reward_layers": 1, "cont_layers": 1, "hidden": 64}
# The replay of the small V1 and V2: no stored latents, as in the papers, and at first random play
SHORT = {"latents": False, "online": False, "prefill": 1024}

# DreamerV1 at the size and pace of TOY. The floor of 3 nats is more than a whole toy has to tell;
# half a squared error needs twice the weight of V3's whole one.
TOY_V1 = replace(
    V1,
    model=replace(
        V1.model,
        latent=Gaussian(16),
        deter=128,
        units=64,
        vector_layers=3,
        conv=replace(V1.model.conv, depth=16),
        obs_scale=128.0,
        cont_scale=10.0,
        kl=replace(V1.model.kl, dyn=4.0, rep=4.0, free=0.1),
        **SMALL | {"hidden": 128},
    ),
    behavior=replace(
        V1.behavior,
        horizon=6,
        actor=replace(V1.behavior.actor, layers=2),
        critic=replace(V1.behavior.critic, layers=2),
    ),
    optim=Optimizers(model=Adam(2e-3), actor=Adam(1e-3), critic=Adam(2e-3)),
    replay=replace(TOY.replay, **SHORT),
    envs=32,
)
# DreamerV2 (Atari) at the size and pace of TOY. With a KL of twice this weight beside half the
# picture the codes stayed blurred, and it took twice as long. The policy begins undecided and is
# paid more for staying so: else it settles before the model knows the ball.
TOY_V2 = replace(
    V2,
    model=replace(
        V2.model,
        latent=Categorical(16, 8),
        deter=128,
        units=64,
        vector_layers=3,
        conv=replace(V2.model.conv, depth=16),
        obs_scale=128.0,
        kl=replace(V2.model.kl, dyn=8.0, rep=2.0),
        **SMALL | {"hidden": 128},
    ),
    behavior=replace(
        V2.behavior,
        horizon=6,
        actor=replace(V2.behavior.actor, layers=2, eta=1e-2, out_scale=0.01),
        critic=replace(V2.behavior.critic, layers=2),
    ),
    optim=Optimizers(
        model=Adam(2e-3, eps=1e-5, decay=1e-6),
        actor=Adam(1e-3, eps=1e-5, decay=1e-6),
        critic=Adam(2e-3, eps=1e-5, decay=1e-6),
    ),
    replay=replace(TOY.replay, **SHORT),
    envs=32,
)
# DreamerV1 at the size and pace of VECTOR. A few numbers have fewer nats to tell than a picture,
# so they weigh more and the floor is lower. The published actor begins with tanh of a deviation of
# 5 and has no entropy bonus: it follows a critic that overshoots to where tanh is flat, and no
# gradient leads back. So it begins less wild, is paid for staying random (ours), and actor and
# critic learn more slowly than the model.
VECTOR_V1 = replace(
    V1,
    model=replace(
        V1.model,
        deter=256,
        units=128,
        vector_layers=2,
        obs_scale=16.0,
        cont_scale=10.0,
        kl=replace(V1.model.kl, free=1.0),
        **SMALL,
    ),
    behavior=replace(
        V1.behavior,
        actor=replace(V1.behavior.actor, layers=3, eta=1e-2, continuous=TanhNormal(init_std=1.0)),
    ),
    optim=Optimizers(model=Adam(6e-4), actor=Adam(8e-5), critic=Adam(2e-4)),
    replay=replace(VECTOR.replay, **SHORT),
    envs=4,
)
# DreamerV2 (control) at the size and pace of VECTOR
VECTOR_V2 = replace(
    V2_DMC,
    model=replace(
        V2_DMC.model,
        latent=Categorical(16, 8),
        deter=256,
        units=128,
        vector_layers=2,
        cont_scale=5.0,
        **SMALL,
    ),
    behavior=replace(
        V2_DMC.behavior,
        actor=replace(V2_DMC.behavior.actor, layers=3),
        critic=replace(V2_DMC.behavior.critic, layers=3),
    ),
    optim=Optimizers(
        model=Adam(6e-4, eps=1e-5, decay=1e-6),
        actor=Adam(2e-4, eps=1e-5, decay=1e-6),
        critic=Adam(6e-4, eps=1e-5, decay=1e-6),
    ),
    replay=replace(VECTOR.replay, **SHORT),
    envs=4,
)

# The classes and functions that a settings file may name
PIECES = (
    *(Config, ModelConfig, BehaviorConfig, ActorConfig, CriticConfig, ReplayConfig, Optimizers),
    *(KL, Conv, Style, Gaussian, Categorical, BoundedNormal, TanhNormal, TruncNormal, LaProp, Adam),
    *(NormalHead, heads.TwoHotHead, heads.SymlogTwoHotHead),
    *(NormalPixelHead, heads.PixelHead, NormalVectorHead, heads.SymlogHead),
    *(GRU, NormGRU, networks.BlockGRU),
    *(networks.RMSNorm, networks.LayerNorm, nn.SiLU, nn.ELU, nn.ReLU),
    *(networks.trunc_normal, networks.glorot_uniform),
    *(networks.ConvEncoder, networks.ConvDecoder, StrideEncoder, StrideDecoder),
    *(networks.down_pool, networks.down_stride, networks.up_nearest, networks.up_stride),
    *(transforms.identity, torch.tanh, F.softplus, transforms.sigmoid2),
)

# Every preset by its name on the command line
PRESETS = {
    "v1": V1,
    "v2": V2,
    "v2_dmc": V2_DMC,
    "v3": V3,
    "atari100k": ATARI100K,
    "laptop": LAPTOP,
    "toy": TOY,
    "toy_v1": TOY_V1,
    "toy_v2": TOY_V2,
    "vector": VECTOR,
    "vector_v1": VECTOR_V1,
    "vector_v2": VECTOR_V2,
}


# --- settings as JSON, and side by side ----------------------------------------------------------


def to_dict(value: Any) -> Any:
    """Settings as plain JSON: objects carry their class under "type", functions their name."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type(value).__name__, **fields}
    if isinstance(value, tuple):
        return [to_dict(x) for x in value]
    return f"@{value.__name__}" if callable(value) else value


def from_dict(data: Any) -> Any:
    """The inverse of `to_dict`; unknown names and fields raise ValueError.

    A field that the file lacks, because it is younger than the file, takes its default.
    """
    if isinstance(data, list):
        return tuple(from_dict(x) for x in data)
    if isinstance(data, str) and data.startswith("@"):
        return known(data[1:])
    if not isinstance(data, dict):
        return data
    cls = known(data.get("type", "nothing"))
    fields = {k: from_dict(v) for k, v in data.items() if k != "type"}
    unknown = sorted(fields.keys() - {f.name for f in dataclasses.fields(cls)})
    if unknown:
        raise ValueError(
            f"{cls.__name__} has no field {', '.join(unknown)}; was the file written by another "
            "version of dreamer_lite?"
        )
    return cls(**fields)


def known(name: str) -> Any:
    """The class or function a settings file may name: only those listed here, else ValueError."""
    table = {x.__name__: x for x in PIECES}
    if name not in table:
        raise ValueError(f"settings name {name!r}, expected one of {', '.join(sorted(table))}")
    return table[name]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All numbers and names of a setting with their dotted paths."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}" if path else key)
    else:
        yield path, value


class Differences(dict[str, tuple[Any, Any]]):
    """{dotted path: (in a, in b)}, printed as a table; a notebook draws it."""

    names = ("a", "b")

    def rows(self) -> list[tuple[str, str, str]]:
        """What is printed, titles first: path, value in a, value in b."""
        values = [(path, str(a), str(b)) for path, (a, b) in self.items()]
        return [("setting", *self.names), *values]

    def __repr__(self) -> str:
        widths = [max(map(len, column)) for column in zip(*self.rows(), strict=True)]
        padded = (map(str.ljust, row, widths) for row in self.rows())
        return "\n".join("  ".join(row).rstrip() for row in padded)

    def _repr_markdown_(self) -> str:
        head, *rows = self.rows()
        marked = [(f"`{path}`", *values) for path, *values in rows]
        return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * 3, *marked))


def diff(a: Config, b: Config, *, idle: bool = False) -> Differences:
    """What two settings disagree on: {dotted path: (in a, in b)}; "-" where one has no such field.

    A field that nothing reads beside the others (the layers of a continue predictor that does not
    exist) counts as absent, unless idle. `print(diff(V1, V2))` is a table of what changed between
    the papers; from a shell: `python -c "from dreamer_lite.presets import *; print(diff(V1, V2))"`.
    ValueError for what is no Config.
    """
    for name, cfg in {"a": a, "b": b}.items():
        require(isinstance(cfg, Config), name, "a Config", cfg, "presets.V1, V2, V3 are some")
    left, right = (dict(leaves(to_dict(x))) for x in (a, b))
    for cfg, found in ((a, left), (b, right)):
        for path in () if idle else unread(cfg):
            del found[path]
    sections = list(dict.fromkeys(p.rpartition(".")[0] for p in [*left, *right]))
    paths = sorted({**left, **right}, key=lambda p: sections.index(p.rpartition(".")[0]))
    pairs = {p: (left.get(p, "-"), right.get(p, "-")) for p in paths}
    found = Differences({p: pair for p, pair in pairs.items() if pair[0] != pair[1]})
    known = [[name for name, preset in PRESETS.items() if preset == cfg] for cfg in (a, b)]
    found.names = tuple(k[0] if k else letter for k, letter in zip(known, "ab", strict=True))
    return found


def unread(value: Any, path: str = "") -> list[str]:
    """Dotted paths of the fields that nothing reads beside the others."""
    if not dataclasses.is_dataclass(value):
        return []
    found = [f"{path}{name}" for name in getattr(value, "unread", dict)()]
    for f in dataclasses.fields(value):
        found += unread(getattr(value, f.name), f"{path}{f.name}.")
    return found
