"""The recurrent state-space model: what the agent remembers and what it guesses (chapter 4).

    h_t = f(h_{t-1}, z_{t-1}, a_{t-1})     recurrent model         deterministic memory
    z_t ~ q(z_t | h_t, x_t)                representation model    "posterior": has seen x_t
    z_t ~ p(z_t | h_t)                     transition predictor    "prior": has not

Observing follows the first two lines, dreaming the first and the third.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dreamer_lite.guard import flags, floats, real, require, rows, whole
from dreamer_lite.networks import Style, readout


class State(NamedTuple):
    """s_t = (h_t, z_t): all the agent knows.  h [...,D], z [...,Z] (flat one-hots or numbers)."""

    h: Tensor
    z: Tensor

    @property
    def feat(self) -> Tensor:
        """[h; z], what every head reads.  [...,D+Z]."""
        return torch.cat([self.h, self.z], -1)

    def map(self, f: Callable[[Tensor], Tensor]) -> "State":
        """f applied to both parts, h [...,D] and z [...,Z]."""
        return State(f(self.h), f(self.z))


def stack(states: list[State]) -> State:
    """A list of states over time -> one State with time first.  T × [B,.] -> [T,B,.].

    ValueError for an empty list.
    """
    require(bool(states), "states", "at least one State", "none", "what should be stacked?")
    return State(torch.stack([s.h for s in states]), torch.stack([s.z for s in states]))


class RSSM(nn.Module):
    """cell (h, z, a) -> h;  latent: parameters -> distribution;  E tokens in.

    Time first in sequences [T,B,.], no time axis in steps [B,.]. Source: authors' code V1
    `models.py:10-81`, V2 `common/nets.py:12-180`, V3 `rssm.py:16-176`. ValueError for what does not
    fit together; `observe`, `imagine` and `follow` look for NaN as well, the steps inside of their
    loops at shapes only.
    """

    def __init__(self, cell, latent, deter, hidden, embed, prior_layers, post_layers, style: Style):
        super().__init__()
        self.cell, self.latent, self.deter, self.embed = cell, latent, deter, embed
        self.action = getattr(cell, "action", "A")  # width A, if the cell says it
        self.prior_net = readout(deter, hidden, prior_layers, latent.num_params, style)
        self.post_net = readout(deter + embed, hidden, post_layers, latent.num_params, style)

    def initial(self, batch: int) -> State:
        """The empty memory s_{-1} = 0.  [B,.]."""
        whole(1, "one memory for each sequence or stream", batch=batch)
        zeros = self.post_net[-1].weight.new_zeros
        return State(zeros(batch, self.deter), zeros(batch, self.latent.size))

    def recur(self, s: State, a: Tensor) -> Tensor:
        """h_t = f(h_{t-1}, z_{t-1}, a_{t-1}).  [B,.], [B,A] -> [B,D].

        Source: V1, V2 recurrent model; V3v2 sequence model.
        """
        return self.cell(s.h, s.z, a)

    def prior(self, h: Tensor):
        """p(z_t | h_t).  [...,D] -> distribution over [...,Z].

        Source: V1 transition model, V2 transition predictor, V3v2 dynamics predictor.
        """
        real("give the memory of a state, `s.h`", (..., self.deter), h=h)
        return self.latent(self.prior_net(h))

    def post_params(self, h: Tensor, e: Tensor) -> Tensor:
        """Parameters of q(z_t | h_t, x_t).  [...,D], [...,E] -> [...,P].

        Source: V1, V2 representation model; V3v2 encoder.
        """
        real("give the tokens of the rows of h", (*h.shape[:-1], self.embed), e=e)
        real("give the memory of a state, `s.h`", (*e.shape[:-1], self.deter), h=h)
        return self.post_net(torch.cat([h, e], -1))

    def step(self, s: State, a: Tensor, e: Tensor, first: Tensor) -> tuple[State, Tensor]:
        """One observed tick: forget at the start of an episode, remember, look.

        s [B,.], a [B,A] = the action that led here, e [B,E], first [B] -> state [B,.], params of q.
        A new episode forgets h, z *and* the previous action. Source: authors' code V2
        `common/nets.py:91-95`, V3 `rssm.py:76-79`.
        """
        self.check_step(s, a, e, first)
        keep = ~first[:, None]
        h = self.recur(s.map(lambda x: x * keep), a * keep)
        params = self.post_params(h, e)
        return State(h, self.latent(params).sample()), params

    def observe(self, embed: Tensor, prev_action: Tensor, is_first: Tensor, s: State):
        """Filters a sequence: embed [T,B,E], prev_action [T,B,A], is_first [T,B], s_{-1} [B,.].

        Returns states [T,B,.] and the posteriors q over [T,B]. The prior is not needed inside the
        loop: `prior(states.h)` evaluates it for all t at once. Raises ValueError for flags that are
        not bool [T,B], batch-major tensors, and states of another size.
        """
        self.check(embed, prev_action, is_first, s)
        states, params = [], []
        for e, a, first in zip(embed, prev_action, is_first, strict=True):
            s, q = self.step(s, a, e, first)
            states.append(s)
            params.append(q)
        return stack(states), self.latent(torch.stack(params))

    def imagine(self, policy: Callable, s: State, horizon: int) -> tuple[State, Tensor]:
        """Dreams: no observation, the prior guesses z.  policy(feat) -> distribution over actions.

        s [N,.] -> states s_0..s_H [H+1,N,.] and actions a_0..a_{H-1} [H,N,A]. The policy reads
        detached features (V1-V3), so its gradient flows through actions and dynamics only. Source:
        V1, V2 and V3v2, imagination.
        """
        self.check_start(s, horizon)
        states, actions = [s], []
        for _ in range(horizon):
            a = policy(s.feat.detach()).sample()
            h = self.recur(s, a)
            s = State(h, self.prior(h).sample())
            states.append(s)
            actions.append(a)
        return stack(states), torch.stack(actions)

    def follow(self, s: State, actions: Tensor) -> State:
        """Open loop under given actions: what the model believes they lead to.

        s [N,.], actions a_0..a_{H-1} [H,N,A] -> s_1..s_H [H,N,.].
        """
        self.check_start(s)
        remedy = "actions have time first, a row for each state s"
        floats(remedy, ("H", len(s.h), self.action), actions=actions)
        states = []
        for a in actions:
            h = self.recur(s, a)
            s = State(h, self.prior(h).sample())
            states.append(s)
        return stack(states)

    def check(self, embed: Tensor, prev_action: Tensor, is_first: Tensor, s: State) -> None:
        """Refuses sequences [T,B,.] that do not fit together, have the batch first, or hold NaN."""
        floats("every tensor has time first, [T,B]", ("T", "B", self.embed), embed=embed)
        time, batch = embed.shape[:2]
        remedy = "every tensor has time first, [T,B], like embed"
        flags(remedy, (time, batch), is_first=is_first)
        floats(remedy, (time, batch, self.action), prev_action=prev_action)
        self.check_start(s)
        remedy = "start with the state before the first row of embed, `initial(B)`"
        rows(remedy, batch, **{"s.h": (s.h, self.deter), "s.z": (s.z, self.latent.size)})

    def check_start(self, s: State, horizon: int = 1) -> None:
        """Refuses what is no memory [N,.] to start from, and a dream of no step."""
        whole(1, "the papers dream 15 steps", horizon=horizon)
        remedy = "a start has no time axis, [N,.]; `initial(N)` is a memory of nothing"
        floats(remedy, ("N", self.deter), **{"s.h": s.h})
        floats(remedy, (len(s.h), self.latent.size), **{"s.z": s.z})

    def check_step(self, s: State, a: Tensor, e: Tensor, first: Tensor) -> None:
        """Refuses rows [B,.] that do not fit together; looks at no number, for it is in a loop."""
        remedy, batch = "a step has no time axis, and a row for each state s", len(s.h)
        if first.dtype != torch.bool or first.shape != (batch,):
            flags(remedy, (batch,), first=first)
        h, z = (s.h, self.deter), (s.z, self.latent.size)
        rows(remedy, batch, h=h, z=z, a=(a, self.action), e=(e, self.embed))
