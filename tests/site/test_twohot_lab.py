"""The mathematics of the twohot lab is that of the package, in double precision."""

import math

import pytest
import torch

from dreamer_lite.heads import SymlogTwoHotHead, TwoHotHead
from dreamer_lite.transforms import symexp, symexp_bins, symlog, twohot

LAB = "twohot-lab"
NUMBERS = [0.0, 0.01, 0.5, 1.0, 3.0, 5.0, 7.0, 99.0, 1e4, 1e6, 3e8, 1e9]
NUMBERS += [-x for x in NUMBERS]
SETS = {"by hand": (7, 3 * math.log(2)), "as in V3": (255, 20.0)}


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def close(found, expected):
    torch.testing.assert_close(
        torch.tensor(found, dtype=torch.float64), expected, rtol=1e-6, atol=1e-6
    )


def test_symlog_and_symexp_are_those_of_the_package(js):
    cases = [(x,) for x in NUMBERS]
    close(js(LAB, "symlog", cases), symlog(torch.tensor(NUMBERS)))
    close(js(LAB, "symexp", [(max(-20, min(20, x)),) for x in NUMBERS]),
          symexp(torch.tensor(NUMBERS).clamp(-20, 20)))  # fmt: skip


@pytest.mark.parametrize("size", SETS.values(), ids=SETS)
def test_bins_and_weights_are_those_of_the_package(size, js):
    bins = symexp_bins(*size)
    close(js(LAB, "symexpBins", [size])[0], bins)
    found = js(LAB, "twohot", [(y, bins.tolist()) for y in NUMBERS])
    close(found, twohot(torch.tensor(NUMBERS), bins))


def test_what_is_learned_about_lotteries_is_what_the_heads_decode(js):
    bins = symexp_bins()
    cases = [(prize, chance) for prize in NUMBERS for chance in (0.0, 0.1, 0.5, 1.0)]
    found = js(LAB, "learned", [(*case, bins.tolist()) for case in cases])
    for (prize, chance), (plain, squeezed) in zip(cases, found, strict=True):
        goals, share = torch.tensor([prize, 0.0]), torch.tensor([chance, 1 - chance])
        p = share @ twohot(goals, bins)
        close(plain, p @ bins)
        even = torch.linspace(-20, 20, 255)
        close(squeezed, symexp(share @ twohot(symlog(goals), even) @ even))
        heads = TwoHotHead(), SymlogTwoHotHead()  # in float32, so less exact
        assert plain == pytest.approx(heads[0].mean(p.log()).item(), rel=1e-3, abs=1e-3)
        q = share @ twohot(symlog(goals), even)
        assert squeezed == pytest.approx(heads[1].mean(q.log()).item(), rel=1e-3, abs=1e-3)


def test_pulls_are_gradients(js):
    bins = symexp_bins()
    cases = [(y, guess) for y in NUMBERS for guess in (0.0, 0.3, -50.0)]
    found = js(LAB, "pulls", [(*case, bins.tolist()) for case in cases])
    for (y, guess), (squared, squeezed, spread) in zip(cases, found, strict=True):
        said, goal = (torch.tensor(x, requires_grad=True) for x in (guess, y))
        close(squared, torch.autograd.grad((said - goal) ** 2 / 2, said)[0].abs())
        inside = symlog(said).detach().requires_grad_()
        close(squeezed, torch.autograd.grad((inside - symlog(goal)) ** 2 / 2, inside)[0].abs())
        logits = (twohot(said, bins) + 1e-12).log().requires_grad_()
        loss = -(twohot(goal, bins) * logits.log_softmax(-1)).sum()
        close(spread, torch.autograd.grad(loss, logits)[0].norm())
