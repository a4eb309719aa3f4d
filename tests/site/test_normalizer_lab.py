"""normalizer-lab measures returns as the package does, and its policy is where the actor rests."""

import re

import pytest
import torch
from conftest import mounted

from dreamer_lite.behavior import ReturnScale, actor_loss
from dreamer_lite.distributions import OneHots

NAME = "normalizer-lab"
SAME = dict(rtol=1e-6, atol=1e-6)
SIZES = (0.01, 0.1, 1.0, 100.0, 1000.0)


def numbers(x):
    return torch.tensor(x, dtype=torch.float64)


def batches():
    """Returns of some dreams, of all sizes; the last two are a single dream and no spread."""
    torch.manual_seed(0)
    for size in SIZES:
        for count in (2, 5, 41):
            yield (size * torch.randn(count, dtype=torch.float64)).tolist()
    yield [3.0]
    yield [2.0] * 7


def test_percentiles_are_those_of_torch(js):
    cases = [(batch, q) for batch in batches() for q in (0.0, 0.05, 0.5, 0.95, 1.0)]
    for (batch, q), found in zip(cases, js(NAME, "quantile", cases), strict=True):
        torch.testing.assert_close(numbers(found), torch.quantile(numbers(batch), q), **SAME)


def package_scale(limit=1.0):
    """The package's scale in double precision, and an update without its float32."""
    scale = ReturnScale(limit=limit).double()

    def update(batch):
        scale.range.lerp_(torch.quantile(numbers(batch), scale.quantiles), scale.rate)
        return scale.value()

    scale.quantiles = numbers([0.05, 0.95])
    return scale, update


@pytest.mark.parametrize("limit", [1.0, 1e-8])
def test_the_scale_is_that_of_the_package(limit, js):
    (scale, update), seen = package_scale(limit), [0.0, 0.0]
    plain = ReturnScale(limit=limit)  # its own update, in float32
    for batch in batches():
        (seen,) = js(NAME, "update", [(seen, batch)])
        answer = update(batch)
        torch.testing.assert_close(numbers(seen), scale.range, **SAME)
        (found,) = js(NAME, "scale", [(seen, limit)])
        torch.testing.assert_close(numbers(found), answer, **SAME)
        close = dict(rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(numbers(found), plain.update(numbers(batch)).double(), **close)


def test_counts_become_single_dreams(js):
    (found,) = js(NAME, "expand", [([2, 0, 1], [-1.0, 0.0, 3.0], 100.0)])
    assert found == [-100.0, -100.0, 300.0]


def test_the_policy_is_where_the_gradient_of_the_actor_loss_vanishes(js):
    """The exact expectation of the loss over all buttons, differentiated by autograd."""
    for batch in batches():
        spread = max(batch) - min(batch)
        for eta in (0.03, 0.3, 3.0):
            (advantage,) = js(NAME, "advantages", [(batch, max(1.0, spread))])
            (p,) = js(NAME, "policy", [(advantage, eta)])
            logits = numbers(p).log().clamp(min=-700).requires_grad_()
            pi = OneHots(logits.softmax(-1)[None], logits.log_softmax(-1)[None])
            ret, zero = (pi.probs[0] * numbers(advantage)).sum(), numbers(0.0)
            terms = [x.reshape(1, 1) for x in (ret, zero, zero, pi.entropy(), zero + 1)]
            loss = actor_loss(*terms, rho=0.0, eta=eta)
            (gradient,) = torch.autograd.grad(loss, logits)
            torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-6)
            (found,) = js(NAME, "entropy", [(p,)])
            torch.testing.assert_close(numbers(found), pi.entropy().squeeze().detach(), **SAME)


def test_the_tradeoff_is_blind_to_the_size_of_the_rewards_if_the_scale_follows(js):
    base = list(batches())[8]
    found = []
    for size in SIZES:
        batch = [size * x for x in base]
        spread = size * (max(base) - min(base))
        found += js(NAME, "tradeoff", [(batch, spread, 0.1)])
    for one in found[1:]:
        assert one == pytest.approx(found[0])
    (small,) = js(NAME, "tradeoff", [([0.01 * x for x in base], 1.0, 0.1)])
    assert small["entropy"] > found[0]["entropy"] and small["gain"] < found[0]["gain"]


def test_a_wrong_rate_is_noticed(js):
    (seen,) = js(NAME, "update", [([0.0, 0.0], [0.0, 10.0], 0.1)])
    scale, update = package_scale()
    update([0.0, 10.0])
    assert not torch.allclose(numbers(seen), scale.range)


@pytest.fixture
def lab(browser):
    """Without motion, so that Run is a jump."""
    data = dict(counts=[0, 1, 2, 4, 6, 8, 6, 4, 2, 1, 0], size=1, eta=0.01)
    words = "how many dreams had each of eleven returns, as green bars"
    with mounted(browser, NAME, data, words, reduced_motion="reduce") as tab:
        yield tab


def said(lab, pattern):
    """A number in the words of the lab."""
    words = lab.locator(".dl-said").inner_text()
    return float(re.search(pattern, words)[1])


ENTROPY, RANGE = r"keeps (\d+) %", r"running range is (\d+\.\d+)"


def test_large_rewards_leave_entropy_alone_only_if_they_are_divided(lab):
    kept = {}
    for size in ("1", "2"):  # powers of ten
        lab.get_by_label("Size of the rewards").fill(size)
        lab.get_by_role("button", name="Forget").click()
        for _ in range(10):
            lab.get_by_role("button", name="100 updates").click()
        for rule in ("by S", "not at all"):
            lab.get_by_label(rule, exact=True).check()
            lab.get_by_label("Weight of entropy η").fill("-0.5")
            kept[size, rule] = said(lab, ENTROPY)
    assert kept["1", "by S"] == kept["2", "by S"] > 20
    assert kept["2", "not at all"] < kept["1", "by S"]


def test_the_range_is_heard_slowly_and_forgotten_at_once(lab):
    lab.get_by_label("Size of the rewards").fill("1")
    ranges = [said(lab, RANGE)]
    for _ in range(3):
        lab.get_by_role("button", name="1 update").click()
        ranges.append(said(lab, RANGE))
    assert ranges[0] == 0 and ranges == sorted(set(ranges))
    lab.get_by_role("button", name="Forget").click()
    assert said(lab, RANGE) == 0
