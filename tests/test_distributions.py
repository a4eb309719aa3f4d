"""The hand-written distributions: against the library, and where they go beyond it."""

import math

import pytest
import torch
import torch.distributions as library
from torch import Tensor

from dreamer_lite.distributions import (
    Bernoulli,
    BoundedNormal,
    Categorical,
    Choices,
    DiagNormal,
    Gaussian,
    OneHots,
    choices,
)

EXTREME = torch.tensor([[1e4, 0.0, 0.0, 0.0], [-1e4, 0.0, 1e4, 3.0]])  # two groups of four


def normals():
    mean, std = torch.randn(2, 5, 3), torch.rand(2, 5, 3) + 0.1
    ours = [DiagNormal(m, s) for m, s in zip(mean, std, strict=True)]
    theirs = [library.Independent(library.Normal(*p), 1) for p in ours]
    return ours, theirs


def dice(groups=3, classes=4, unimix=0.0):
    ours = [OneHots.of(2 * torch.randn(5, groups, classes), unimix) for _ in range(2)]
    theirs = [library.Independent(library.OneHotCategorical(probs=p.probs), 1) for p in ours]
    return ours, theirs


@pytest.mark.parametrize("build", [normals, dice, lambda: dice(unimix=0.01)])
def test_log_probability_entropy_and_kl_are_those_of_the_library(build):
    (p, q), (r, s) = build()
    x = p.sample()
    event = x if isinstance(p, DiagNormal) else x.unflatten(-1, (3, 4))
    torch.testing.assert_close(p.log_prob(x), r.log_prob(event))
    torch.testing.assert_close(p.entropy(), r.entropy())
    torch.testing.assert_close(p.kl(q), library.kl_divergence(r, s))
    assert p.kl(p).abs().max() < 1e-6


@pytest.mark.parametrize("build", [normals, dice])
def test_detached_means_no_gradient_and_the_same_numbers(build):
    (p, q), _ = build()
    p = type(p)(*(x.requires_grad_() for x in p))
    assert not p.detach().kl(q).requires_grad and p.kl(q).requires_grad
    torch.testing.assert_close(p.detach().kl(q), p.kl(q))


def test_normal_samples_have_their_mean_and_deviation():
    p = DiagNormal(
        torch.tensor([1.0, -2.0]).expand(100_000, 2), torch.tensor([0.5, 3.0]).expand(100_000, 2)
    )
    x = p.sample()
    torch.testing.assert_close(x.mean(0), p.mean[0], rtol=0, atol=0.05)
    torch.testing.assert_close(x.std(0), p.std[0], rtol=0.02, atol=0)


def test_normal_samples_carry_gradients_to_mean_and_deviation():
    mean, std = torch.zeros(3, requires_grad=True), torch.ones(3, requires_grad=True)
    x = DiagNormal(mean, std).sample()
    gradients = torch.autograd.grad(x.sum(), [mean, std])
    assert torch.equal(gradients[0], torch.ones(3))
    torch.testing.assert_close(gradients[1], x.detach())  # dx/dstd is the noise


# --- one-hots ------------------------------------------------------------------------------------


def test_samples_are_exactly_one_hot_even_with_a_gradient():
    logits = torch.randn(64, 8, 5, requires_grad=True)
    for draw in (OneHots.of(logits, 0.01).sample(), OneHots.of(logits, 0.01).mode()):
        groups = draw.detach().unflatten(-1, (8, 5))
        assert set(groups.unique().tolist()) == {0.0, 1.0}
        assert torch.equal(groups.sum(-1), torch.ones(64, 8))


def test_classes_are_drawn_as_often_as_their_probability_says():
    p = OneHots.of(torch.tensor([[0.0, 1.0, 2.0, -1.0]]).expand(100_000, 1, 4), 0.01)
    counts = p.sample().sum(0)
    expected = 100_000 * p.probs[0, 0]
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert chi2 < 16.3  # three degrees of freedom, one in a thousand


def test_groups_are_drawn_independently():
    x = OneHots.of(torch.zeros(50_000, 2, 2)).sample()
    both = (x[:, 0] * x[:, 2]).mean()
    assert both.item() == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("uniform, expected", [(0.0, 1), (1 - 2**-24, 3)])
def test_the_ends_of_the_uniform_number_draw_possible_classes(monkeypatch, uniform, expected):
    probs = torch.tensor([[0.0, 0.5, 0.25, 0.25 - 2**-20]])  # rounding: the sum is below 1
    monkeypatch.setattr(torch, "rand_like", lambda x: torch.full_like(x, uniform))
    assert OneHots(probs, probs.log()).sample().argmax().item() == expected


@pytest.mark.parametrize("unimix", [0.0, 0.01, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_the_straight_through_gradient_is_that_of_the_mixed_probabilities(seed, unimix):
    torch.manual_seed(seed)
    logits, w = torch.randn(1, 5, requires_grad=True), torch.randn(5)
    z = OneHots.of(logits, unimix).sample()
    s = logits.detach().softmax(-1)[0]
    jacobian = (1 - unimix) * (torch.diag(s) - torch.outer(s, s))
    gradient = torch.autograd.grad((z * w).sum(), logits)[0]
    torch.testing.assert_close(gradient[0], jacobian @ w)


def test_mixing_leaves_every_class_a_share_and_bounds_the_kl():
    p = OneHots.of(EXTREME, 0.01)
    q = OneHots.of(EXTREME.flip(-1), 0.01)
    assert p.probs.min().item() == pytest.approx(0.01 / 4)
    assert 0 < p.kl(q) <= 2 * math.log(4 / 0.01)  # two groups
    most = math.log(32 / 0.01)
    assert most == pytest.approx(8.07, abs=0.005)
    logits = torch.zeros(2, 1, 32)
    logits[0, 0, 0] = logits[1, 0, 1] = 1e4
    p, q = OneHots.of(logits[:1], 0.01), OneHots.of(logits[1:], 0.01)
    assert 7.9 < p.kl(q).item() <= most


def test_without_mixing_extreme_logits_stay_finite():
    p = OneHots.of(EXTREME)
    assert p.entropy().isfinite() and p.kl(OneHots.of(EXTREME.flip(-1))).isfinite()


def test_half_precision_logits_are_computed_in_full():
    p = OneHots.of(torch.randn(2, 3, 4).bfloat16(), 0.01)
    assert p.probs.dtype == p.sample().dtype == torch.float32
    torch.testing.assert_close(p.probs.sum(-1), torch.ones(2, 3))


def test_the_mode_is_the_most_likely_class():
    p = OneHots.of(torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 1.0]]))
    assert p.mode().tolist() == [0, 1, 0, 1, 0, 0]


# --- actions -------------------------------------------------------------------------------------


def test_one_choice_is_a_plain_die():
    assert isinstance(choices(torch.zeros(2, 3), (3,), 0.01), OneHots)


def test_several_choices_are_independent_and_side_by_side():
    logits = torch.randn(6, 5)
    pi = choices(logits, (3, 2), 0.01)
    assert isinstance(pi, Choices)
    x = pi.sample()
    assert x.shape == (6, 5)
    assert torch.equal(x[:, :3].sum(-1), torch.ones(6)) and torch.equal(
        x[:, 3:].sum(-1), torch.ones(6)
    )
    left, right = choices(logits[:, :3], (3,), 0.01), choices(logits[:, 3:], (2,), 0.01)
    torch.testing.assert_close(pi.log_prob(x), left.log_prob(x[:, :3]) + right.log_prob(x[:, 3:]))
    torch.testing.assert_close(pi.entropy(), left.entropy() + right.entropy())
    assert torch.equal(pi.mode(), torch.cat([left.mode(), right.mode()], -1))


def test_no_action_is_less_likely_than_its_share_of_the_mixture():
    pi = choices(torch.tensor([[1e4, 0.0, 0.0, 0.0]]), (4,), 0.01)
    assert pi.log_prob(torch.eye(4)).min().item() == pytest.approx(math.log(0.01 / 4))


def bounded(*params: float) -> DiagNormal:
    return BoundedNormal()(torch.tensor(params))


def test_a_continuous_policy_has_a_bounded_mean_and_a_deviation_between_its_limits():
    p = bounded(100.0, -100.0, 0.0, 100.0, -100.0, 0.0)
    torch.testing.assert_close(p.mean, torch.tensor([1.0, -1.0, 0.0]))
    torch.testing.assert_close(p.std, torch.tensor([1.0, 0.1, 0.1 + 0.9 * 0.880797]))


def test_its_entropy_lies_between_those_of_its_limits():
    low, high = (0.5 * math.log(2 * math.pi * math.e * s**2) for s in (0.1, 1.0))
    assert low < bounded(0.3, -2.0).entropy().item() < high


def test_its_samples_leave_the_box_and_their_log_probability_is_not_corrected():
    p = BoundedNormal()(torch.tensor([2.0, 3.0]).expand(1000, 2))
    x = p.sample()
    assert x.max() > 1
    torch.testing.assert_close(p.log_prob(x), library.Normal(p.mean, p.std).log_prob(x).sum(-1))


# --- latents and events --------------------------------------------------------------------------


def test_a_gaussian_latent_has_a_floor_under_its_deviation():
    latent = Gaussian(size=3, min_std=0.1)
    p = latent(torch.tensor([1.0, 2.0, 3.0, -100.0, 0.0, 100.0]))
    assert latent.num_params == 6 and p.sample().shape == (3,)
    torch.testing.assert_close(p.mean, torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(p.std, torch.tensor([0.1, math.log(2) + 0.1, 100.1]))


def test_a_categorical_latent_is_flat_outside_and_grouped_inside():
    latent = Categorical(groups=3, classes=4, unimix=0.01)
    p = latent(torch.randn(2, 12))
    assert latent.size == latent.num_params == 12
    assert p.probs.shape == (2, 3, 4) and p.sample().shape == (2, 12)


def soft_loss(logit: Tensor) -> Tensor:
    return -Bernoulli(logit).log_prob(torch.tensor(0.997))


def test_a_soft_label_is_learned_as_the_probability():
    best = torch.tensor(0.997).logit()
    losses = [soft_loss(best + shift) for shift in (-0.5, 0.0, 0.5)]
    assert losses[1] < losses[0] and losses[1] < losses[2]
    assert Bernoulli(best).mean.item() == pytest.approx(0.997, abs=1e-6)


def test_a_yes_or_no_event_is_that_of_the_library():
    logit, x = torch.randn(5), torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0])
    torch.testing.assert_close(
        Bernoulli(logit).log_prob(x), library.Bernoulli(logits=logit).log_prob(x)
    )
