"""What two processes do for tests/test_distributed.py: `python ranks.py <folder>`, once for each.

Also what both sides need: agents, rows, and dice that fall alike for every sequence of a batch.
"""

import os
import shlex
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import tiny
import torch

from dreamer_lite import cli, distributed
from dreamer_lite.replay import Sequence
from dreamer_lite.training import train

CPU = torch.device("cpu")
STEPS = 320
COMMAND = shlex.split(
    "train toy --env dreamer_lite/FlickerCatch-v0 --logdir LOGDIR --device cpu --log-every 40 "
    f"--steps {STEPS} --seed 3 --envs 4 --model.deter 16 --model.hidden 8 --model.units 8 "
    "--model.latent.groups 2 --model.latent.classes 3 --model.conv.depth 2 --behavior.horizon 3 "
    "--replay.length 8 --replay.batch 4 --replay.warmup 64 --replay.ratio 4 --replay.capacity 200"
)
SMALL = cli.parse(COMMAND).command.config


def go(logdir, steps=STEPS, **kwargs):
    """The run of COMMAND."""
    kwargs = {"seed": 3, "device": "cpu", "log_every": 40, "progress": False} | kwargs
    return train(SMALL, "dreamer_lite/FlickerCatch-v0", steps, logdir, **kwargs)


# Gradients


@contextmanager
def shared_dice():
    """Random numbers that depend on when they are drawn, but not on the place in the batch."""
    calls = iter(range(10**9))

    def die(draw):
        def like(x):
            numbers = draw(x.shape[1:], generator=torch.Generator().manual_seed(next(calls)))
            return numbers.expand(x.shape)

        return like

    with (
        mock.patch.object(torch, "rand_like", die(torch.rand)),
        mock.patch.object(torch, "randn_like", die(torch.randn)),
    ):
        yield


def rows():
    torch.manual_seed(7)
    return tiny.batch(tiny.NUMBERS, size=4)


def half(batch, rank):
    """The share of one of two processes."""
    mine = slice(2 * rank, 2 * rank + 2)
    return Sequence({k: x[:, mine] for k, x in batch.obs.items()}, *(x[:, mine] for x in batch[1:]))


def agent(cfg):
    """The same agent everywhere, which divides by the range of this batch's returns."""
    torch.manual_seed(5)
    made = tiny.agent(tiny.NUMBERS, cfg=cfg)
    made.behavior.scale.rate, made.behavior.scale.limit = 1.0, 0.0
    return made


def gradients(cfg, batch):
    """What the optimizers would get, {part and parameter: gradient}, and the metrics."""
    with shared_dice():
        made = agent(cfg)
        losses, _, metrics = made.losses(batch, None)
        grads = distributed.average(made.gradients(losses))
        owned = {part: list(o.params) for part, o in made.optimizers.items()}
        named = {
            f"{part} {name}": g
            for part in owned
            for name, g in zip(owned[part], grads[part], strict=True)
        }
        return named, metrics


def cases():
    """Settings of the papers, in which it matters whose statistics count.

    The floor of V1 and V2 lies between the mean KL of one half and that of the whole batch: only
    all together know on which side of it they are.
    """
    found = {"V3": tiny.PAPERS["V3"]}
    for paper in ("V1", "V2", "V2 control"):
        cfg = tiny.PAPERS[paper]
        kls = [gradients(cfg, half(rows(), r))[1]["kl"].item() for r in (0, 1)]
        whole = gradients(cfg, rows())[1]["kl"].item()
        for side, edge in {"above": min(kls), "below": max(kls)}.items():
            kl = replace(cfg.model.kl, free=(whole + edge) / 2)
            found[f"{paper}, {side} the floor"] = replace(cfg, model=replace(cfg.model, kl=kl))
    return found


# The life of one process


def main(folder):
    rank = int(os.environ["RANK"])
    settings = cases()  # alone, before the others are met
    with distributed.group(CPU):
        found = {name: gradients(cfg, half(rows(), rank))[0] for name, cfg in settings.items()}
        weights = {}
        for name in ("whole", "killed", "alone"):
            made = go(folder / name, STEPS + 80 * (name == "alone"))
            weights[name] = made.state_dict()
    torch.save({"gradients": found, "weights": weights}, folder / f"rank{rank}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
