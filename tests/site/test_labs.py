"""The mathematics of the labs is that of the package, on grids made when the test runs."""

import pytest
import torch

from dreamer_lite.returns import lambda_return

SAME = dict(rtol=0, atol=1e-6)


def dreams():
    """Rewards, discounts, values [H] and λ: random, with endings, and at the limits of λ."""
    torch.manual_seed(0)
    for horizon in (1, 2, 5, 15):
        for lam in (0.0, 0.3, 0.95, 1.0):
            reward, value = torch.randn(2, horizon, dtype=torch.float64) * 3
            discount = torch.rand(horizon, dtype=torch.float64)
            discount[horizon // 2] = 0.0 if lam == 0.3 else 0.99
            yield reward, discount, value, lam


def lists(case):
    """Tensors as lists, for JavaScript."""
    return [x.tolist() if isinstance(x, torch.Tensor) else x for x in case]


def numbers(x):
    return torch.tensor(x, dtype=torch.float64)


@pytest.mark.parametrize("formula", ["recursion", "mixture"])
def test_lambda_lab_computes_the_returns_of_the_package(formula, js):
    found = js("lambda-lab", formula, map(lists, dreams()))
    for got, case in zip(found, dreams(), strict=True):
        torch.testing.assert_close(numbers(got), lambda_return(*case), **SAME)


def test_lambda_lab_computes_n_step_returns(js):
    cases = [lists(case)[:3] for case in dreams()]
    one = js("lambda-lab", "nstep", [(*case, 0, 1) for case in cases])
    whole = js("lambda-lab", "nstep", [(*case, 0, len(case[0])) for case in cases])
    for short, long, case in zip(one, whole, dreams(), strict=True):
        assert abs(short - lambda_return(*case[:3], 0.0)[0]) < 1e-6
        assert abs(long - lambda_return(*case[:3], 1.0)[0]) < 1e-6


def test_the_weights_of_lambda_lab_sum_to_one(js):
    cases = [(steps, lam) for steps in (1, 2, 7) for lam in (0.0, 0.5, 1.0)]
    assert all(abs(sum(found) - 1) < 1e-12 for found in js("lambda-lab", "weights", cases))


def test_the_index_shift_of_lambda_lab_uses_the_value_of_the_state_that_is_left(js):
    case = [1.0, 2.0], [0.5, 0.5], [10.0, 20.0], 0.0, 4.0
    assert js("lambda-lab", "shifted", [case]) == [[1 + 0.5 * 4, 2 + 0.5 * 10]]


def test_a_wrong_formula_is_noticed(js):
    case = list(dreams())[6]
    got = js("lambda-lab", "shifted", [[*lists(case), 0.0]])[0]
    assert not torch.allclose(numbers(got), lambda_return(*case), **SAME)
