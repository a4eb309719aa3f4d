"""The fast layers compute what the readable ones compute, with and without compiled kernels."""

from copy import deepcopy
from dataclasses import replace

import pytest
import tiny
import torch
from torch import nn

from dreamer_lite import native
from dreamer_lite.fast import (
    SWAPS,
    FastCategorical,
    FastPixelHead,
    FastSequential,
    FastTwoHotHead,
    _RMSNormSiLU,
    accelerate,
    keep_freed_memory,
)
from dreamer_lite.fast_conv import FastConvTranspose2d, quarters
from dreamer_lite.fast_rssm import FastBlockGRU, FastRSSM, Joined
from dreamer_lite.heads import PixelHead, TwoHotHead
from dreamer_lite.networks import (
    BlockGRU,
    ConvDecoder,
    RMSNorm,
    Style,
    down_pool,
    mlp,
    readout,
    up_nearest,
    up_stride,
)
from dreamer_lite.presets import LAPTOP, PRESETS, TOY, V3, VECTOR, sized
from dreamer_lite.rssm import RSSM, State

ATARI = {"image": (64, 64, 1)}
RGB = {"image": (64, 64, 3)}


def near(fast, plain):
    """Within 1e-4 of the largest entry."""
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-4 * plain.abs().max().item() + 1e-9)


@pytest.fixture(autouse=True, params=["kernels", "library"])
def kernels(request, monkeypatch):
    """Every test runs twice: with compiled kernels, and as on a machine without a compiler."""
    if request.param == "library":
        monkeypatch.setattr(native, "available", lambda: False)
    elif not native.available():
        pytest.skip("no C compiler")
    return request.param == "kernels"


def losses_and_gradients(agent, batch):
    torch.manual_seed(1)
    losses, states, metrics = agent.losses(batch, None)
    return losses, states, metrics, agent.gradients(losses)


def shrunk(cfg):
    """The formulas and convolutions of a preset in small networks."""
    model = replace(cfg.model, deter=64, hidden=16, units=16)
    return replace(cfg, model=model, behavior=replace(cfg.behavior, horizon=4))


def twins(action=tiny.ONE_CHOICE, obs=None, cfg=None):
    agent = tiny.agent(action, obs, cfg)
    for net in (agent.world_model.reward_net, agent.behavior.critic, agent.behavior.slow_critic):
        if net and net[-1].out_features == 255:  # training soon leaves bins of 1e8 no weight
            net[-1].bias.data.copy_(-torch.linspace(-20, 20, 255).abs())
    return agent, accelerate(deepcopy(agent))


def same(plain, fast, batch):
    """Losses, states, metrics and gradients agree."""
    reference, answer = (losses_and_gradients(agent, batch) for agent in (plain, fast))
    for expected, got in zip((reference[0], reference[2]), (answer[0], answer[2]), strict=True):
        assert expected.keys() == got.keys()
        for name, x in expected.items():
            near(got[name], x)
    near(answer[1].feat, reference[1].feat)
    for part, grads in reference[3].items():
        for g, h in zip(answer[3][part], grads, strict=True):
            near(g, h)


@pytest.mark.parametrize("spec", tiny.ACTIONS.values(), ids=tiny.ACTIONS)
def test_losses_states_and_gradients_are_those_of_the_reference(spec):
    same(*twins(spec), tiny.batch(spec))


PLAYED = {
    "laptop": (LAPTOP, ATARI, tiny.ONE_CHOICE),
    "toy": (TOY, {"image": (16, 16, 3)}, tiny.ONE_CHOICE),
    "v3": (sized(V3, "1m"), {"image": (64, 64, 3)}, tiny.ONE_CHOICE),
    "vector": (VECTOR, {"vector": (4,)}, tiny.ONE_CHOICE),
    "v1": (tiny.PAPERS["V1"], None, tiny.NUMBERS),
    "v2": (tiny.PAPERS["V2"], None, tiny.ONE_CHOICE),
    "v2_dmc": (tiny.PAPERS["V2 control"], None, tiny.NUMBERS),
    "toy_v1": (PRESETS["toy_v1"], None, tiny.ONE_CHOICE),
    "toy_v2": (PRESETS["toy_v2"], None, tiny.ONE_CHOICE),
}


@pytest.mark.parametrize("name", PLAYED)
def test_every_preset_keeps_its_losses_and_gradients(name):
    cfg, obs, action = PLAYED[name]
    plain, fast = twins(action, obs, shrunk(cfg))
    same(plain, fast, tiny.batch(action, obs, time=4, size=2))


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["kernels"], indirect=True)
def test_the_step_that_is_benchmarked_keeps_its_losses_and_gradients():
    """V3 at 1m, 64×64 RGB, 16×64, horizon 15.

    Rounding turns a pool or a die that is all but undecided, and with it a gradient. So there are
    four frames, not a thousand, and a batch on which the two disagree gets two more chances.
    """
    for seed in range(3):
        torch.manual_seed(seed)
        plain, fast = twins(obs=RGB, cfg=sized(V3, "1m"))
        batch = tiny.batch(obs=RGB, time=64, size=16)
        frames = batch.obs["image"][:1, :4].repeat(64, 4, 1, 1, 1)
        try:
            return same(plain, fast, batch._replace(obs={"image": frames}))
        except AssertionError as error:
            found = error
    raise found


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
    plain, fast = twins(cfg=shrunk(LAPTOP))
    model = fast.world_model
    kinds = {type(m) for m in [*fast.modules(), *model.obs_heads.values()]}
    assert kinds >= set(SWAPS.values()) and not kinds & set(SWAPS)
    assert type(model.rssm.latent) is FastCategorical
    before, after = plain.state_dict(), fast.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)
    plain.load_state_dict(after)
    fast.load_state_dict(before)


def test_twice_is_once():
    agent = tiny.agent()
    assert accelerate(accelerate(agent)) is agent


def test_no_settings_change():
    agent = tiny.agent()
    before = agent.cfg
    assert accelerate(agent).cfg == before == tiny.config()


# --- stacks ---------------------------------------------------------------------------------------


def test_norm_and_activation_in_one_function():
    net = mlp(5, 8, 2, Style())
    fast = deepcopy(net)
    fast.__class__ = FastSequential
    near(fast(torch.arange(5.0)), net(torch.arange(5.0)))  # no batch axis
    x = torch.randn(4, 3, 5)
    near(fast(x), net(x))
    near(fast(x.transpose(0, 1)), net(x.transpose(0, 1)))
    assert fast(x[:0]).shape == (0, 3, 8)


def test_the_gradient_of_a_stack_is_that_of_its_layers():
    net = readout(5, 8, 2, 3, Style())
    fast = deepcopy(net)
    fast.__class__ = FastSequential
    x, grad = torch.randn(40, 5), torch.randn(40, 3)
    for wanted in (True, False):  # a first layer need not answer for its input
        grads = []
        for made in (net, fast):
            seen = x.clone().requires_grad_(wanted)
            of = [*([seen] if wanted else []), *made.parameters()]
            grads.append(torch.autograd.grad(made(seen), of, grad))
        for a, b in zip(*grads, strict=True):
            near(b, a)


def test_the_written_gradient_of_norm_and_activation_is_the_numerical_one():
    x = torch.randn(4, 6, dtype=torch.double, requires_grad=True)
    scale = torch.randn(6, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, s: _RMSNormSiLU.apply(x, s, 1e-4), (x, scale))
    plain = nn.functional.silu(nn.functional.rms_norm(x, (6,), scale, 1e-4))
    torch.testing.assert_close(_RMSNormSiLU.apply(x, scale, 1e-4), plain)


@pytest.mark.parametrize("layers", [[RMSNorm(4), nn.ELU()], [nn.Linear(4, 4), nn.ELU()]])
def test_other_norms_and_activations_stay(layers):
    net, x = nn.Sequential(*layers), torch.randn(3, 4)
    expected = net(x)
    net.__class__ = FastSequential
    assert torch.equal(net(x), expected)


# --- the loops over time --------------------------------------------------------------------------


def test_the_dense_product_of_shared_inputs():
    cell = BlockGRU(16, 6, 8, 3, Style(), blocks=4)
    h, z, a = torch.randn(5, 16), torch.randn(5, 8), 3 * torch.randn(5, 3)
    expected = cell(h, z, a)
    cell.__class__ = FastBlockGRU
    near(cell(h, z, a), expected)


def test_the_fast_loops_are_taken_where_they_can_be(kernels, monkeypatch):
    _, fast = twins(cfg=shrunk(LAPTOP), obs=ATARI)
    monkeypatch.setattr(RSSM, "step", lambda *_: pytest.fail("a readable step"))
    monkeypatch.setattr(BlockGRU, "forward", lambda *_: pytest.fail("a readable cell"))
    monkeypatch.setattr(FastBlockGRU, "forward", lambda *_: pytest.fail("a single cell"))
    if kernels:
        fast.losses(tiny.batch(obs=ATARI, time=3, size=2), None)
    else:
        with pytest.raises(pytest.fail.Exception):
            fast.losses(tiny.batch(obs=ATARI, time=3, size=2), None)


def test_dreams_that_are_differentiated_take_the_readable_loop():
    plain, fast = twins()
    s = plain.initial(3)
    for agent in (plain, fast):
        torch.manual_seed(0)
        states, actions = agent.world_model.rssm.imagine(agent.behavior.policy, s, 2)
        grads = torch.autograd.grad(states.feat.square().sum(), actions, allow_unused=True)
        assert type(states) is not Joined and (actions.grad_fn or grads)


def test_dreams_hold_features_side_by_side(kernels):
    plain, fast = twins()
    dreams = []
    for agent in (plain, fast):
        torch.manual_seed(0)
        with torch.no_grad():
            imagine = agent.world_model.rssm.imagine
            dreams.append(imagine(agent.behavior.policy, agent.initial(3), 5))
    near(dreams[1][0].feat, dreams[0][0].feat)
    near(dreams[1][1], dreams[0][1])
    assert (type(dreams[1][0]) is Joined) == kernels


def test_the_gradient_of_observing_can_be_taken_twice():
    _, fast = twins()
    batch = tiny.batch()
    states, _ = fast.world_model.observe(batch, None)
    params = list(fast.world_model.encoder.parameters())
    first, second = (
        torch.autograd.grad(states.feat.square().sum(), params, retain_graph=True) for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_rows_that_do_not_fit_are_refused_as_ever():
    model = accelerate(tiny.agent()).world_model
    embed, rssm = torch.zeros(2, 3, model.encoder.size), model.rssm
    assert type(rssm) is FastRSSM
    with pytest.raises(ValueError, match="is_first"):
        rssm.observe(embed, torch.zeros(2, 3, 4), torch.zeros(2, 3), rssm.initial(3))
    with torch.no_grad(), pytest.raises(ValueError, match="s.h must be"):
        rssm.imagine(None, State(torch.zeros(3, 8), torch.zeros(3, 8)), 2)


# --- images and heads -----------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_the_last_layer_of_a_decoder(channels):
    conv = shrunk(LAPTOP).model.conv
    net = ConvDecoder((16, 16, channels), conv, 16, 8, 8, Style())
    fast = deepcopy(net)
    for module in fast.modules():
        module.__class__ = SWAPS.get(type(module), type(module))
    assert type(fast.out[0]) is FastConvTranspose2d
    h, z, grad = torch.randn(2, 3, 16), torch.randn(2, 3, 8), torch.randn(2, 3, 16, 16, channels)
    near(fast(h, z), net(h, z))
    grads = [torch.autograd.grad(made(h, z), made.parameters(), grad) for made in (net, fast)]
    for a, b in zip(*grads, strict=True):
        near(b, a)


CONVS = {
    "pool": down_pool(6, 10, Style()),
    "nearest": up_nearest(6, 10, Style()),
    "transposed to one": up_stride(6, 1, Style()),
}


def swapped(net):
    """A copy of `net` with fast layers."""
    fast = deepcopy(net)
    for module in fast.modules():
        module.__class__ = SWAPS.get(type(module), type(module))
    return fast


def taken(net, x, monkeypatch):
    """Whether a layer that convolves with the library is still called."""
    with monkeypatch.context() as m:
        for kind in (nn.Conv2d, nn.ConvTranspose2d):
            m.setattr(kind, "forward", lambda *_: pytest.fail("the library's convolution"))
        try:
            net(x)
        except pytest.fail.Exception:
            return False
    return True


@pytest.mark.parametrize("name", CONVS)
@pytest.mark.parametrize("wanted", [True, False], ids=["inner", "first"])
def test_convolutions(name, wanted, kernels, monkeypatch):
    net, fast = CONVS[name], swapped(CONVS[name])
    x = torch.randn(3, 8, 12, 6).permute(0, 3, 1, 2)
    answers = []
    for made in (net, fast):
        seen = x.clone().requires_grad_(wanted)
        y = made(seen)
        of = [*([seen] if wanted else []), *made.parameters()]
        answers.append([y.detach(), *torch.autograd.grad((y * y.detach().cos()).sum(), of)])
    for a, b in zip(*answers, strict=True):
        near(b, a)
    assert taken(fast, x, monkeypatch) == kernels


OTHER = {
    "kernel": [nn.Conv2d(2, 8, 3, padding=1), nn.MaxPool2d(2)],
    "pool": [nn.Conv2d(2, 8, 5, padding=2), nn.MaxPool2d(3)],
    "no pool": [nn.Conv2d(2, 8, 5, padding=2)],
    "dilation": [nn.Conv2d(2, 8, 5, padding=2, dilation=2), nn.MaxPool2d(2)],
    "groups": [nn.Conv2d(2, 8, 5, padding=2, groups=2), nn.MaxPool2d(2)],
    "no bias": [nn.Conv2d(2, 8, 5, padding=2, bias=False), nn.MaxPool2d(2)],
    "no padding": [nn.Conv2d(2, 8, 5), nn.MaxPool2d(2)],
    "bilinear": [nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(2, 8, 5, padding=2)],
    "thrice": [nn.Upsample(scale_factor=3), nn.Conv2d(2, 8, 5, padding=2)],
    "output padding": [nn.ConvTranspose2d(2, 3, 4, 2, 1, output_padding=1)],
    "reflected": [nn.Conv2d(2, 8, 5, padding=2, padding_mode="reflect"), nn.MaxPool2d(2)],
}


@pytest.mark.parametrize("name", OTHER)
def test_other_convolutions_stay(name):
    net, x = nn.Sequential(*OTHER[name]), torch.randn(2, 2, 8, 8)
    assert torch.equal(swapped(net)(x), net(x))


@pytest.mark.parametrize("shape", [(2, 2, 7, 9), (2, 8, 8), (0, 2, 8, 8)])
def test_odd_single_and_missing_images_stay(shape):
    net, x = down_pool(2, 8, Style())[:2], torch.randn(shape)
    assert torch.equal(swapped(net)(x), net(x))


def test_a_quarter_of_the_taps_is_the_same_map():
    layer = nn.Conv2d(2, 3, 5, padding=2, dtype=torch.double)
    x = torch.randn(2, 2, 4, 6, dtype=torch.double)
    plain = layer(nn.functional.interpolate(x, scale_factor=2))
    weight = quarters(layer.weight).permute(3, 2, 0, 1)  # [4·3,2,3,3]
    fast = nn.functional.conv2d(x, weight, layer.bias.repeat(4), padding=1)
    fast = fast.unflatten(1, (2, 2, 3)).permute(0, 3, 4, 1, 5, 2).flatten(4, 5).flatten(2, 3)
    torch.testing.assert_close(fast, plain)


def test_images_of_other_shapes_and_types_are_refused_as_ever():
    logits = torch.zeros(2, 8, 8, 3)
    for image in (torch.zeros(2, 8, 8, 1, dtype=torch.uint8), torch.zeros(2, 8, 8, 3)):
        with pytest.raises(ValueError, match="image"):
            FastPixelHead().loss(logits, image)


def test_pixels_of_a_batch_without_rows_are_refused():
    logits, image = torch.zeros(0, 2, 8, 8, 3), torch.zeros(0, 2, 8, 8, 3, dtype=torch.uint8)
    for head in (PixelHead(), FastPixelHead()):
        with pytest.raises(ValueError, match="logits must be not empty"):
            head.loss(logits, image)


@pytest.mark.parametrize("bins", [255, 41, 8])
def test_two_bins_instead_of_all(bins):
    plain, fast = TwoHotHead(bins), FastTwoHotHead(bins)
    target = torch.tensor([0.0, 1.0, -1.0, 0.3, 1e4, -1e9, 1e9, plain.bins[3], plain.bins[-1]])
    params = torch.randn(len(target), bins)
    near(fast.loss(params, target), plain.loss(params, target))
    near(fast.mean(params), plain.mean(params))
    assert (fast.mean(torch.zeros(3, bins)) == 0).all()
    with pytest.raises(ValueError, match="target"):
        fast.loss(params, target[:2])


def test_asking_the_allocator_to_keep_memory_answers_whether_it_will():
    assert keep_freed_memory() in (True, False)


def test_under_autocast_the_fast_twohot_head_still_speaks_float32():
    head, fast = TwoHotHead(), FastTwoHotHead()
    params = 8 * torch.randn(64, 255, generator=torch.Generator().manual_seed(0))
    params -= torch.linspace(-20, 20, 255).abs()
    with torch.autocast("cpu", torch.bfloat16):
        said = fast.mean(params)
    assert said.dtype == torch.float32
    near(said, head.mean(params))


def test_what_watches_the_actions_gets_their_gradient():
    plain, fast = twins()
    batch = tiny.batch(time=4)
    norms = []
    for agent in (plain, fast):
        torch.manual_seed(0)
        embed = agent.world_model.encoder(batch.obs).detach()
        action = batch.prev_action.clone().requires_grad_()
        start = agent.world_model.rssm.initial(action.shape[1])
        states, _ = agent.world_model.rssm.observe(embed, action, batch.is_first, start)
        norms.append(torch.autograd.grad(states.h.sum(), action)[0])
    assert norms[0].abs().max() > 0
    near(norms[1], norms[0])
