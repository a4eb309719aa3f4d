"""The mathematics of kl-lab is that of the package: KL, the floors, who is pulled and how hard."""

import re

import pytest
import torch
from conftest import mounted

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


SURPRISE = dict(
    die=dict(q=[[0.1, 0.1, 0.8]], p=[[0.8, 0.1, 0.1]]),
    gaussian=dict(q=[[1.2, 0.4]], p=[[-1.0, 0.8]]),
)
DOTS = 'path[stroke-dasharray="0.1 6"]'  # where both sides went in the last run


@pytest.fixture
def lab(browser):
    """Without motion, so that Run is one jump."""
    data = dict(names=["left", "middle", "right"], starts={"a surprise": SURPRISE})
    words = "a map of all dice with three faces, and two points"
    with mounted(browser, "kl-lab", data, words, reduced_motion="reduce") as tab:
        yield tab


def press(tab, name):
    """Press a button and return what the lab says after the next frame."""
    tab.get_by_role("button", name=name, exact=True).click()
    tab.wait_for_timeout(200)
    return tab.locator(".dl-said").inner_text()


def left_of_the_picture(words):
    """What the posterior believed in the right side before, and what it believes now."""
    return [float(x) for x in re.search(r"was (\d\.\d+) and is (\d\.\d+)", words).groups()]


def test_v3_stops_at_the_floor_and_keeps_what_was_seen(lab):
    words = press(lab, "Run")
    assert "below the floor of 1.00 nats: nothing pulls" in words
    before, after = left_of_the_picture(words)
    assert before == 0.8 and after > 0.77


def test_a_small_share_of_the_prior_makes_the_posterior_forget(lab):
    lab.get_by_label("free nats").fill("0")
    kept = []
    for share in ("0.2", "0.8"):
        press(lab, "Back to start")
        lab.get_by_label("α, prior's share").fill(share)
        kept.append(left_of_the_picture(press(lab, "Run"))[1])
    assert kept[0] < 0.3 < 0.6 < kept[1]


def test_the_last_run_stays_as_dots_until_a_side_is_moved_by_hand(lab):
    assert lab.locator(DOTS).count() == 0
    press(lab, "Run")
    press(lab, "Back to start")
    assert lab.locator(DOTS).count() == 2
    words = lab.locator(".dl-said").inner_text()
    lab.get_by_role("button", name="Prior of moment 1").press("ArrowRight")
    lab.wait_for_timeout(200)
    assert lab.locator(DOTS).count() == 0
    assert lab.locator(".dl-said").inner_text() != words
