"""Update rules: against a few lines of NumPy, and the limits that make them useful."""

import numpy as np
import pytest
import torch

from dreamer_lite.optim import Adam, LaProp, Optimizer, adaptive_clip

SHAPES = {"kernel": (4, 3), "bias": (3,)}


def problem(steps=10, scale=1.0):
    """Parameters and their gradients over some steps."""
    params = {k: torch.randn(s) for k, s in SHAPES.items()}
    return params, [[scale * torch.randn(s) for s in SHAPES.values()] for _ in range(steps)]


def run(rule, params, grads):
    optimizer = Optimizer({k: p.clone() for k, p in params.items()}, rule)
    for g in grads:
        optimizer.step(g)
    return [p.numpy() for p in optimizer.params.values()]


def laprop(rule, params, grads):
    """The formulas, tensor by tensor, in float64."""
    params = [p.double().numpy() for p in params.values()]
    m, v = [0 * p for p in params], [0 * p for p in params]
    for t, step in enumerate(grads):
        for i, g in enumerate(x.double().numpy() for x in step):
            limit = rule.agc * max(1e-3, np.linalg.norm(params[i]))
            g = g * min(1, limit / np.linalg.norm(g))
            v[i] = rule.beta2 * v[i] + (1 - rule.beta2) * g**2
            u = g / (np.sqrt(v[i] / (1 - rule.beta2 ** (t + 1))) + rule.eps)
            m[i] = rule.beta1 * m[i] + (1 - rule.beta1) * u
            rate = rule.lr * min(1, t / rule.warmup) if rule.warmup else rule.lr
            params[i] = params[i] - rate * m[i] / (1 - rule.beta1 ** (t + 1))
    return params


def keras_adam(rule, params, grads):
    """Clip by the norm of everything, decay, then Adam with ε beside the uncorrected √ν."""
    params = [p.double().numpy() for p in params.values()]
    m, v = [0 * p for p in params], [0 * p for p in params]
    for t, step in enumerate(grads, 1):
        step = [x.double().numpy() for x in step]
        norm = np.sqrt(sum((g**2).sum() for g in step))
        for i, g in enumerate(step):
            g = g * min(1, rule.clip / norm)
            m[i] = rule.beta1 * m[i] + (1 - rule.beta1) * g
            v[i] = rule.beta2 * v[i] + (1 - rule.beta2) * g**2
            rate = rule.lr * np.sqrt(1 - rule.beta2**t) / (1 - rule.beta1**t)
            params[i] = (1 - rule.decay) * params[i] - rate * m[i] / (np.sqrt(v[i]) + rule.eps)
    return params


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("warmup", [0, 4])
def test_laprop_is_its_formula(warmup, scale):
    rule = LaProp(lr=0.01, warmup=warmup)
    params, grads = problem(scale=scale)
    for ours, formula in zip(run(rule, params, grads), laprop(rule, params, grads), strict=True):
        np.testing.assert_allclose(ours, formula, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3])
def test_adam_is_that_of_keras(scale):
    rule = Adam(lr=0.01, clip=2.0, decay=0.01)
    params, grads = problem(scale=scale)
    for ours, formula in zip(
        run(rule, params, grads), keras_adam(rule, params, grads), strict=True
    ):
        np.testing.assert_allclose(ours, formula, rtol=1e-5, atol=1e-6)


def test_the_order_of_normalizing_and_momentum_matters():
    params, grads = problem()
    first = run(LaProp(lr=0.01, warmup=0, agc=1e9), params, grads)
    second = run(Adam(lr=0.01, clip=1e9, eps=1e-20), params, grads)
    assert np.abs(first[0] - second[0]).max() > 1e-3


def test_no_tensor_gets_a_gradient_above_its_share_of_the_weights():
    params, grads = problem(1, scale=100.0)
    clipped = adaptive_clip(grads[0], list(params.values()), 0.3)
    for p, g, raw in zip(params.values(), clipped, grads[0], strict=True):
        assert g.norm().item() == pytest.approx(0.3 * p.norm().item(), rel=1e-5)
        torch.testing.assert_close(g / g.norm(), raw / raw.norm())  # the direction stays


def test_small_gradients_are_not_clipped():
    params, grads = problem(1, scale=1e-3)
    for g, raw in zip(adaptive_clip(grads[0], list(params.values()), 0.3), grads[0], strict=True):
        assert torch.equal(g, raw)


def test_weights_that_are_zero_may_move_by_the_floor():
    clipped = adaptive_clip([torch.ones(10)], [torch.zeros(10)], 0.3)
    assert clipped[0].norm().item() == pytest.approx(3e-4)


def test_a_gradient_of_zero_stays_zero():
    clipped = adaptive_clip([torch.zeros(3)], [torch.zeros(3)], 0.3)
    assert torch.equal(clipped[0], torch.zeros(3))
    params = {"p": torch.ones(3)}
    Optimizer(params, LaProp(warmup=0)).step([torch.zeros(3)])
    assert torch.equal(params["p"], torch.ones(3))


def test_the_first_step_of_a_warm_up_moves_nothing_and_the_last_is_full():
    rule = LaProp(lr=0.1, warmup=4)
    assert [rule.rate(count) for count in range(6)] == pytest.approx(
        [0, 0.025, 0.05, 0.075, 0.1, 0.1]
    )
    params, grads = problem(1)
    for before, after in zip(params.values(), run(rule, params, grads), strict=True):
        assert np.array_equal(before.numpy(), after)


def test_gradients_reach_only_the_parameters_of_the_optimizer():
    ours, theirs = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    gradients = Optimizer({"ours": ours}, LaProp()).gradients((ours * theirs).sum())
    assert torch.equal(gradients[0], torch.ones(2))
    assert ours.grad is None and theirs.grad is None


def test_parameters_that_the_loss_does_not_touch_get_zeros():
    used, unused = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    gradients = Optimizer({"used": used, "unused": unused}, LaProp()).gradients(used.sum())
    assert torch.equal(gradients[1], torch.zeros(3))


def test_the_norm_is_reported_before_clipping():
    optimizer = Optimizer({"p": torch.ones(4)}, LaProp())
    assert optimizer.step([torch.full((4,), 50.0)]).item() == pytest.approx(100.0)
    assert optimizer.count == 1


def test_a_clip_of_zero_is_refused_for_it_would_stop_everything():
    with pytest.raises(ValueError, match="clip must be above 0"):
        Adam(clip=0.0)
