"""Which loss moves which part: gradients by autograd against the table, cell by cell.

Columns of a row: encoder, core, prior, posterior, decoder, reward, continue, actor, critic, slow.
"""

from dataclasses import replace
from functools import cache, partial

import pytest
import tiny
import torch

from dreamer_lite.world_model import kl_loss

PARTS = "encoder core prior posterior decoder reward continue actor critic slow".split()

# 1: the loss has a gradient there; 0: it is exactly zero; -: this version has no such part.
MODEL = {
    "reconstruction": "1101100000",
    "dyn":            "1111000000",  # encoder and posterior through earlier steps only
    "rep":            "1101000000",
    "reward":         "1101010000",
    "continue":       "1101001000",
    "critic":         "0000000010",
}  # fmt: skip
REINFORCE = {"actor": "0000000100"}
PATHWISE = {"actor": "0110011110"}  # flows through the model, which it does not move, see below
PATHWISE_SLOW = {"actor": "0110011101"}  # the value at the end of the path is the slow critic's
REPLAY = {"replay critic": "1101000010"}


def without(routes: dict[str, str], *parts: str) -> dict[str, str]:
    """The table of an agent that lacks these parts."""
    gone = {PARTS.index(p) for p in parts}
    kept = {k: row for k, row in routes.items() if k not in parts}
    return {k: "".join("-" if i in gone else x for i, x in enumerate(r)) for k, r in kept.items()}


def with_continue(cfg):
    return replace(cfg, model=replace(cfg.model, cont_scale=10.0))


V1, V2, V2_CONTROL, V3 = tiny.PAPERS.values()
TABLES = {  # settings, actions, what moves what
    "V1": (V1, tiny.NUMBERS, without(MODEL | PATHWISE, "continue", "slow")),
    "V1 with continue": (with_continue(V1), tiny.NUMBERS, without(MODEL | PATHWISE, "slow")),
    "V1 choices": (V1, tiny.ONE_CHOICE, without(MODEL | PATHWISE, "continue", "slow")),
    "V2": (V2, tiny.ONE_CHOICE, MODEL | REINFORCE),
    "V2 control": (V2_CONTROL, tiny.NUMBERS, without(MODEL | PATHWISE_SLOW, "continue")),
    "V3 choices": (V3, tiny.ONE_CHOICE, MODEL | REINFORCE | REPLAY),
    "V3 numbers": (V3, tiny.NUMBERS, MODEL | REINFORCE | REPLAY),
}
CELLS = [
    pytest.param(name, loss, part, mark, id=f"{name}, {loss} -> {part}")
    for name, (_, _, routes) in TABLES.items()
    for loss, row in routes.items()
    for part, mark in zip(PARTS, row, strict=True)
]


def parts_of(agent):
    """The modules behind the columns; None where there is none."""
    model, behavior = agent.world_model, agent.behavior
    if behavior.slow:
        behavior.slow_critic.requires_grad_()  # would be moved if something let it
    return {
        "encoder": model.encoder,
        "core": model.rssm.cell,
        "prior": model.rssm.prior_net,
        "posterior": model.rssm.post_net,
        "decoder": model.decoder,
        "reward": model.reward_net,
        "continue": model.cont_net,
        "actor": behavior.policy,
        "critic": behavior.critic,
        "slow": behavior.slow_critic,
    }


def all_losses(agent, batch):
    """Every row of the table as a number, KL split in two and without its floor."""
    start = agent.initial(batch.reward.shape[1])
    losses, _, _ = agent.losses(batch, start)
    states, q = agent.world_model.observe(batch, start)
    kl = partial(kl_loss, q, agent.world_model.rssm.prior(states.h), free=0.0, per_step=True)
    names = {"reward": "reward", "cont": "continue", "actor": "actor", "critic": "critic"}
    names |= {"replay_critic": "replay critic"}
    return {
        "reconstruction": losses["obs/image"] + losses["obs/vector"],
        "dyn": kl(dyn=1.0, rep=0.0),
        "rep": kl(dyn=0.0, rep=1.0),
        **{names[k]: loss for k, loss in losses.items() if k in names},
    }


def gradient_norms(agent, batch):
    """{loss: {part: ‖gradient‖}}."""
    parts = {k: part for k, part in parts_of(agent).items() if part is not None}
    weights = {k: list(part.parameters()) for k, part in parts.items()}
    flat = [p for ps in weights.values() for p in ps]
    norms = {}
    for name, loss in all_losses(agent, batch).items():
        found = torch.autograd.grad(loss, flat, retain_graph=True, materialize_grads=True)
        of = dict(zip(flat, found, strict=True))
        norms[name] = {k: sum(of[p].norm().item() for p in ps) for k, ps in weights.items()}
    return norms


@cache
def measured(name):
    cfg, spec, _ = TABLES[name]
    torch.manual_seed(0)
    return gradient_norms(tiny.agent(spec, cfg=cfg), tiny.batch(spec))


@pytest.mark.parametrize("name, loss, part, mark", CELLS)
def test_routing(name, loss, part, mark):
    norm = measured(name)[loss].get(part)
    found = "-" if norm is None else str(int(norm > 0))
    assert found == mark, f"{name}: ‖∂ {loss} / ∂ {part}‖ = {norm}"


@pytest.mark.parametrize("name", TABLES)
def test_no_loss_is_missing_from_the_table(name):
    assert measured(name).keys() == TABLES[name][2].keys()


@pytest.mark.parametrize("name", TABLES)
def test_where_every_row_starts_an_episode_the_prior_learns_alone(name):
    cfg, spec, _ = TABLES[name]
    agent, batch = tiny.agent(spec, cfg=cfg), tiny.batch(spec)
    first = torch.ones_like(batch.is_first)
    norms = gradient_norms(agent, batch._replace(is_first=first))["dyn"]
    assert norms["prior"] > 0 and norms["encoder"] == norms["posterior"] == 0


@pytest.mark.parametrize("name", [k for k in TABLES if not k.startswith("V3")])
def test_what_flows_through_the_model_is_applied_to_the_actor_only(name):
    cfg, spec, _ = TABLES[name]
    agent = tiny.agent(spec, cfg=cfg)
    losses, _, _ = agent.losses(tiny.batch(spec), None)
    own = {"actor": losses["actor"], "critic": losses["critic"]}
    own["model"] = sum(x for k, x in losses.items() if k not in own)
    expected = {
        part: torch.autograd.grad(
            own[part], list(o.params.values()), retain_graph=True, materialize_grads=True
        )
        for part, o in agent.optimizers.items()
    }
    for part, applied in agent.gradients(losses).items():
        for g, e in zip(applied, expected[part], strict=True):
            torch.testing.assert_close(g, e)
    moved = [id(p) for o in agent.optimizers.values() for p in o.params.values()]
    assert len(moved) == len(set(moved)), "a weight belongs to two optimizers"
