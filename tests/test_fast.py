"""The fast layers compute what the readable ones compute."""

from copy import deepcopy

import pytest
import tiny
import torch
from torch import nn

from dreamer_lite.fast import (
    SWAPS,
    FastBlockGRU,
    FastSequential,
    FastTwoHotHead,
    _RMSNormSiLU,
    accelerate,
    keep_freed_memory,
)
from dreamer_lite.heads import TwoHotHead
from dreamer_lite.networks import BlockGRU, RMSNorm, Style, mlp


def near(fast, plain):
    """Within 1e-4 of the largest entry."""
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-4 * plain.abs().max().item() + 1e-9)


def losses_and_gradients(agent, batch):
    torch.manual_seed(1)
    losses, states, _ = agent.losses(batch, None)
    return losses, states, agent.gradients(losses)["model"]


def twins(action=tiny.ONE_CHOICE):
    agent = tiny.agent(action)
    return agent, accelerate(deepcopy(agent))


@pytest.mark.parametrize("spec", tiny.ACTIONS.values(), ids=tiny.ACTIONS)
def test_losses_states_and_gradients_are_those_of_the_reference(spec):
    plain, fast = twins(spec)
    batch = tiny.batch(spec)
    reference, answer = (losses_and_gradients(agent, batch) for agent in (plain, fast))
    for name, loss in reference[0].items():
        near(answer[0][name], loss)
    near(answer[1].feat, reference[1].feat)
    for g, h in zip(answer[2], reference[2], strict=True):
        near(g, h)


def test_an_agent_after_updates_is_that_of_the_reference():
    plain, fast = twins()
    batch = tiny.batch()
    for agent in (plain, fast):
        torch.manual_seed(1)
        for _ in range(3):
            agent.update(batch)
    for a, b in zip(plain.state_dict().values(), fast.state_dict().values(), strict=True):
        near(b, a)


def test_every_kind_of_layer_is_swapped_and_no_weight_changes_its_name():
    plain, fast = twins()
    kinds = {type(m) for m in fast.modules()}
    assert kinds >= set(SWAPS.values()) and not kinds & set(SWAPS)
    before, after = plain.state_dict(), fast.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)
    plain.load_state_dict(after)
    fast.load_state_dict(before)


def test_twice_is_once():
    agent = tiny.agent()
    assert accelerate(accelerate(agent)) is agent


def test_norm_and_activation_in_one_function():
    net = mlp(5, 8, 2, Style())
    fast = deepcopy(net)
    fast.__class__ = FastSequential
    near(fast(torch.arange(5.0)), net(torch.arange(5.0)))  # no batch axis
    x = torch.randn(4, 3, 5)
    near(fast(x), net(x))


def test_the_written_gradient_of_norm_and_activation_is_the_numerical_one():
    x = torch.randn(4, 6, dtype=torch.double, requires_grad=True)
    scale = torch.randn(6, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, s: _RMSNormSiLU.apply(x, s, 1e-4), (x, scale))
    plain = nn.functional.silu(nn.functional.rms_norm(x, (6,), scale, 1e-4))
    torch.testing.assert_close(_RMSNormSiLU.apply(x, scale, 1e-4), plain)


def test_a_norm_without_the_usual_activation_stays():
    net = nn.Sequential(RMSNorm(4), nn.ELU())
    x = torch.randn(3, 4)
    expected = net(x)
    net.__class__ = FastSequential
    assert torch.equal(net(x), expected)


def test_the_dense_product_of_shared_inputs():
    cell = BlockGRU(16, 6, 8, 3, Style(), blocks=4)
    h, z, a = torch.randn(5, 16), torch.randn(5, 8), 3 * torch.randn(5, 3)
    expected = cell(h, z, a)
    cell.__class__ = FastBlockGRU
    near(cell(h, z, a), expected)


@pytest.mark.parametrize("bins", [255, 41, 8])
def test_two_bins_instead_of_all(bins):
    plain, fast = TwoHotHead(bins), FastTwoHotHead(bins)
    target = torch.tensor([0.0, 1.0, -1.0, 0.3, 1e4, -1e9, 1e9, plain.bins[3], plain.bins[-1]])
    params = torch.randn(len(target), bins)
    near(fast.loss(params, target), plain.loss(params, target))
    near(fast.mean(params), plain.mean(params))
    assert (fast.mean(torch.zeros(3, bins)) == 0).all()


def test_asking_the_allocator_to_keep_memory_answers_whether_it_will():
    assert keep_freed_memory() in (True, False)
