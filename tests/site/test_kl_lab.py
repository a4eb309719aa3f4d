"""The mathematics of kl-lab is that of the package: KL, the floors, who is pulled and how hard."""

import pytest
import torch

from dreamer_lite.distributions import DiagNormal, OneHots
from dreamer_lite.world_model import kl_loss

SAME = dict(rtol=0, atol=1e-6)
SETTINGS = [
    dict(dyn=dyn, rep=rep, free=free, perStep=per_step)
    for dyn, rep in [(1.0, 1.0), (0.8, 0.2), (1.0, 0.1), (0.0, 1.0)]
    for free in (0.0, 0.5, 1.0, 3.0)
    for per_step in (True, False)
]


def die(x):
    """One die for each moment, from its logits [M,K], in double precision."""
    logp = x[:, None].log_softmax(-1)
    return OneHots(logp.exp(), logp)


def gaussian(x):
    """One number for each moment, from its mean and the logarithm of its deviation [M,2]."""
    return DiagNormal(x[:, :1], x[:, 1:].exp())


BUILD = {"die": (die, 3), "gaussian": (gaussian, 2)}


def moments(family, count, seed):
    """What two networks put out at `count` moments: for the posterior and for the prior."""
    torch.manual_seed(seed)
    scale = 2.0 if family == "die" else 0.7
    return [scale * torch.randn(count, BUILD[family][1], dtype=torch.float64) for _ in range(2)]


def in_python(family, q, p, dyn, rep, free, perStep):
    """Loss and gradients by the package and autograd."""
    build = BUILD[family][0]
    leaves = [q.clone().requires_grad_(), p.clone().requires_grad_()]
    loss = kl_loss(*map(build, leaves), dyn, rep, free, perStep)
    return loss, torch.autograd.grad(loss, leaves)


def numbers(x):
    return torch.tensor(x, dtype=torch.float64)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("family", ["die", "gaussian"])
def test_kl_lab_has_the_loss_and_the_gradients_of_the_package(family, settings, js):
    for count in (1, 4):
        q, p = moments(family, count, seed=count)
        loss, (dq, dp) = in_python(family, q, p, **settings)
        (got,) = js("kl-lab", "klLoss", [(family, q.tolist(), p.tolist(), settings)])
        torch.testing.assert_close(numbers(got["loss"]), loss.detach(), **SAME)
        torch.testing.assert_close(numbers(got["dq"]), dq, **SAME)
        torch.testing.assert_close(numbers(got["dp"]), dp, **SAME)
        build = BUILD[family][0]
        torch.testing.assert_close(numbers(got["kls"]), build(q).kl(build(p)), **SAME)


def test_the_grid_has_moments_above_and_below_the_floor():
    for family, (build, _) in BUILD.items():
        q, p = moments(family, 4, seed=4)
        kl = build(q).kl(build(p))
        assert kl.min() < 0.5 and kl.max() > 1, (family, kl)


@pytest.mark.parametrize("family", ["die", "gaussian"])
def test_a_step_of_kl_lab_goes_down_the_gradient_of_the_loss(family, js):
    settings = dict(dyn=1.0, rep=0.1, free=0.0, perStep=True)
    q, p = moments(family, 2, seed=7)
    state = dict(qs=q.tolist(), ps=p.tolist(), origin=q.tolist())
    (got,) = js("kl-lab", "descend", [(family, state, settings, {"rate": 1e-3})])
    _, (dq, dp) = in_python(family, q, p, **settings)
    torch.testing.assert_close(numbers(got["qs"]), q - 1e-3 * 2 * dq, **SAME)
    torch.testing.assert_close(numbers(got["ps"]), p - 1e-3 * 2 * dp, **SAME)
    assert got["origin"] == q.tolist()


def test_a_shared_prior_of_kl_lab_is_moved_by_all_moments_and_a_held_posterior_stays(js):
    q, _ = moments("die", 2, seed=1)
    p = torch.zeros(2, 3, dtype=torch.float64)
    state = dict(qs=q.tolist(), ps=p.tolist(), origin=q.tolist())
    settings = dict(dyn=1.0, rep=0.0, free=0.0, perStep=True)
    options = dict(shared=True, hold=1, rate=0.01)
    (got,) = js("kl-lab", "descend", [("die", state, settings, options)])
    pull = (p.softmax(-1) - q.softmax(-1)).sum(0)
    torch.testing.assert_close(numbers(got["ps"]), p - 0.01 * pull, **SAME)
    torch.testing.assert_close(numbers(got["qs"]), q, **SAME)


def test_a_wrong_balance_is_noticed(js):
    settings = dict(dyn=1.0, rep=0.1, free=0.0, perStep=True)
    q, p = moments("die", 4, seed=4)
    swapped = settings | dict(dyn=0.1, rep=1.0)
    (got,) = js("kl-lab", "klLoss", [("die", q.tolist(), p.tolist(), swapped)])
    _, (dq, _) = in_python("die", q, p, **settings)
    assert not torch.allclose(numbers(got["dq"]), dq, **SAME)
