"""Dreamer: one object that acts, and learns from what it lived through (chapter 12).

act:     row, state -> action, state
update:  a replayed batch -> world-model loss -> dreams -> actor and critic loss -> one step
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from dreamer_lite.behavior import Behavior, explore
from dreamer_lite.distributed import average
from dreamer_lite.guard import flags, floats, instances, require, shown
from dreamer_lite.optim import Optimizer
from dreamer_lite.presets import Config
from dreamer_lite.rssm import State
from dreamer_lite.spaces import ActionSpec, ObsSpec
from dreamer_lite.world_model import WorldModel


class Dreamer(nn.Module):
    """World model + behavior + optimizers.  Built from a `Config` and the shapes of a task.

    `act` lives row by row [N,.], `update` learns from windows [T,B,.] (time first). ValueError for
    rows and batches of other shapes, and for tasks without observations or actions.
    """

    def __init__(self, cfg: Config, obs: ObsSpec, action: ActionSpec):
        super().__init__()
        instances(Config, "presets.V1, V2, V3 are some", cfg=cfg)
        instances(ActionSpec, "see envs.action_spec", action=action)
        self.cfg, self.obs, self.action = cfg, obs, action
        self.world_model = WorldModel(cfg.model, obs, action.size)
        self.behavior = Behavior(cfg.behavior, self.world_model, action)
        self.updates = 0
        self.build_optimizers()

    def build_optimizers(self) -> None:
        """One optimizer per rule; parts without a rule of their own share the model's (V3: all)."""
        parts = {
            "model": dict(self.world_model.named_parameters(prefix="world_model")),
            "actor": dict(self.behavior.policy.named_parameters(prefix="behavior.policy")),
            "critic": dict(self.behavior.critic.named_parameters(prefix="behavior.critic")),
        }
        rules, owners = self.cfg.optim, {}
        through = self.cfg.behavior.actor.rho < 1  # the model, which that gradient must not move
        for part, params in parts.items():
            alone = getattr(rules, part) or (part == "actor" and through)
            owners.setdefault(part if alone else "model", {}).update(params)
        self.optimizers = {
            k: Optimizer(p, getattr(rules, k) or rules.model) for k, p in owners.items()
        }

    def initial(self, streams: int) -> State:
        """The memory before the first row.  [N,.]."""
        return self.world_model.rssm.initial(streams)

    @torch.no_grad()
    def act(self, row, state: State, mode: bool = False) -> tuple[np.ndarray, State]:
        """One tick of N streams: `envs.Row` and the last state -> actions [N,A], new state [N,.].

        The posterior is sampled also when acting, as in the papers. mode: the most likely action
        (how V1 and V2 are evaluated); V3 always samples.
        """
        obs = {name: torch.as_tensor(x) for name, x in row.obs.items()}
        prev_action, is_first = torch.as_tensor(row.prev_action), torch.as_tensor(row.is_first)
        self.refuse_row(obs, prev_action, is_first, state)
        device = state.h.device
        obs = {name: x.to(device) for name, x in obs.items()}
        action, state = self.decide(obs, prev_action.to(device), is_first.to(device), state, mode)
        return action.cpu().numpy(), state

    def decide(
        self,
        obs: dict[str, Tensor],
        prev_action: Tensor,
        is_first: Tensor,
        state: State,
        mode: bool,
    ) -> tuple[Tensor, State]:
        """`act` between tensors: filter, then ask the policy.  [N,...] -> actions [N,A], [N,.]."""
        embed = self.world_model.encoder(obs)
        state, _ = self.world_model.rssm.step(state, prev_action, embed, is_first)
        policy = self.behavior.policy(state.feat)
        return policy.mode() if mode else policy.sample(), state

    def refuse_row(self, obs, prev_action: Tensor, is_first: Tensor, state: State) -> None:
        """Raises ValueError for what is no row [N,...] of this task; `decide` looks at the rest."""
        streams = len(state.h)
        remedy = "give an `envs.Row` of as many streams as state.h; begin with `initial(N)`"
        flags(remedy, (streams,), is_first=is_first)
        floats(remedy, (streams, self.action.size), prev_action=prev_action)
        for name, shape in self.obs.items():
            if name not in obs or obs[name].shape != (streams, *shape):
                got = shown(obs.get(name, "nothing"))
                require(False, f"obs[{name!r}]", f"{[streams, *shape]}", got, remedy)

    def explore(self, action: np.ndarray) -> np.ndarray:
        """The action as it is carried out while collecting: V1 adds noise.  [N,A] -> [N,A]."""
        noise = self.cfg.behavior.actor.noise
        return explore(torch.as_tensor(action), self.action, noise).numpy() if noise else action

    def losses(self, batch, start: State | None) -> tuple[dict[str, Tensor], State, dict]:
        """Every loss of one update.  batch [T,B,...], start [B,.].

        No parameter moves, but `behavior.scale` has counted this batch: call it once an update.

        Units: nats; those of the actor's loss are reward / S.
        """
        losses, states, metrics = self.world_model.loss(batch, start)
        dream = self.behavior.dream(
            self.world_model,
            states.map(lambda x: x.detach().flatten(0, 1)),  # every replayed state starts a dream
            batch.cont.flatten(),
        )
        behavior, watched = self.behavior.losses(dream)
        losses |= behavior
        if weight := self.cfg.behavior.critic.replay:
            bootstrap = dream.ret[0].unflatten(0, batch.reward.shape)
            batch = batch._replace(reward=self.cfg.model.squash(batch.reward))
            losses["replay_critic"] = weight * self.behavior.replay_loss(
                states, batch, bootstrap, self.cfg.model.gamma
            )
        return losses, states.map(Tensor.detach), metrics | watched

    def update(self, batch, start: State | None = None) -> tuple[State, dict[str, Tensor]]:
        """One gradient step on a `replay.Sequence`; returns fresh states [T,B,.] and metrics []."""
        grads, states, metrics = self.differentiate(batch, start)
        grads = average(grads)
        for part, optimizer in self.optimizers.items():
            metrics[f"grad_norm/{part}"] = optimizer.step(grads[part])
        if self.behavior.slow:
            self.behavior.slow.update(self.updates)
        self.updates += 1
        return states, metrics

    def differentiate(self, batch, start: State | None) -> tuple[dict, State, dict[str, Tensor]]:
        """All that an update computes before it moves: {part: gradients}, states, metrics []."""
        losses, states, metrics = self.losses(batch, start)
        metrics |= {f"loss/{k}": x.detach() for k, x in losses.items()}
        return self.gradients(losses), states, metrics

    def gradients(self, losses: Mapping[str, Tensor]) -> dict[str, list[Tensor]]:
        """Each optimizer's gradient of the losses it answers for.  {name: []} -> {part: gradients}.

        With several optimizers (V1, V2) the actor's loss must not move the model although its
        gradient flows through it: every group is differentiated on its own.
        """
        totals = {part: [] for part in self.optimizers}
        for name, loss in losses.items():
            part = name if name in totals else "model"
            scale = self.cfg.model.obs_scale if name.startswith("obs/") else 1.0
            totals[part].append(scale * loss)
            if name == "replay_critic" and "critic" in totals:  # it teaches both
                totals["critic"].append(loss)
        last = list(totals)[-1]
        return {
            part: self.optimizers[part].gradients(sum(parts), retain=part != last)
            for part, parts in totals.items()
        }
