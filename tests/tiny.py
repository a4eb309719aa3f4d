"""Agents of all three papers, small enough for tests, and rows for them to learn from."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamer_lite.agent import Dreamer
from dreamer_lite.distributions import Categorical, Gaussian
from dreamer_lite.presets import V1, V2, V2_DMC, V3, Config, sized
from dreamer_lite.replay import Sequence
from dreamer_lite.spaces import ActionSpec

OBS = {"image": (16, 16, 3), "vector": (5,)}
ONE_CHOICE = ActionSpec(discrete=(4,))
TWO_CHOICES = ActionSpec(discrete=(3, 2))
NUMBERS = ActionSpec(continuous=2)
ACTIONS = {"one choice": ONE_CHOICE, "two choices": TWO_CHOICES, "numbers": NUMBERS}


def config(horizon: int = 4) -> Config:
    cfg = sized(V3, "tiny")
    return replace(cfg, behavior=replace(cfg.behavior, horizon=horizon))


def small(cfg: Config, horizon: int = 4) -> Config:
    """The formulas of `cfg` in tiny networks."""
    latent = Gaussian(8) if isinstance(cfg.model.latent, Gaussian) else Categorical(8, 4)
    model = replace(cfg.model, deter=64, hidden=16, units=16, latent=latent)
    model = replace(model, conv=replace(model.conv, depth=4))
    return replace(cfg, model=model, behavior=replace(cfg.behavior, horizon=horizon))


PAPERS = {"V1": small(V1), "V2": small(V2), "V2 control": small(V2_DMC), "V3": config()}


def agent(action: ActionSpec = ONE_CHOICE, obs=None, cfg: Config | None = None) -> Dreamer:
    """An agent whose zero layers are awake, so that gradients flow through them."""
    made = Dreamer(cfg or config(), obs or OBS, action)
    for p in made.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.1)
    if made.behavior.slow:
        made.behavior.slow_critic.load_state_dict(made.behavior.critic.state_dict())
    return made


def actions(spec: ActionSpec, *lead: int) -> Tensor:
    """Random actions [*lead,A]: one-hots per choice, or numbers, some beyond ±1."""
    if spec.continuous:
        return torch.randn(*lead, spec.continuous)
    choices = [F.one_hot(torch.randint(n, lead), n).float() for n in spec.discrete]
    return torch.cat(choices, -1)


def batch(action: ActionSpec = ONE_CHOICE, obs=None, time: int = 6, size: int = 3) -> Sequence:
    """Random rows [T,B,.]; stream 0 ends in a terminal and starts anew in the middle."""
    shapes = {k: (time, size, *shape) for k, shape in (obs or OBS).items()}
    seen = {
        k: torch.randint(256, s, dtype=torch.uint8) if len(s) == 5 else 2 * torch.randn(s)
        for k, s in shapes.items()
    }
    first, cont = torch.zeros(time, size, dtype=torch.bool), torch.ones(time, size).bool()
    first[0, -1] = first[time // 2, 0] = True
    cont[time // 2 - 1, 0] = False
    reward = torch.randn(time, size) * ~first
    return Sequence(seen, actions(action, time, size) * ~first[..., None], reward, cont, first)
