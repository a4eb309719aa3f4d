"""The hand-written distributions: against the library, and where they go beyond it."""

import math

import pytest
import torch
import torch.distributions as library
from scipy import stats
from torch import Tensor

from dreamer_lite.distributions import (
    Bernoulli,
    BoundedNormal,
    Categorical,
    Choices,
    DiagNormal,
    Gaussian,
    OneHots,
    TanhNormal,
    TruncNormal,
    choices,
)
from dreamer_lite.transforms import sigmoid2

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


def squashed(rows=5, n=3):
    return TanhNormal()(torch.randn(rows, 2 * n))


def test_v1_squashes_a_normal_as_the_library_does():
    p = TanhNormal(init_std=1.0)(torch.randn(5, 6))
    theirs = library.TransformedDistribution(
        library.Normal(p.loc, p.scale), library.TanhTransform()
    )
    a = p.sample()
    assert a.abs().max() < 1
    torch.testing.assert_close(p.log_prob(a), theirs.log_prob(a).sum(-1), rtol=1e-3, atol=1e-3)


def test_the_first_actions_of_v1_are_nearly_all_or_nothing():
    p = TanhNormal()(torch.zeros(1000, 2))
    torch.testing.assert_close(p.scale, torch.full((1000, 1), 5.0), rtol=1e-3, atol=0)
    assert (p.sample().abs() > 0.9).float().mean() > 0.7


def test_an_action_on_the_border_has_a_finite_log_probability():
    p = squashed(2)
    assert p.log_prob(torch.tensor([[1.0, -1.0, 1.0]])).isfinite().all()
    assert p.at(torch.full((3,), 50.0)).isfinite().all()  # tanh 50 = 1 in float32


def test_the_mode_of_v1_is_likelier_than_most_samples_and_each_row_has_its_own():
    p = TanhNormal(init_std=1.0)(torch.randn(64, 4))
    others = torch.stack([p.log_prob(p.sample()) for _ in range(100)])
    assert (p.log_prob(p.mode()) > others.quantile(0.8, 0)).all()
    assert p.mode().unique(dim=0).shape == (64, 2)


def test_the_entropy_of_v1_is_that_of_a_fine_grid():
    p = TanhNormal(init_std=0.7)(torch.tensor([[0.3, -0.2]]).expand(200, 2))
    a = torch.linspace(-1 + 1e-4, 1 - 1e-4, 20_001)[:, None]
    density = p.log_prob(a[:, None])[:, 0].double().exp()
    expected = -(density * density.log()).sum() * 2 / 20_000
    assert p.entropy().mean().item() == pytest.approx(expected.item(), abs=0.03)


def test_v1_samples_carry_gradients_through_tanh():
    params = torch.randn(4, 2, requires_grad=True)
    a = TanhNormal(init_std=1.0)(params).sample()
    gradient = torch.autograd.grad(a.sum(), params)[0]
    assert gradient.isfinite().all() and (gradient[:, 0] > 0).all()


def truncated(*params: float):
    return TruncNormal()(torch.tensor([params]))


@pytest.mark.parametrize("m, s", [(0.0, 0.0), (0.3, -5.0), (-3.0, 0.5), (9.0, 9.0)])
def test_v2_truncates_a_normal_as_scipy_does(m, s):
    p = truncated(m, s)
    loc, scale = p.loc.item(), p.scale.item()
    theirs = stats.truncnorm((-1 - loc) / scale, (1 - loc) / scale, loc, scale)
    a = torch.linspace(-0.99, 0.99, 9)[:, None]
    expected = torch.tensor(theirs.logpdf(a[:, 0].numpy()), dtype=torch.float32)
    torch.testing.assert_close(p.log_prob(a), expected, rtol=1e-3, atol=1e-3)
    assert p.entropy().item() == pytest.approx(theirs.entropy(), abs=1e-3)


def test_v2_samples_follow_the_truncated_density():
    p = TruncNormal()(torch.tensor([0.5, 0.0]).expand(20_000, 2))
    loc, scale = p.loc[0].item(), p.scale[0].item()
    theirs = stats.truncnorm((-1 - loc) / scale, (1 - loc) / scale, loc, scale)
    assert stats.kstest(p.sample()[:, 0].numpy(), theirs.cdf).pvalue > 1e-3


def test_v2_actions_stay_inside_and_nothing_outside_is_possible():
    p = TruncNormal()(torch.tensor([9.0, 9.0]).expand(1000, 2))
    assert p.sample().abs().max() < 1 and (p.mode().abs() <= 1).all()
    assert p.log_prob(torch.tensor([[1.5]])).max() == -math.inf


def test_gradients_of_v2_samples_ignore_the_cut():
    # The exact reparameterization would say 0.14 for this one, TensorFlow says 1.
    loc, scale = torch.tensor([0.3], requires_grad=True), torch.tensor([0.7], requires_grad=True)
    a = type(truncated(0.0, 0.0))(loc, scale).sample()
    gradients = torch.autograd.grad(a.sum(), [loc, scale])
    assert gradients[0].item() == 1
    torch.testing.assert_close(gradients[1], (a - loc).detach() / scale.detach())


# --- latents and events --------------------------------------------------------------------------


def test_a_gaussian_latent_has_a_floor_under_its_deviation():
    latent = Gaussian(size=3, min_std=0.1)
    p = latent(torch.tensor([1.0, 2.0, 3.0, -100.0, 0.0, 100.0]))
    assert latent.num_params == 6 and p.sample().shape == (3,)
    torch.testing.assert_close(p.mean, torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(p.std, torch.tensor([0.1, math.log(2) + 0.1, 100.1]))


def test_a_gaussian_latent_may_read_its_deviation_from_a_sigmoid():
    p = Gaussian(2, 0.1, sigmoid2)(torch.tensor([0.0, 0.0, 0.0, 100.0]))
    torch.testing.assert_close(p.std, torch.tensor([1.1, 2.1]))


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
