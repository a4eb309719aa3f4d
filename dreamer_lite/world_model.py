"""The world model: see, remember, guess, and be corrected (chapters 5 and 7).

             x_t -> encoder -> e_t ─┐
(h,z,a)_{t-1} -> cell -> h_t ───────┴-> q(z_t | h_t, x_t) ∋ z_t -> decoder, reward, continue
                          └-> p(z_t | h_t)      pulled together with q by the KL loss
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dreamer_lite.distributions import Categorical, Gaussian
from dreamer_lite.heads import BernoulliHead, PixelHead, SymlogHead, TwoHotHead
from dreamer_lite.networks import BlockGRU, Conv, Decoder, Encoder, Style, readout
from dreamer_lite.rssm import RSSM, State
from dreamer_lite.spaces import ObsSpec, is_image


@dataclass(frozen=True)
class KL:
    """Who moves towards whom: `dyn` pulls the prior, `rep` the posterior; `free` nats are free."""

    dyn: float = 1.0  # weight of the side that moves the prior
    rep: float = 0.1  # weight of the side that moves the posterior
    free: float = 1.0  # nats below which the KL costs nothing
    per_step: bool = True  # V3: the floor acts on each (t, b); V1, V2: on the mean of the batch


def kl_loss(q, p, dyn: float, rep: float, free: float, per_step: bool) -> Tensor:
    """The KL loss of all three papers; q posterior and p prior over [T,B] -> [], in nats.

        dyn · floor(KL(sg q ‖ p)) + rep · floor(KL(q ‖ sg p))
        floor(x) = mean(max(x, free)) if per_step else max(mean(x), free)

    The KL is summed over the latent's groups first. V1: dyn = rep = 1, free = 3, not per step (same
    gradient as the paper's plain KL, twice its value). V2: 0.8, 0.2, not per step. V3: 1, 0.1,
    free = 1, per step. Source: V3v2 dynamics and representation loss; V2 Alg. "KL balancing".
    """

    def floor(x: Tensor) -> Tensor:
        return x.clamp(min=free).mean() if per_step else x.mean().clamp(min=free)

    return dyn * floor(q.detach().kl(p)) + rep * floor(q.kl(p.detach()))


@dataclass(frozen=True)
class ModelConfig:
    """The shape of the world model and of its loss (V3, size 200m, unless said otherwise)."""

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


class WorldModel(nn.Module):
    """Encoder, RSSM, decoder, reward and continue predictors, and the loss that trains them."""

    def __init__(self, cfg: ModelConfig, obs: ObsSpec, action: int):
        super().__init__()
        self.cfg, style = cfg, cfg.style
        feat = cfg.deter + cfg.latent.size
        self.encoder = Encoder(obs, cfg.conv, cfg.units, cfg.vector_layers, style)
        cell = cfg.cell(cfg.deter, cfg.hidden, cfg.latent.size, action, style)
        self.rssm = RSSM(
            cell, cfg.latent, cfg.deter, cfg.hidden, self.encoder.size,
            cfg.prior_layers, cfg.post_layers, style,
        )  # fmt: skip
        self.decoder = Decoder(
            obs, cfg.conv, cfg.deter, cfg.latent.size, cfg.units, cfg.vector_layers, style
        )
        self.head, self.event = cfg.head(), BernoulliHead()
        outputs = self.head.num_params
        self.reward_net = readout(feat, cfg.units, cfg.reward_layers, outputs, style, 0.0)
        self.cont_net = readout(feat, cfg.units, cfg.cont_layers, 1, style)
        self.obs_heads = {k: PixelHead() if is_image(s) else SymlogHead() for k, s in obs.items()}

    def reward(self, feat: Tensor) -> Tensor:
        """E[r_t | s_t], the reward received on arriving at s_t.  [...,F] -> [...]."""
        return self.head.mean(self.reward_net(feat))

    def discount(self, feat: Tensor) -> Tensor:
        """d_t = γ · P(the episode goes on | s_t).  [...,F] -> [...]; γ is in the learned label."""
        return self.event.mean(self.cont_net(feat))

    def reconstruct(self, s: State) -> dict[str, Tensor]:
        """What the model believes it sees: images in [0, 1] [...,H,W,C], vectors [...,n]."""
        return {k: self.obs_heads[k].mean(x) for k, x in self.decoder(s.h, s.z).items()}

    def observe(self, batch, start: State | None) -> tuple[State, object]:
        """Posterior states [T,B,.] and their distributions q for a `replay.Sequence`."""
        start = start or self.rssm.initial(batch.reward.shape[1])
        return self.rssm.observe(self.encoder(batch.obs), batch.prev_action, batch.is_first, start)

    def loss(self, batch, start: State | None = None) -> tuple[dict[str, Tensor], State, dict]:
        """batch [T,B,...] -> losses {obs, reward, cont, kl} (each []), states [T,B,.], metrics.

        Reconstruction is summed over pixels and features, then averaged over [T,B]: the weight of
        the KL assumes it. The continue label is soft: γ·cont.
        """
        s, q = self.observe(batch, start)
        p, feat = self.rssm.prior(s.h), s.feat
        losses = {
            f"obs/{k}": self.obs_heads[k].loss(x, batch.obs[k]).mean()
            for k, x in self.decoder(s.h, s.z).items()
        }
        losses["reward"] = self.head.loss(self.reward_net(feat), batch.reward).mean()
        label = self.cfg.gamma * batch.cont.float()
        losses["cont"] = self.event.loss(self.cont_net(feat), label).mean()
        kl = self.cfg.kl
        losses["kl"] = kl_loss(q, p, kl.dyn, kl.rep, kl.free, kl.per_step)
        return losses, s, latent_metrics(q.detach(), p.detach())


def latent_metrics(q, p) -> dict[str, Tensor]:
    """What to watch: the unclipped KL and both entropies, in nats."""
    with torch.no_grad():
        return {
            "kl": q.kl(p).mean(),
            "entropy_posterior": q.entropy().mean(),
            "entropy_prior": p.entropy().mean(),
        }
