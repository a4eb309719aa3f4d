"""Heads: what is predicted, and the loss that makes it so."""

import math

import pytest
import torch

from dreamer_lite.heads import (
    BernoulliHead,
    NormalHead,
    NormalPixelHead,
    NormalVectorHead,
    PixelHead,
    SymlogHead,
    SymlogTwoHotHead,
    TwoHotHead,
)
from dreamer_lite.transforms import symexp, symlog, twohot

SCALARS = {
    "normal": NormalHead(),
    "twohot": TwoHotHead(),
    "twohot of 2023": SymlogTwoHotHead(),
    "event": BernoulliHead(),
}


def test_a_flat_distribution_predicts_exactly_zero():
    # The plain sum of p·b is not zero: the end bins are 4.9e8 and float32 rounds.
    assert (TwoHotHead().mean(torch.zeros(3, 255)) == 0).all()
    assert (TwoHotHead().mean(torch.full((3, 255), 7.7)) == 0).all()


def test_a_flat_distribution_costs_the_logarithm_of_the_number_of_bins():
    loss = TwoHotHead().loss(torch.zeros(3, 255), torch.tensor([0.0, 5.0, -1e5]))
    torch.testing.assert_close(loss, torch.full((3,), math.log(255)))
    assert math.log(255) == pytest.approx(5.5413, abs=5e-5)


@pytest.mark.parametrize("y", [0.0, 0.3, -0.3, 1.0, -1.0, 100.0, -1e4, 1e6])
def test_the_target_decodes_to_itself(y):
    head = TwoHotHead()
    params = twohot(torch.tensor([y]), head.bins).log()
    assert head.mean(params).item() == pytest.approx(y, rel=1e-4, abs=1e-5)


def test_a_random_target_decodes_to_its_mean():
    # 0 or 100 with probabilities .9 and .1. Bins that are linear in symlog space would say 0.586.
    head = TwoHotHead()
    p = 0.9 * twohot(torch.tensor(0.0), head.bins) + 0.1 * twohot(torch.tensor(100.0), head.bins)
    assert head.mean(p.log()).item() == pytest.approx(10.0, rel=1e-5)


def test_the_first_release_of_v3_decodes_a_random_target_too_low():
    head = SymlogTwoHotHead()
    goals = symlog(torch.tensor([0.0, 100.0]))
    p = torch.tensor([0.9, 0.1]) @ twohot(goals, head.bins)
    assert head.mean(p.log()).item() == pytest.approx(0.586, abs=5e-4)
    params = twohot(goals[1:], head.bins).log()
    assert head.mean(params).item() == pytest.approx(100.0, rel=1e-4)  # a certain one is right
    assert head.bins[0] == -20 and symexp(head.bins[-1]).item() == pytest.approx(4.85e8, rel=1e-3)


def test_targets_beyond_the_bins_are_clipped():
    head = TwoHotHead()
    params = torch.randn(255)
    limit = head.bins[-1]
    assert head.loss(params, torch.tensor(1e9)) == head.loss(params, limit)


AIMS = {  # the parameters that say a number
    "normal": lambda y: y[..., None],
    "twohot": lambda y: (twohot(y, TwoHotHead().bins) + 1e-9).log(),
    "twohot of 2023": lambda y: (twohot(symlog(y), SymlogTwoHotHead().bins) + 1e-9).log(),
    "event": lambda y: y[..., None].logit(eps=1e-6),
}


@pytest.mark.parametrize("name", SCALARS)
def test_the_loss_falls_when_the_prediction_improves(name):
    head, target = SCALARS[name], torch.tensor([0.1, 0.5, 0.9])
    aim = AIMS[name](target)
    start = aim + 3 * torch.randn(3, head.num_params)
    way = [head.loss(start + share * (aim - start), target) for share in (0.0, 0.5, 1.0)]
    assert way[0].shape == (3,) and (way[0] > way[1]).all() and (way[1] > way[2]).all()
    torch.testing.assert_close(head.mean(aim), target, atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", SCALARS)
def test_targets_carry_no_gradient(name):
    head = SCALARS[name]
    target = torch.full((2,), 0.5, requires_grad=True)
    params = torch.randn(2, head.num_params, requires_grad=True)
    gradients = torch.autograd.grad(
        head.loss(params, target).sum(), [params, target], allow_unused=True
    )
    assert gradients[0].any() and gradients[1] is None


@pytest.mark.parametrize("name", SCALARS)
def test_half_precision_outputs_are_computed_in_full(name):
    head = SCALARS[name]
    params, target = torch.randn(4, head.num_params).bfloat16(), torch.rand(4)
    assert torch.equal(head.mean(params), head.mean(params.float()))
    assert torch.equal(head.loss(params, target), head.loss(params.float(), target))


def test_a_perfect_gaussian_prediction_costs_the_constant():
    loss = NormalHead().loss(torch.tensor([[2.0]]), torch.tensor([2.0]))
    assert loss.item() == pytest.approx(0.5 * math.log(2 * math.pi))
    pixels = 64 * 64 * 3
    assert pixels * loss.item() == pytest.approx(11_292, abs=0.5)  # why V1 seems stuck there


def test_a_gaussian_prediction_off_by_one_costs_a_half_more():
    head = NormalHead()
    one = head.loss(torch.tensor([[3.0]]), torch.tensor([2.0]))
    assert (one - head.loss(torch.tensor([[2.0]]), torch.tensor([2.0]))).item() == pytest.approx(
        0.5
    )


def test_pixels_are_summed_without_a_half():
    black = torch.full((2, 64, 64, 3), -1e9)
    white = torch.full((2, 64, 64, 3), 255, dtype=torch.uint8)
    assert PixelHead().loss(black, white).tolist() == [12_288.0, 12_288.0]


def test_pixels_of_v1_and_v2_have_a_half_and_a_constant():
    head, white = NormalPixelHead(), torch.full((2, 64, 64, 3), 255, dtype=torch.uint8)
    off_by_one, exact = torch.full((2, 64, 64, 3), -0.5), torch.full((2, 64, 64, 3), 0.5)
    constant = head.loss(exact, white)
    assert constant[0].item() == pytest.approx(11_292, abs=0.5)
    torch.testing.assert_close(head.loss(off_by_one, white) - constant, torch.full((2,), 6144.0))
    assert (head.mean(exact) == 1).all() and (head.mean(3 * exact) == 1).all()


def test_vectors_of_v1_and_v2_are_seen_and_predicted_as_they_are():
    x, head = torch.tensor([[0.0, 1.0, -1e4]]), NormalVectorHead()
    assert torch.equal(head.squash(x), x) and torch.equal(head.mean(x), x)
    constant = 1.5 * math.log(2 * math.pi)
    assert head.loss(x, x).item() == pytest.approx(constant)
    assert head.loss(x + 2, x).item() == pytest.approx(6.0 + constant)
    assert torch.equal(SymlogHead().squash(x), symlog(x))


def test_a_perfect_image_costs_nothing():
    image = torch.randint(1, 255, (2, 8, 8, 3), dtype=torch.uint8)
    logits = (image.float() / 255).logit()
    assert PixelHead().loss(logits, image).max() < 1e-8
    torch.testing.assert_close(PixelHead().mean(logits), image.float() / 255)


def test_vectors_are_predicted_in_symlog_space_and_read_in_their_units():
    x = torch.tensor([[0.0, 1.0, -1e4]])
    head = SymlogHead()
    assert head.loss(symlog(x), x).item() == 0
    torch.testing.assert_close(head.mean(symlog(x)), x)
    assert head.loss(symlog(x) + 2, x).item() == pytest.approx(12.0)  # summed, no half


def test_the_continue_head_learns_the_discount():
    head, label = BernoulliHead(), torch.tensor([1 - 1 / 333])
    logit = torch.zeros(1, 1, requires_grad=True)
    for _ in range(3000):
        logit.data -= 5 * torch.autograd.grad(head.loss(logit, label).sum(), logit)[0]
    discount = head.mean(logit)
    assert discount.item() == pytest.approx(1 - 1 / 333, abs=2e-4)
    assert discount.item() ** 10 == pytest.approx((1 - 1 / 333) ** 10, abs=2e-3)


def test_confident_wrong_events_cost_a_finite_amount():
    loss = BernoulliHead().loss(torch.tensor([[1e4], [-1e4]]), torch.tensor([0.0, 1.0]))
    assert loss.tolist() == [1e4, 1e4]
