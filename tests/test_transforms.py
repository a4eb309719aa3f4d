"""Scales: inverses, golden bins, and two-hot targets that give back what they encode."""

import pytest
import torch

from dreamer_lite.transforms import symexp, symexp_bins, symlog, twohot

BINS = symexp_bins()


def test_symexp_undoes_symlog_over_twelve_decades():
    x = torch.tensor([0.0, 1e-6, 0.3, 1.0, 100.0, 1e4, 1e6])
    x = torch.cat([-x, x])
    torch.testing.assert_close(symexp(symlog(x)), x, rtol=1e-5, atol=0)


def test_symlog_is_the_identity_near_zero_and_a_logarithm_far_away():
    x = torch.tensor([1e-4, -1e-4])
    torch.testing.assert_close(symlog(x), x, rtol=1e-4, atol=0)
    assert symlog(torch.tensor(1e6)).item() == pytest.approx(13.8155, rel=1e-5)  # ln 1e6


def test_symlog_is_odd():
    x = torch.randn(100) * 50
    assert torch.equal(symlog(-x), -symlog(x)) and torch.equal(
        symexp(-symlog(x)), -symexp(symlog(x))
    )


def test_golden_bins():
    assert len(BINS) == 255
    golden = torch.tensor([-4.851652e8, 0.0, 0.17055772, 0.37020537])
    torch.testing.assert_close(BINS[[0, 127, 128, 129]], golden, rtol=1e-6, atol=0)


@pytest.mark.parametrize("count", [2, 8, 41, 255])
def test_bins_are_exactly_antisymmetric_and_do_not_fall(count):
    bins = symexp_bins(count)
    assert len(bins) == count
    assert torch.equal(bins, -bins.flip(0)) and (bins.diff() >= 0).all()


def test_fewer_than_two_bins_are_refused():
    with pytest.raises(ValueError, match="count must be at least 2, got 1; the default is 255"):
        symexp_bins(1)


def test_two_neighbors_share_the_weight_linearly():
    weights = twohot(torch.tensor([1.0, 100.0]), BINS)
    assert [row.nonzero().flatten().tolist() for row in weights] == [[131, 132], [156, 157]]
    golden = torch.tensor([[0.61733, 0.38267], [0.71053, 0.28947]])
    torch.testing.assert_close(weights[weights > 0].view(2, 2), golden, rtol=0, atol=2e-5)


def test_the_mean_of_the_target_is_the_number():
    x = torch.tensor([0.0, 0.3, 1.0, 100.0, 1e4, 1e6])
    x = torch.cat([-x, x])
    torch.testing.assert_close(twohot(x, BINS) @ BINS, x, rtol=1e-4, atol=1e-4)


def test_weights_are_a_distribution_for_any_shape():
    weights = twohot(torch.randn(3, 4, 5) * 1e3, BINS)
    assert weights.shape == (3, 4, 5, 255) and (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 4, 5))


def test_beyond_the_range_all_weight_sits_on_the_end():
    weights = twohot(torch.tensor([-1e9, 1e9, -float("inf"), float("inf")]), BINS)
    assert weights.argmax(-1).tolist() == [0, 254, 0, 254]
    assert torch.equal(weights.sum(-1), torch.ones(4)) and torch.equal(
        weights.amax(-1), torch.ones(4)
    )


def test_an_exact_hit_is_one_hot():
    assert torch.equal(twohot(BINS, BINS), torch.eye(255))


def test_with_an_even_count_zero_belongs_to_the_upper_of_the_two_zero_bins():
    bins = symexp_bins(8)
    assert bins[3] == bins[4] == 0
    weights = twohot(torch.tensor([0.0, -0.0, 1.0]), bins)
    assert weights.isfinite().all() and weights.argmax(-1).tolist() == [4, 4, 4]


def test_targets_carry_no_gradient():
    assert not twohot(torch.ones(3, requires_grad=True), BINS).requires_grad
