"""The mathematics of straight-lab is that of the package: one die, three gradients."""

import re

import pytest
import torch
from conftest import mounted

from dreamer_lite.distributions import OneHots

LAB = "straight-lab"
SAME = dict(rtol=0, atol=1e-6)
MIXTURES = [0.0, 0.01, 0.3]
SAGS = [-2.0, 0.0, 1.5]


def die(logits, unimix):
    """One die from logits [K] in double precision; OneHots.of would round to single."""
    probs = (1 - unimix) * logits.softmax(-1) + unimix / len(logits)
    return OneHots(probs[None], probs.log()[None])


def hanging(z, losses, sag):
    """f(z) = f·z - sag Σ z (1 - z)."""
    return (losses * z).sum() - sag * (z * (1 - z)).sum()


def cases():
    """Logits and losses [4], unimix, sag."""
    torch.manual_seed(0)
    for unimix in MIXTURES:
        for sag in SAGS:
            yield 2 * torch.randn(4, dtype=torch.float64), 3 * torch.rand(4).double(), unimix, sag


def numbers(x):
    return torch.tensor(x, dtype=torch.float64)


def by_autograd(loss, logits):
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(loss(logits), logits)[0]


def one_hot(j):
    return torch.eye(4, dtype=torch.float64)[j]


def test_probabilities_are_those_of_the_package(js):
    found = js(LAB, "mixed", [(logits.tolist(), u) for logits, _, u, _ in cases()])
    for p, (logits, _, u, _) in zip(found, cases(), strict=True):
        torch.testing.assert_close(
            numbers(p), OneHots.of(logits[None], u).probs[0].double(), **SAME
        )
        torch.testing.assert_close(numbers(p), die(logits, u).probs[0], **SAME)


def test_the_exact_gradient_is_that_of_the_expected_loss(js):
    found = js(LAB, "exact", [(x.tolist(), u, f.tolist()) for x, f, u, _ in cases()])
    for got, (x, f, u, _) in zip(found, cases(), strict=True):
        expected = by_autograd(lambda x, u=u, f=f: (die(x, u).probs[0] * f).sum(), x)
        torch.testing.assert_close(numbers(got), expected, **SAME)


@pytest.mark.parametrize("j", range(4))
def test_straight_through_is_what_a_sample_of_the_package_sends_back(j, js):
    found = js(LAB, "straight", [(x.tolist(), u, f.tolist(), sag, j) for x, f, u, sag in cases()])
    for got, (x, f, u, sag) in zip(found, cases(), strict=True):

        def loss(x, u=u, f=f, sag=sag):
            return hanging(die(x, u)._straight_through(torch.tensor([j])), f, sag)

        torch.testing.assert_close(numbers(got), by_autograd(loss, x), **SAME)


@pytest.mark.parametrize("baseline", [False, True])
@pytest.mark.parametrize("j", range(4))
def test_reinforce_is_the_loss_times_the_gradient_of_the_log_probability(j, baseline, js):
    grid = [(x.tolist(), u, f.tolist(), baseline, j) for x, f, u, _ in cases()]
    for got, (x, f, u, _) in zip(js(LAB, "reinforce", grid), cases(), strict=True):
        mean = (die(x, u).probs[0] * f).sum().item()

        def loss(x, u=u, f=f, mean=mean):
            return (f[j] - baseline * mean) * die(x, u).log_prob(one_hot(j))

        torch.testing.assert_close(numbers(got), by_autograd(loss, x), **SAME)


def enumerated(x, f, u, sag, way, baseline, js):
    """An estimate for each face, from the lab."""
    rest = (sag,) if way == "straight" else (baseline,)
    return js(LAB, way, [(x.tolist(), u, f.tolist(), *rest, j) for j in range(4)])


def test_reinforce_has_no_bias_and_straight_through_only_where_the_loss_hangs(js):
    for x, f, u, sag in cases():
        p, goal = die(x, u).probs[0], by_autograd(lambda x, u=u, f=f: die(x, u).probs[0] @ f, x)
        for way, baseline in (("straight", False), ("reinforce", False), ("reinforce", True)):
            each = numbers(enumerated(x, f, u, sag, way, baseline, js))
            (got,) = js(LAB, "quality", [(p.tolist(), each.tolist(), goal.tolist())])
            mean = p @ each
            spread = (p @ (each - mean).square().sum(-1)).sqrt()
            torch.testing.assert_close(numbers(got["mean"]), mean, **SAME)
            torch.testing.assert_close(numbers(got["bias"]), (mean - goal).norm(), **SAME)
            torch.testing.assert_close(numbers(got["spread"]), spread, **SAME)
            biased = way == "straight" and sag != 0
            assert (got["bias"] > 1e-3) == biased
            if way == "straight":  # on average, the gradient at the mean: f(p)
                at_mean = by_autograd(
                    lambda x, u=u, f=f, sag=sag: hanging(die(x, u).probs[0], f, sag), x
                )
                torch.testing.assert_close(mean, at_mean, **SAME)
            if way == "straight" and sag == 0:
                assert got["spread"] < 1e-12


def test_descent_follows_the_exact_gradient(js):
    x, f, u, _ = list(cases())[4]
    (got,) = js(LAB, "descent", [("exact", x.tolist(), u, f.tolist(), 0, False, 3, 0.2, 1)])
    losses = []
    for _ in range(4):
        p = die(x, u).probs[0]
        losses.append((p * f).sum())
        last, x = x, x - 0.2 * by_autograd(lambda x: (die(x, u).probs[0] * f).sum(), x)
    torch.testing.assert_close(numbers(got["losses"]), torch.stack(losses), **SAME)
    torch.testing.assert_close(numbers(got["end"]), last, **SAME)


def test_faces_fall_as_often_as_their_probability_says(js):
    p = [0.4, 0.3, 0.2, 0.1]
    edges = [0.0, 0.39, 0.41, 0.69, 0.71, 0.89, 0.91, 0.999999]
    assert js(LAB, "face", [(p, x) for x in edges]) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_wrong_formula_is_noticed(js):
    x, f, _, sag = list(cases())[2]
    (got,) = js(LAB, "straight", [(x.tolist(), 0.0, f.tolist(), sag, 0)])
    (linear,) = js(LAB, "straight", [(x.tolist(), 0.0, f.tolist(), 0.0, 0)])
    assert sag and not torch.allclose(numbers(got), numbers(linear), **SAME)


@pytest.fixture
def lab(browser):
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    data = dict(logits=logits.tolist(), losses=[1, 2, 0, 4], sag=0, unimix=0)
    words = "bars of logits, losses and gradients of a die with four faces"
    with mounted(browser, LAB, data, words, reduced_motion="reduce") as tab:
        yield tab


def said(tab):
    return tab.locator(".dl-said").inner_text()


def bias(tab):
    """Of straight-through and of REINFORCE, as the lab says it."""
    return [float(x) for x in re.findall(r"bias (\d\.\d+)", said(tab))]


def test_a_loss_that_hangs_makes_straight_through_wrong(lab):
    assert "Expected loss 1.40" in said(lab) and bias(lab) == [0, 0]
    lab.get_by_label("sag between the faces").fill("2")
    straight, reinforce = bias(lab)
    assert straight > 0.1 and reinforce == 0


def test_a_baseline_narrows_reinforce(lab):
    before = [float(x) for x in re.findall(r"roll (\d\.\d+)", said(lab))]
    lab.get_by_role("button", name="Baseline for REINFORCE").click()
    after = [float(x) for x in re.findall(r"roll (\d\.\d+)", said(lab))]
    assert before[0] == after[0] == 0 and after[1] < before[1]


def test_rolls_add_up_until_something_changes(lab):
    lab.get_by_role("button", name="Roll", exact=True).click()
    assert "is up" in said(lab)
    lab.get_by_role("button", name="Roll 100 times").click()
    assert lab.get_by_text("mean of 101 rolls").count() == 2
    lab.get_by_role("slider", name="Logits: drag, face 1").press("ArrowUp")
    assert lab.get_by_text("no roll yet").count() == 2 and "is up" not in said(lab)
    lab.get_by_role("button", name="Back to start").click()
    assert "Expected loss 1.40" in said(lab)
