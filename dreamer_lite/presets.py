"""Three papers as three settings of the same pieces, and sizes from a laptop to a GPU (chapter 12).

Numbers that differ between the papers are fields, formulas that differ are objects in fields; no
code asks which version it runs. `diff(a, b)` prints what two settings disagree on.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from dreamer_lite import networks
from dreamer_lite.behavior import ActorConfig, BehaviorConfig, CriticConfig
from dreamer_lite.distributions import BoundedNormal, Categorical, Gaussian
from dreamer_lite.heads import NormalHead, TwoHotHead
from dreamer_lite.networks import Conv, Style, down_stride, up_stride
from dreamer_lite.optim import Adam, LaProp
from dreamer_lite.world_model import KL, ModelConfig


@dataclass(frozen=True)
class Optimizers:
    """Who is moved by which rule; None: together with the world model (V3 has one optimizer)."""

    model: LaProp | Adam = LaProp()
    actor: LaProp | Adam | None = None
    critic: LaProp | Adam | None = None


@dataclass(frozen=True)
class ReplayConfig:
    """Memory and pace. `ratio`: replayed steps per agent step; updates = ratio / (batch·length)."""

    capacity: int = 5_000_000  # steps over all streams
    batch: int = 16  # B, sequences
    length: int = 64  # T, trained steps of a sequence
    latents: bool = True  # V3: start from the stored latent of the row before, and refresh it
    online: bool = True  # V3: fresh sequences are replayed once before uniform sampling
    ratio: float = 32.0  # replayed steps per agent step
    warmup: int = 1024  # agent steps before the first update
    prefill: int = 0  # agent steps with random actions


@dataclass(frozen=True)
class Config:
    """Everything that defines an agent and its training. Defaults: V3, size 200m, for Atari."""

    model: ModelConfig = ModelConfig()
    behavior: BehaviorConfig = BehaviorConfig()
    optim: Optimizers = Optimizers()
    replay: ReplayConfig = ReplayConfig()
    envs: int = 16  # streams stepped together
    protocol: str = "atari200m"  # `envs.PROTOCOLS`: how Atari games are presented


@dataclass(frozen=True)
class Size:
    """One row of the paper's table of model sizes."""

    deter: int
    hidden: int
    classes: int
    depth: int
    units: int


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
    """`cfg` with another row of `SIZES`; everything else stays."""
    if size not in SIZES:
        raise ValueError(f"size must be one of {', '.join(SIZES)}, got {size!r}")
    if not isinstance(cfg.model.latent, Categorical):
        raise ValueError("sizes are those of V3's categorical latent; set the fields one by one")
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


V3 = Config()

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
# more for staying random, or it settles before it has seen much.
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
    replay=replace(V3.replay, capacity=200_000, batch=16, length=32, ratio=128.0),
    envs=4,
    protocol="atari_laptop",
)

# 16×16 toys: minutes on a laptop. Their images count as if they were drawn at 64×64, because the
# few pixels of a ball would otherwise weigh too little against the KL to be noticed for long.
TOY = replace(
    LAPTOP,
    model=replace(
        LAPTOP.model,
        latent=Categorical(16, 8, unimix=0.01),
        deter=128,
        units=64,
        prior_layers=1,
        obs_scale=16.0,
    ),
    behavior=replace(
        V3.behavior,
        actor=replace(V3.behavior.actor, layers=2, eta=3e-3),
        critic=replace(V3.behavior.critic, layers=2),
    ),
    optim=Optimizers(LaProp(lr=2e-3, warmup=50), actor=LaProp(lr=5e-4, warmup=50)),
    replay=ReplayConfig(capacity=100_000, batch=16, length=16, ratio=16.0, warmup=512),
    envs=8,
)

# Observations that are a few numbers: CartPole, proprioception.
VECTOR = replace(
    LAPTOP,
    model=replace(
        LAPTOP.model,
        latent=Categorical(16, 8, unimix=0.01),
        deter=256,
        vector_layers=2,
        obs_scale=1.0,
    ),
    optim=Optimizers(LaProp(lr=5e-4, warmup=100), actor=LaProp(lr=2e-4, warmup=100)),
    replay=replace(LAPTOP.replay, capacity=100_000, ratio=256.0, warmup=1000),
)

PIECES = (
    *(Config, ModelConfig, BehaviorConfig, ActorConfig, CriticConfig, ReplayConfig, Optimizers),
    *(KL, Conv, Style, Gaussian, Categorical, BoundedNormal, LaProp, Adam),
    *(NormalHead, TwoHotHead, networks.GRU, networks.NormGRU, networks.BlockGRU),
    *(networks.RMSNorm, nn.SiLU, nn.ELU, nn.ReLU),
    *(networks.trunc_normal, networks.glorot_uniform),
    *(networks.down_pool, networks.down_stride, networks.up_nearest, networks.up_stride),
)

PRESETS = {"v3": V3, "atari100k": ATARI100K, "laptop": LAPTOP, "toy": TOY, "vector": VECTOR}


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
    """The class or function a settings file may name: only those listed here."""
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


def diff(a: Config, b: Config) -> dict[str, tuple[Any, Any]]:
    """What two settings disagree on: {dotted path: (in a, in b)}."""
    left, right = dict(leaves(to_dict(a))), dict(leaves(to_dict(b)))
    paths = dict.fromkeys([*left, *right])
    pairs = {p: (left.get(p, "-"), right.get(p, "-")) for p in paths}
    return {p: pair for p, pair in pairs.items() if pair[0] != pair[1]}
