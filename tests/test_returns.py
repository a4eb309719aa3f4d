"""λ-returns: published limits, numbers worked out by hand, and the two alignments in use."""

import pytest
import torch

from dreamer_lite.returns import discount_weights, lambda_return

REWARD = torch.tensor([0.0, 1.0, 2.0, 3.0])
VALUE = torch.tensor([10.0, 20.0, 30.0, 40.0])
GAMMA = torch.full((3,), 0.9)
HALF = torch.full((3,), 0.5)
NO_TRACE = torch.tensor([0.5, 0.0, 0.5])  # the trace ends at time 2, entry 1


def rows(horizon=7, width=5):
    """Random rewards, discounts and values [H,N]."""
    return torch.randn(horizon, width), torch.rand(horizon, width), torch.randn(horizon, width)


def shifted_return(reward, discount, value, lam):
    """V1's and V2's form: Rₜ = rₜ + dₜ [(1-λ) vₜ₊₁ + λ Rₜ₊₁], R_H = v_H.  [H+1,N] -> [H,N]."""
    ret, returns = value[-1], []
    for t in reversed(range(len(reward) - 1)):
        ret = reward[t] + discount[t] * ((1 - lam) * value[t + 1] + lam * ret)
        returns.append(ret)
    return torch.stack(returns[::-1])


def n_step(reward, discount, value, t, n):
    """n rewards after time t, then the value: the slow way, one product at a time."""
    total, weight = torch.zeros_like(reward[0]), torch.ones_like(reward[0])
    for k in range(t, t + n):
        total = total + weight * reward[k]
        weight = weight * discount[k]
    return total + weight * value[t + n - 1]


@pytest.mark.parametrize(
    "discount, lam, expected",
    [
        (GAMMA, HALF, [24.8725, 33.05, 39.0]),
        (GAMMA * torch.tensor([1.0, 0.0, 1.0]), NO_TRACE, [10.9, 2.0, 39.0]),  # terminal at 2
        (GAMMA, NO_TRACE, [23.05, 29.0, 39.0]),  # cut at 2: the value counts, the trace ends
    ],
    ids=["plain", "terminal", "truncated"],
)
def test_golden_numbers(discount, lam, expected):
    ret = lambda_return(REWARD[1:], discount, VALUE[1:], lam)
    torch.testing.assert_close(ret, torch.tensor(expected))


def test_lambda_zero_is_one_step_td():
    reward, discount, value = rows()
    torch.testing.assert_close(
        lambda_return(reward, discount, value, 0.0), reward + discount * value
    )


def test_lambda_one_is_monte_carlo_with_a_bootstrap():
    reward, discount, value = rows()
    expected = torch.stack([n_step(reward, discount, value, t, 7 - t) for t in range(7)])
    torch.testing.assert_close(lambda_return(reward, discount, value, 1.0), expected)


@pytest.mark.parametrize("lam", [0.3, 0.95])
def test_it_is_the_weighted_average_of_all_n_step_returns(lam):
    reward, discount, value = rows()
    expected = []
    for t in range(7):
        steps = 7 - t
        weights = [(1 - lam) * lam ** (n - 1) for n in range(1, steps)] + [lam ** (steps - 1)]
        terms = [w * n_step(reward, discount, value, t, n) for n, w in enumerate(weights, 1)]
        expected.append(sum(terms))
    torch.testing.assert_close(lambda_return(reward, discount, value, lam), torch.stack(expected))


def test_the_form_of_v1_and_v2_gives_its_own_golden_numbers():
    ret = shifted_return(REWARD, torch.full((4,), 0.9), VALUE, 0.5)
    torch.testing.assert_close(ret, torch.tensor([23.22, 31.6, 38.0]))


def test_relabeling_turns_returns_of_v3_into_those_of_v1_and_v2():
    # Where values include the reward of their state, v2 = r + d·v3, then also R2 = r + d·R3.
    reward, discount, value = (x.double() for x in rows(8))
    old = shifted_return(reward, discount, reward + discount * value, 0.95)
    new = lambda_return(reward[1:], discount[1:], value[1:], 0.95)
    torch.testing.assert_close(old, reward[:-1] + discount[:-1] * new)


def test_constant_reward_has_the_fixed_point_of_the_geometric_series():
    value = torch.full((15, 1), 1 / (1 - 0.9))
    ret = lambda_return(torch.ones(15, 1), torch.full((15, 1), 0.9), value, 0.95)
    torch.testing.assert_close(ret, value)


def test_gradients_reach_reward_discount_and_value():
    inputs = [x.requires_grad_() for x in rows()]
    gradients = torch.autograd.grad(lambda_return(*inputs, 0.95).sum(), inputs)
    assert all((g != 0).all() for g in gradients)
    assert gradients[0][0].allclose(torch.ones(5))  # r₁ counts once, in R₀


def test_misaligned_arrays_are_refused_with_a_remedy():
    reward, discount, value = rows()
    with pytest.raises(ValueError, match=r"\[7, 5\], \[7, 5\], \[8, 5\]; pass value\[1:\]"):
        lambda_return(reward, discount, torch.cat([value, value[:1]]), 0.95)


def test_weights_are_the_product_of_the_continue_flag_and_discounts():
    discount = torch.tensor([[0.9], [0.5], [0.1]])
    weight = discount_weights(torch.tensor([True]), discount)
    torch.testing.assert_close(weight, torch.tensor([[1.0], [0.9], [0.45]]))


def test_nothing_counts_after_the_end():
    discount = torch.tensor([[1.0], [0.0], [1.0], [1.0]])
    assert discount_weights(torch.tensor([True]), discount).flatten().tolist() == [1, 1, 0, 0]


def test_a_terminal_start_trains_nobody():
    assert not discount_weights(torch.tensor([False]), torch.rand(15, 1)).any()


def test_weights_carry_no_gradient():
    assert not discount_weights(torch.ones(5), torch.rand(7, 5).requires_grad_()).requires_grad


def test_flags_of_another_shape_than_the_dream_are_refused():
    with pytest.raises(ValueError, match=r"cont must be .* flatten"):
        discount_weights(torch.ones(3, 2), torch.rand(7, 6))
