"""The world model: see, remember, guess, and be corrected (chapters 5 and 7).

             x_t -> encoder -> e_t ─┐
(h,z,a)_{t-1} -> cell -> h_t ───────┴-> q(z_t | h_t, x_t) ∋ z_t -> decoder, reward, continue
                          └-> p(z_t | h_t)      pulled together with q by the KL loss
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dreamer_lite.distributed import mean_over_ranks
from dreamer_lite.distributions import Categorical, Gaussian
from dreamer_lite.guard import (
    between,
    flags,
    floats,
    instances,
    pixels,
    refuse_unread,
    require,
    whole,
)
from dreamer_lite.heads import BernoulliHead, PixelHead, SymlogHead, TwoHotHead
from dreamer_lite.networks import BlockGRU, Conv, Decoder, Encoder, Style, readout
from dreamer_lite.rssm import RSSM, State
from dreamer_lite.spaces import ObsSpec, is_image
from dreamer_lite.transforms import identity


@dataclass(frozen=True)
class KL:
    """Who moves towards whom: `dyn` pulls the prior, `rep` the posterior; `free` nats are free.

    Source: V2 Alg. "KL balancing"; V3v2, its weights and free nats. ValueError for numbers below 0.
    """

    dyn: float = 1.0  # weight of the side that moves the prior
    rep: float = 0.1  # weight of the side that moves the posterior
    free: float = 1.0  # nats below which the KL costs nothing
    per_step: bool = True  # V3: the floor acts on each (t, b); V1, V2: on the mean of the batch

    def __post_init__(self) -> None:
        remedy = "V1: 1, 1, 3 nats; V2 on Atari: 0.08, 0.02, 0; V3: 1, 0.1, 1"
        between(0, math.inf, remedy, dyn=self.dyn, rep=self.rep, free=self.free)
        instances(bool, "V3 True; V1 and V2 False", per_step=self.per_step)


def kl_loss(q, p, dyn: float, rep: float, free: float, per_step: bool) -> Tensor:
    """The KL loss of all three papers; q posterior and p prior over [T,B] -> [], in nats.

        dyn · floor(KL(sg q ‖ p)) + rep · floor(KL(q ‖ sg p))
        floor(x) = mean(max(x, free)) if per_step else max(mean(x), free)

    The KL is summed over the latent's groups first. V1: dyn = rep = 1, free = 3, not per step (same
    gradient as the paper's plain KL, twice its value). V2: 0.8, 0.2, not per step. V3: 1, 0.1,
    free = 1, per step. Source: V3v2 dynamics and representation loss; V2 Alg. "KL balancing";
    V1 `dreamer.py:172-176`. ValueError for other kinds or shapes, NaN and weights below 0.
    """
    refuse_unlike(q, p, dyn=dyn, rep=rep, free=free)

    def floor(x: Tensor) -> Tensor:
        if per_step:
            return x.clamp(min=free).mean()
        return mean_over_ranks(x.mean()).clamp(min=free)

    return dyn * floor(q.detach().kl(p)) + rep * floor(q.kl(p.detach()))


def refuse_unlike(q, p, **weights: float) -> None:
    """Raises ValueError unless q and p are two distributions of one kind and shape, without NaN.

    The weights of `kl_loss`, and its floor in nats, are at least 0.
    """
    kind = type(q).__name__
    require(type(p) is type(q), "p", f"a {kind} like q", type(p).__name__, "compare like with like")
    between(0, math.inf, "V3 has 1, 0.1 and 1 nat", **weights)
    if isinstance(q, tuple):
        shape, remedy = list(q[0].shape), "posterior and prior of the same rows, time first"
        require(list(p[0].shape) == shape, "p", f"{shape} like q", p[0], remedy)
        for name, tensors in {"q": q, "p": p}.items():
            for x in tensors:
                floats(remedy, tuple(shape), **{name: x})


@dataclass(frozen=True)
class ModelConfig:
    """The shape of the world model and of its loss (V3, size 200m, unless said otherwise).

    ValueError for numbers out of range and for a latent that is none.
    """

    latent: Gaussian | Categorical = Categorical(32, 64, unimix=0.01)
    cell: type[nn.Module] = BlockGRU
    deter: int = 8192  # D, width of the memory h
    hidden: int = 1024  # Y, width inside the RSSM
    prior_layers: int = 2  # hidden layers from h to the prior
    post_layers: int = 1  # hidden layers from (h, e) to the posterior
    units: int = 1024  # U, width of MLPs and heads
    vector_layers: int = 3  # encoder and decoder of vectors
    reward_layers: int = 1  # hidden layers of the reward predictor
    cont_layers: int = 1  # hidden layers of the continue predictor
    head: type[nn.Module] = TwoHotHead  # how scalars are predicted: rewards and values
    conv: Conv = Conv()
    style: Style = Style()
    kl: KL = KL()
    obs_scale: float = 1.0  # weight of reconstruction; 16 makes 16×16 images count like 64×64
    gamma: float = 1 - 1 / 333  # discount per agent step; enters once, in the label of `cont`
    cont_scale: float = 1.0  # weight of the continue loss; 0: no such predictor, γ everywhere
    out_scale: float = 0.0  # of the first weights of the reward predictor's output
    squash: Callable[[Tensor], Tensor] = identity  # of rewards before they are learned
    image_head: type[nn.Module] = PixelHead
    vector_head: type[nn.Module] = SymlogHead

    def __post_init__(self) -> None:
        between(0, 1, "V1 and V2 on control tasks have 0.99", gamma=self.gamma)
        for name in ("deter", "hidden", "units"):
            whole(1, "see presets.SIZES", **{name: getattr(self, name)})
        for name in ("prior_layers", "post_layers", "reward_layers", "cont_layers"):
            whole(0, "0 is no hidden layer", **{name: getattr(self, name)})
        whole(1, "V3 has 3, V1 and V2 4", vector_layers=self.vector_layers)
        drawn = callable(self.latent) and hasattr(self.latent, "num_params")
        require(drawn, "latent", "a Gaussian, a Categorical or alike", self.latent, "see V1 and V3")
        for name in ("obs_scale", "cont_scale", "out_scale"):
            between(0, math.inf, "1 is neutral", **{name: getattr(self, name)})
        refuse_unread(self)

    def unread(self) -> dict[str, str]:
        """Fields that have no meaning beside the others, and why."""
        return {} if self.cont_scale else {"cont_layers": "cont_scale = 0"}


class WorldModel(nn.Module):
    """Encoder, RSSM, decoder, reward and continue predictors, and the loss that trains them.

    obs {name: shape}, action: width A of the flat action. Source: authors' code V1
    `dreamer.py:157-178`, V2 `agent.py:85-185`, V3 `agent.py:156-186`. ValueError for rows that do
    not fit [T,B], the shapes of obs, or hold NaN.
    """

    def __init__(self, cfg: ModelConfig, obs: ObsSpec, action: int):
        super().__init__()
        self.cfg, self.obs, self.action, style = cfg, obs, action, cfg.style
        feat = cfg.deter + cfg.latent.size
        whole(1, "see ActionSpec.size", action=action)
        self.encoder = Encoder(
            obs, cfg.conv, cfg.units, cfg.vector_layers, style, cfg.vector_head.squash
        )
        cell = cfg.cell(cfg.deter, cfg.hidden, cfg.latent.size, action, style)
        self.rssm = RSSM(
            cell, cfg.latent, cfg.deter, cfg.hidden, self.encoder.size,
            cfg.prior_layers, cfg.post_layers, style,
        )  # fmt: skip
        self.decoder = Decoder(
            obs, cfg.conv, cfg.deter, cfg.latent.size, cfg.units, cfg.vector_layers, style
        )
        self.head, self.event = cfg.head(), BernoulliHead()
        self.reward_net = readout(
            feat, cfg.units, cfg.reward_layers, self.head.num_params, style, cfg.out_scale
        )
        self.cont_net = (
            readout(feat, cfg.units, cfg.cont_layers, 1, style) if cfg.cont_scale else None
        )
        kinds = {k: cfg.image_head if is_image(s) else cfg.vector_head for k, s in obs.items()}
        self.obs_heads = {k: kind() for k, kind in kinds.items()}

    def reward(self, feat: Tensor) -> Tensor:
        """E[r_t | s_t], the (squashed) reward received on arriving at s_t.  [...,F] -> [...]."""
        self.check(feat)
        return self.head.mean(self.reward_net(feat))

    def discount(self, feat: Tensor) -> Tensor:
        """d_t = γ · P(the episode goes on | s_t).  [...,F] -> [...]; γ is in the learned label.

        Without a continue predictor (V1, V2 on control tasks, which never end): γ. Source: V2,
        discount predictor.
        """
        self.check(feat)
        if not self.cont_net:
            return torch.full_like(feat[..., 0], self.cfg.gamma)
        return self.event.mean(self.cont_net(feat))

    def check(self, feat: Tensor) -> None:
        """Refuses features that are not [...,F], or hold NaN."""
        floats("give `state.feat`", (..., self.cfg.deter + self.cfg.latent.size), feat=feat)

    def reconstruct(self, s: State) -> dict[str, Tensor]:
        """What the model believes it sees: images in [0, 1] [...,H,W,C], vectors [...,n]."""
        return {k: self.obs_heads[k].mean(x) for k, x in self.decoder(s.h, s.z).items()}

    def observe(self, batch, start: State | None) -> tuple[State, object]:
        """Posterior states [T,B,.] and their distributions q for a `replay.Sequence`."""
        refuse_rows(batch, self.obs, self.action)
        start = start or self.rssm.initial(batch.reward.shape[1])
        return self.rssm.observe(self.encoder(batch.obs), batch.prev_action, batch.is_first, start)

    def loss(self, batch, start: State | None = None) -> tuple[dict[str, Tensor], State, dict]:
        """batch [T,B,...] -> losses {obs, reward, cont, kl} (each []), states [T,B,.], metrics.

        Reconstruction is summed over pixels and features, then averaged over [T,B]: the weight of
        the KL assumes it. The continue label is soft: γ·cont. All losses but those of observations
        are weighted already. Units: nats.
        """
        s, q = self.observe(batch, start)
        p, feat = self.rssm.prior(s.h), s.feat
        losses = {
            f"obs/{k}": self.obs_heads[k].loss(x, batch.obs[k]).mean()
            for k, x in self.decoder(s.h, s.z).items()
        }
        reward = self.cfg.squash(batch.reward)
        losses["reward"] = self.head.loss(self.reward_net(feat), reward).mean()
        if self.cont_net:
            label = self.cfg.gamma * batch.cont.float()
            event = self.event.loss(self.cont_net(feat), label).mean()
            losses["cont"] = self.cfg.cont_scale * event
        kl = self.cfg.kl
        losses["kl"] = kl_loss(q, p, kl.dyn, kl.rep, kl.free, kl.per_step)
        return losses, s, latent_metrics(q.detach(), p.detach())


def refuse_rows(batch, obs: ObsSpec, action: int) -> None:
    """Raises ValueError unless a batch has numbers and flags [T,B,...] of these shapes, no NaN."""
    remedy = "rows have time first, [T,B]; see replay.Sequence"
    require(obs.keys() <= batch.obs.keys(), "obs", f"{sorted(obs)}", f"{[*batch.obs]}", remedy)
    kinds = {k: pixels if is_image(shape) else floats for k, shape in obs.items()}
    columns = {f"obs[{k!r}]": (kinds[k], batch.obs[k], shape) for k, shape in obs.items()}
    columns["prev_action"] = floats, batch.prev_action, (action,)
    columns["reward"] = floats, batch.reward, ()
    columns |= {k: (flags, getattr(batch, k), ()) for k in ("cont", "is_first")}
    leads = [tuple(x.shape[: len(x.shape) - len(shape)]) for _, x, shape in columns.values()]
    lead = max(leads, key=leads.count)  # of most columns: the odd one is named
    require(len(lead) == 2, "is_first", "bool [T, B]", batch.is_first, remedy)
    for name, (kind, x, shape) in columns.items():
        kind(remedy, (*lead, *shape), **{name: x})


def latent_metrics(q, p) -> dict[str, Tensor]:
    """What to watch: the unclipped KL and both entropies, in nats, each []."""
    refuse_unlike(q, p)
    with torch.no_grad():
        return {
            "kl": q.kl(p).mean(),
            "entropy_posterior": q.entropy().mean(),
            "entropy_prior": p.entropy().mean(),
        }
