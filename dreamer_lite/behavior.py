"""Learning to act inside the dream: imagine, evaluate, improve (chapters 8 and 10).

s_0 -a_0-> s_1 -a_1-> s_2 ... s_H        s_0: every replayed state, detached
      r_1,d_1    r_2,d_2                 reward and discount on arriving
 v_0        v_1        v_2 ... v_H       critic
 R_0        R_1  ...                     λ-returns, targets of the critic at s_0..s_{H-1}
"""

import math
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dreamer_lite.distributed import gather_over_ranks
from dreamer_lite.distributions import BoundedNormal, TanhNormal, TruncNormal, choices
from dreamer_lite.guard import (
    between,
    flags,
    floats,
    real,
    refuse_unread,
    require,
    whole,
)
from dreamer_lite.networks import Style, readout
from dreamer_lite.returns import discount_weights, lambda_return
from dreamer_lite.rssm import State
from dreamer_lite.spaces import ActionSpec
from dreamer_lite.world_model import WorldModel


@dataclass(frozen=True)
class ActorConfig:
    """ρ: share of REINFORCE against dynamics backprop; η: entropy bonus.

    (V2's code calls 1 - ρ `actor_grad_mix`: it weighs the dynamics, the paper's ρ the other term.)
    ValueError for numbers out of range.
    """

    layers: int = 3  # hidden layers of the policy
    rho: float = 1.0  # ρ, share of REINFORCE; the rest is dynamics backprop
    eta: float = 3e-4  # η, weight of the policy's entropy
    normalize: bool = True  # divide advantages by max(1, S)
    unimix: float = 0.01  # share of the uniform distribution in discrete policies
    continuous: BoundedNormal | TanhNormal | TruncNormal = BoundedNormal()
    out_scale: float = 0.01  # of the first weights of the policy's output
    noise: float = 0.0  # V1: exploration while collecting, see `explore`
    greedy: bool = False  # V1, V2: evaluation takes the likeliest action

    def __post_init__(self) -> None:
        shares = {"rho": self.rho, "unimix": self.unimix}
        between(0, 1, "V1: rho = 0; V2: 1 or 0; V3: 1", **shares)
        others = {k: getattr(self, k) for k in ("eta", "out_scale", "noise")}
        between(0, math.inf, "0 switches it off", **others)
        whole(0, "0 is no hidden layer", layers=self.layers)
        drawn, remedy = callable(self.continuous), "V1 has TanhNormal(), V3 BoundedNormal()"
        require(drawn, "continuous", "what makes a distribution", self.continuous, remedy)


@dataclass(frozen=True)
class CriticConfig:
    """How values are kept steady: a slow copy, and what it is used for.

    ValueError for numbers out of range and for those that nothing would read.
    """

    layers: int = 3  # hidden layers of the critic
    slow_every: int = 1  # updates between two copies
    slow_mix: float = 0.02  # share of the new weights in each copy (1: hard copy)
    slow_target: bool = False  # V2: λ-returns and baseline use the slow copy
    slow_regularizer: float = 1.0  # V3: weight of the loss towards the slow copy's value
    replay: float = 0.3  # V3: weight of the value loss on replayed states
    out_scale: float = 0.0  # of the first weights of the critic's output

    def __post_init__(self) -> None:
        whole(1, "V2 copies every 100 updates, V3 every 1", slow_every=self.slow_every)
        whole(0, "0 is no hidden layer", layers=self.layers)
        between(0, 1, "V2: 1 (hard copy); V3: 0.02", slow_mix=self.slow_mix)
        others = {k: getattr(self, k) for k in ("slow_regularizer", "replay", "out_scale")}
        between(0, math.inf, "0 switches it off", **others)
        refuse_unread(self)

    @property
    def keeps_slow_copy(self) -> bool:
        """Whether anything reads the slow copy; V1 has none."""
        return self.slow_target or self.slow_regularizer > 0

    def unread(self) -> dict[str, str]:
        """Fields that have no meaning beside the others, and why."""
        why = "slow_target is False and slow_regularizer 0"
        return {} if self.keeps_slow_copy else {"slow_every": why, "slow_mix": why}


@dataclass(frozen=True)
class BehaviorConfig:
    """Actor, critic, and the dreams they learn from.  ValueError for numbers out of range."""

    actor: ActorConfig = ActorConfig()
    critic: CriticConfig = CriticConfig()
    horizon: int = 15  # H, imagined steps
    lam: float = 0.95  # λ: 0 trusts the critic after one step, 1 only at the horizon

    def __post_init__(self) -> None:
        whole(1, "the papers have 15", horizon=self.horizon)
        between(0, 1, "the papers have 0.95", lam=self.lam)


# --- the losses ---------------------------------------------------------------------------------


def actor_loss(ret, base, logp, entropy, weight, *, rho: float, eta: float, scale=1.0) -> Tensor:
    """-mean w [ρ ln π(a) sg((R - v)/S) + (1-ρ) R/S + η H(π)].  All [H,N] -> [].

    V1: ρ = 0, η = 0.   V2: ρ = 1 (discrete) or 0 (continuous).   V3: ρ = 1, S from `ReturnScale`.
    Terms of zero weight are not computed and may be None: V1 needs no log-probability. Units of the
    result: reward / S. Source: authors' code V1 `dreamer.py:179-193`, V2 `agent.py:252-291`, V3
    `agent.py:405-415`. ValueError for other shapes, NaN, and a missing term.
    """
    refuse_terms(ret, rho, eta, scale, base=base, logp=logp, entropy=entropy, weight=weight)
    objective = torch.zeros_like(weight)
    if rho:
        objective = objective + rho * ((ret - base).detach() / scale) * logp
    if rho < 1:
        objective = objective + (1 - rho) * ret / scale
    if eta:
        objective = objective + eta * entropy
    return -(weight * objective).mean()


def refuse_terms(ret: Tensor, rho: float, eta: float, scale, **terms: Tensor | None) -> None:
    """Raises ValueError for terms of another shape than the returns [H,N], NaN, or none at all."""
    floats("give float32 [H,N]", ret=ret)
    between(0, 1, "1: REINFORCE, 0: dynamics backprop", rho=rho)
    between(0, math.inf, "V3 has 3e-4", eta=eta)
    between(1e-8, math.inf, "V3 has max(1, S), V1 and V2 have 1", scale=scale)
    idle = {"base": not rho, "logp": not rho, "entropy": not eta}
    for name, x in terms.items():
        if x is None and idle.get(name):
            continue
        remedy = "one number for each step"
        if getattr(x, "shape", None) != ret.shape:
            require(False, name, f"{list(ret.shape)} like ret", x, remedy)
        floats(remedy, **{name: x})


def critic_loss(head, params, target, weight, slow_value=None, slow_regularizer=0.0) -> Tensor:
    """mean w [loss(v, sg R) + β loss(v, sg v_slow)].  params [...,P], the rest [...] -> [].

    The loss is the head's: squared error (V1, V2) or twohot cross-entropy (V3). Units: nats.
    Source: authors' code V1 `dreamer.py:195-199`, V2 `agent.py:293-305`, V3 `agent.py:417-422`.
    ValueError for other shapes, integers, NaN, and a slow value that is missing.
    """
    refuse_targets(target, weight, slow_value, slow_regularizer)
    loss = head.loss(params, target.detach())
    if slow_regularizer:
        loss = loss + slow_regularizer * head.loss(params, slow_value.detach())
    return (weight * loss).mean()


def refuse_targets(target: Tensor, weight: Tensor, slow_value, slow_regularizer: float) -> None:
    """Raises ValueError unless targets, weights and slow values (β > 0) are numbers, all [...]."""
    between(0, math.inf, "V3 has 1, V1 and V2 have 0", slow_regularizer=slow_regularizer)
    floats("give one return for each state", target=target)
    floats("one weight for each target", tuple(target.shape), weight=weight)
    if slow_regularizer:
        floats("what the slow copy says of each state", tuple(target.shape), slow_value=slow_value)


def replay_return(reward, cont, is_first, bootstrap, gamma: float, lam: float):
    """λ-returns along real experience, and which of its steps count.  All [T,B] -> [T-1,B] twice.

        Rₜ = rₜ₊₁ + γ cₜ₊₁ [(1-λ lₜ₊₁) bₜ₊₁ + λ lₜ₊₁ Rₜ₊₁],   lₜ = 0 at the last row of an episode

    bootstrap b_t: the imagined return of replayed state t. The last row of the chunk only serves
    as bootstrap; steps from an episode's last row into the next episode have weight 0. Units:
    reward. Source: authors' code V3 `agent.py:449-490` (val unused). ValueError for flags that are
    not bool, other shapes, NaN, and fewer than two rows.
    """
    refuse_chunk(reward, bootstrap, gamma, lam, cont=cont, is_first=is_first)
    last = is_first.roll(-1, 0)  # row t is the last of its episode iff row t+1 is a first one
    last[-1] = False
    trace = lam * (~last[1:]).float()
    ret = lambda_return(reward[1:], gamma * cont[1:].float(), bootstrap[1:], trace)
    return ret, (~last[:-1]).float()


def refuse_chunk(reward: Tensor, bootstrap: Tensor, gamma: float, lam: float, **marks) -> None:
    """Raises ValueError for a chunk of one row, NaN, and flags that are not bool [T,B]."""
    remedy = "rows have time first, [T,B], like reward"
    floats(remedy, reward=reward)
    many = reward.dim() > 0 and len(reward) > 1
    require(many, "reward", "[T,B] with T >= 2", reward, "the last row is a bootstrap")
    floats(remedy, tuple(reward.shape), bootstrap=bootstrap)
    flags(remedy, tuple(reward.shape), **marks)
    between(0, 1, "V3 has 0.997 and 0.95", gamma=gamma, lam=lam)


class ReturnScale(nn.Module):
    """S = EMA of the 95th minus EMA of the 5th percentile of the returns in a batch.

    Starts at 0, rate 0.01, not debiased: a range of 10 reads .49 after five updates. Dividing by
    max(1, S) shrinks large returns and never magnifies small ones. Units: those of the returns.
    Source: V3v2; `utils.Normalize`. ValueError for percentiles out of order, and returns with NaN.
    """

    def __init__(self, rate=0.01, low=0.05, high=0.95, limit=1.0):
        super().__init__()
        between(0, 1, "V3 has 0.01, 0.05, 0.95", rate=rate, low=low, high=high)
        between(low, 1, "V3 has low 0.05, high 0.95", high=high)
        between(0, math.inf, "V3 has 1", limit=limit)
        self.rate, self.limit = rate, limit
        self.register_buffer("quantiles", torch.tensor([low, high]), persistent=False)
        self.register_buffer("range", torch.zeros(2))

    def update(self, ret: Tensor) -> Tensor:
        """Reads the batch of returns, any shape, then answers max(limit, S).  []."""
        floats("give the returns of a dream", ret=ret)
        everyone = gather_over_ranks(ret.detach().float().flatten())
        now = torch.quantile(everyone, self.quantiles)
        self.range.lerp_(now, self.rate)
        return self.value()

    def value(self) -> Tensor:
        """max(limit, S) as it stands.  []."""
        low, high = self.range
        return (high - low).clamp(min=self.limit)


class SlowCopy:
    """Keeps `slow` near `fast`: every `every` updates, slow ← mix·fast + (1-mix)·slow.

    Source: V2 `agent.py:307-334`, V3 `agent.py:142`. ValueError for numbers out of range.
    """

    def __init__(self, fast: nn.Module, every: int, mix: float):
        whole(1, "updates between two copies", every=every)
        between(0, 1, "1 is a hard copy", mix=mix)
        self.fast, self.every, self.mix = fast, every, mix
        self.module = deepcopy(fast).requires_grad_(False)

    @torch.no_grad()
    def update(self, count: int) -> None:
        """Call after the optimizer step; count = updates done before this one."""
        whole(0, "give `Dreamer.updates`", count=count)
        if count % self.every == 0:
            slow, fast = list(self.module.parameters()), list(self.fast.parameters())
            torch._foreach_lerp_(slow, fast, self.mix)


# --- actor, critic, dream -----------------------------------------------------------------------


class Policy(nn.Module):
    """π(a | s): features [...,F] -> a distribution over flat actions [...,A].

    ValueError for features of another width; a policy stands in the loop of a dream, so NaN is
    found in its answer.
    """

    def __init__(self, cfg: ActorConfig, feat: int, action: ActionSpec, units: int, style: Style):
        super().__init__()
        self.cfg, self.action, self.feat = cfg, action, feat
        outputs = 2 * action.continuous or sum(action.discrete)
        self.net = readout(feat, units, cfg.layers, outputs, style, cfg.out_scale)

    def forward(self, feat: Tensor):
        """Features [...,F] -> a distribution over actions [...,A]."""
        real("give `state.feat`", (..., self.feat), feat=feat)
        params = self.net(feat)
        if self.action.continuous:
            return self.cfg.continuous(params)
        return choices(params, self.action.discrete, self.cfg.unimix)


def explore(action: Tensor, spec: ActionSpec, noise: float) -> Tensor:
    """V1 while it collects: N(0, noise²) is added to numbers, which stay in [-1, 1].

    With probability `noise` a discrete action is replaced by a random one (ε-greedy).  [N,A] ->
    [N,A]. Source: V1 authors' code `dreamer.py:246-268`, amount 0.3. ValueError for actions of
    another width, integers and NaN.
    """
    between(0, math.inf, "V1 has 0.3, V2 and V3 0", noise=noise)
    floats("one flat action for each stream", ("N", spec.size), action=action)
    if not noise:
        return action
    if spec.continuous:
        return (action + noise * torch.randn_like(action)).clamp(-1, 1)
    uniform = choices(torch.zeros_like(action), spec.discrete, 0.0)
    return torch.where(torch.rand(len(action), 1) < noise, uniform.sample(), action)


class Dream(NamedTuple):
    """Imagined experience: the states s_0..s_H, and what is read off them."""

    states: State  # [H+1,N,.]
    actions: Tensor  # [H,N,A]
    reward: Tensor  # [H,N]   r_1..r_H
    discount: Tensor  # [H,N] d_1..d_H
    value: Tensor  # [H+1,N]  v_0..v_H
    ret: Tensor  # [H,N]      R_0..R_{H-1}
    weight: Tensor  # [H,N]   w_0..w_{H-1}


class Behavior(nn.Module):
    """Actor and critic, and the dreams they learn from.

    ValueError for features of another width or with NaN.
    """

    def __init__(self, cfg: BehaviorConfig, model: WorldModel, action: ActionSpec):
        super().__init__()
        m = model.cfg
        feat = m.deter + m.latent.size
        self.cfg, self.deter, self.feat, self.head = cfg, m.deter, feat, m.head()
        self.policy = Policy(cfg.actor, feat, action, m.units, m.style)
        outputs = self.head.num_params
        critic = cfg.critic
        self.critic = readout(feat, m.units, critic.layers, outputs, m.style, critic.out_scale)
        self.slow = self.slow_critic = None
        if critic.keeps_slow_copy:
            self.slow = SlowCopy(self.critic, critic.slow_every, critic.slow_mix)
            self.slow_critic = self.slow.module
        self.scale = ReturnScale()

    def value(self, feat: Tensor) -> Tensor:
        """v(s), the λ-return expected from here on, without the reward of s.  [...,F] -> [...]."""
        self.check(feat)
        return self.head.mean(self.critic(feat))

    def slow_value(self, feat: Tensor) -> Tensor:
        """The slow copy's v(s).  [...,F] -> [...].  ValueError where none is kept (V1)."""
        self.check(feat)
        kept = self.slow_critic is not None
        require(kept, "slow_target", "True, or slow_regularizer above 0", "neither", "ask `value`")
        return self.head.mean(self.slow_critic(feat))

    def check(self, feat: Tensor) -> None:
        """Refuses features that are not [...,F], or hold NaN."""
        floats("give `state.feat`", (..., self.feat), feat=feat)

    def dream(self, model: WorldModel, start: State, cont: Tensor) -> Dream:
        """From start s_0 [N,.] with true continue flags [N]: H imagined steps and their returns.

        Gradients are kept only if the actor learns through the dynamics (ρ < 1).
        """
        with torch.no_grad() if self.cfg.actor.rho == 1 else nullcontext():
            states, actions = model.rssm.imagine(self.policy, start, self.cfg.horizon)
            feat = states.feat
            reward, discount = model.reward(feat[1:]), model.discount(feat[1:])
            value = (self.slow_value if self.cfg.critic.slow_target else self.value)(feat)
            ret = lambda_return(reward, discount, value[1:], self.cfg.lam)
        weight = discount_weights(cont, discount)
        return Dream(states, actions, reward, discount, value, ret, weight)

    def losses(self, dream: Dream) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """{actor, critic} and what to watch, each [].  Detached states: the model is not moved.

        Units: reward / S of the actor's, nats of the critic's.
        """
        actor, critic = self.cfg.actor, self.cfg.critic
        feat = dream.states.feat[:-1].detach()
        pi = self.policy(feat)
        with torch.set_grad_enabled(actor.eta > 0):
            entropy = pi.entropy()
        logp = pi.log_prob(dream.actions.detach()) if actor.rho else None
        scale = self.scale.update(dream.ret) if actor.normalize else 1.0
        losses = {
            "actor": actor_loss(
                dream.ret, dream.value[:-1], logp, entropy, dream.weight,
                rho=actor.rho, eta=actor.eta, scale=scale,
            ),
            "critic": self.critic_loss(feat, dream.ret, dream.weight, critic.slow_regularizer),
        }  # fmt: skip
        metrics = {
            "entropy_policy": entropy.detach().mean(),
            "return_imagined": dream.ret.detach().mean(),
            "return_scale": torch.as_tensor(scale).detach().clone(),
            "reward_imagined": dream.reward.detach().mean(),
            "value": dream.value.detach().mean(),
        }
        return losses, metrics

    def critic_loss(self, feat: Tensor, target: Tensor, weight: Tensor, slow: float) -> Tensor:
        """`critic_loss` of the critic at features [H,N,F].  target, weight [H,N] -> [], in nats."""
        real("give `state.feat`, one for each target", (*target.shape, self.feat), feat=feat)
        slow_value = self.head.mean(self.slow_critic(feat)).detach() if slow else None
        return critic_loss(self.head, self.critic(feat), target, weight, slow_value, slow)

    def replay_loss(self, states: State, batch, bootstrap: Tensor, gamma: float) -> Tensor:
        """The value loss on replayed states; here the gradient *does* enter the world model.

        states and batch [T,B,.]; bootstrap [T,B]: the imagined return of each replayed state.
        Units: nats. Source: authors' code V3 `agent.py:449-490`.
        """
        lead, remedy = batch.reward.shape, "give the states of the rows, time first, like reward"
        floats(remedy, (*lead, self.deter), **{"states.h": states.h})
        floats(remedy, (*lead, self.feat - self.deter), **{"states.z": states.z})
        ret, weight = replay_return(
            batch.reward, batch.cont, batch.is_first, bootstrap.detach(), gamma, self.cfg.lam
        )
        return self.critic_loss(states.feat[:-1], ret, weight, self.cfg.critic.slow_regularizer)
