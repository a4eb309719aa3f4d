"""Layers: shapes, sizes, initial weights, and the block GRU against its formulas in NumPy."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from dreamer_lite.networks import (
    GRU,
    BlockGRU,
    BlockLinear,
    Conv,
    ConvDecoder,
    ConvEncoder,
    Decoder,
    Encoder,
    LayerNorm,
    NormGRU,
    RMSNorm,
    StrideDecoder,
    StrideEncoder,
    Style,
    down_stride,
    gates,
    glorot_uniform,
    linear,
    mlp,
    readout,
    stages,
    up_stride,
)
from dreamer_lite.transforms import identity, symlog

STYLE = Style()
D, Y, Z, A, G = 16, 6, 8, 3, 4  # deter, hidden, z, action, blocks


def count(module):
    return sum(p.numel() for p in module.parameters())


def block_gru():
    return BlockGRU(D, Y, Z, A, STYLE, G)


# --- dense layers --------------------------------------------------------------------------------


@pytest.mark.parametrize("inputs, outputs", [(64, 4096), (512, 512)])
def test_initial_weights_have_variance_one_over_fan_in_and_no_outliers(inputs, outputs):
    layer = linear(inputs, outputs, STYLE)
    size = layer.weight.detach() * math.sqrt(inputs)
    assert size.std().item() == pytest.approx(1.0, abs=0.02)
    assert 2.2 < size.abs().max().item() <= 2 * 1.1368 + 1e-4  # cut at two deviations, not at ±2
    assert not layer.bias.any()


def test_the_fan_in_of_a_block_is_that_of_the_whole_layer():
    weight = BlockLinear(256, 4096, 8, STYLE).weight
    assert weight.shape == (8, 32, 512)
    assert (weight * 16).std().item() == pytest.approx(1.0, abs=0.02)


def test_a_scale_shrinks_initial_weights_and_zero_is_exact():
    assert not linear(64, 255, STYLE, 0.0).weight.any()
    small = linear(512, 512, STYLE, 0.01).weight * math.sqrt(512)
    assert small.std().item() == pytest.approx(0.01, rel=0.02)


def test_glorot_weights_are_uniform_within_the_limit_of_keras():
    layer = linear(300, 200, Style(None, nn.ELU, glorot_uniform))
    limit = math.sqrt(6 / 500)
    assert 0.99 * limit < layer.weight.abs().max() <= limit
    assert layer.weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.02)


def test_glorot_counts_the_pixels_of_a_kernel_in_both_fans():
    conv = nn.Conv2d(16, 32, 4)
    glorot_uniform(conv.weight, 16 * 16)
    limit = math.sqrt(6 / (16 * (16 + 32)))
    assert 0.99 * limit < conv.weight.abs().max() <= limit


def test_layer_norm_has_the_epsilon_of_keras():
    x = 0.01 * torch.randn(3, 5)
    spread = x - x.mean(-1, keepdim=True)
    expected = spread / torch.sqrt((spread**2).mean(-1, keepdim=True) + 1e-3)
    torch.testing.assert_close(LayerNorm(5)(x), expected)


def test_rms_norm_divides_by_the_root_mean_square_and_does_not_shift():
    x = torch.tensor([[3.0, -4.0], [1e-2, 0.0]])
    norm = RMSNorm(2)
    expected = x / torch.sqrt((x**2).mean(-1, keepdim=True) + 1e-4)
    torch.testing.assert_close(norm(x), expected)
    assert count(norm) == 2


def test_rms_norm_computes_in_full_precision_what_it_gets_in_half():
    norm, x = RMSNorm(64), torch.randn(4, 64).bfloat16()
    assert torch.equal(norm(x), norm(x.float()))


def test_a_stack_of_layers_is_linear_norm_activation():
    kinds = [type(layer) for layer in mlp(5, 7, 2, STYLE)]
    assert kinds == [nn.Linear, RMSNorm, nn.SiLU] * 2
    assert [type(layer) for layer in mlp(5, 7, 1, Style(None, nn.ELU))] == [nn.Linear, nn.ELU]


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_a_readout_ends_in_a_plain_linear_layer(layers):
    net = readout(5, 7, layers, 2, STYLE)
    assert net(torch.randn(4, 3, 5)).shape == (4, 3, 2)
    assert isinstance(net[-1], nn.Linear)
    hidden = (5 * 7 + 7 + 7) * min(layers, 1) + (7 * 7 + 7 + 7) * max(layers - 1, 0)
    assert count(net) == hidden + (7 if layers else 5) * 2 + 2


def test_a_block_sees_its_own_slice_only():
    layer = BlockLinear(8, 12, 4, STYLE)
    x = torch.randn(1, 4, 2)
    jacobian = torch.autograd.functional.jacobian(lambda x: layer(x)[0], x)[:, :, 0]  # [g,o,g,i]
    for j in range(4):
        for k in range(4):
            assert jacobian[j, :, k].any() == (j == k)


# --- recurrent cells -----------------------------------------------------------------------------


def silu_rms(x, norm):
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-4) * norm.weight.detach().double().numpy()
    return x / (1 + np.exp(-x))


def dense(layer, x):
    return x @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_block_gru(cell, h, z, a):
    """The update of V3, block by block."""
    h, z, a = (x.double().numpy() for x in (h, z, a))
    a = a / np.maximum(1, np.abs(a))
    inputs = (cell.in_h, h), (cell.in_z, z), (cell.in_a, a)
    views = [silu_rms(dense(net[0], x), net[1]) for net, x in inputs]
    width = D // G
    mix, out = (layer.weight.detach().double().numpy() for layer in (cell.mix, cell.gates))
    biases = [layer.bias.detach().double().numpy() for layer in (cell.mix, cell.gates)]
    parts = []
    for g in range(G):
        own = h[:, g * width : (g + 1) * width]
        parts.append(np.concatenate([own, *views], -1) @ mix[g] + biases[0][g])
    x = silu_rms(np.concatenate(parts, -1), cell.mix_out[0])
    new = []
    for g in range(G):
        own = slice(g * width, (g + 1) * width)
        reset, candidate, update = np.split(x[:, own] @ out[g] + biases[1][g], 3, -1)
        u = sigmoid(update - 1)
        new.append(u * np.tanh(sigmoid(reset) * candidate) + (1 - u) * h[:, own])
    return np.concatenate(new, -1)


def test_the_block_gru_is_its_formulas():
    cell = block_gru()
    for p in cell.parameters():
        nn.init.normal_(p)
    h, z, a = torch.randn(5, D), torch.randn(5, Z), 3 * torch.randn(5, A)
    expected = torch.as_tensor(numpy_block_gru(cell, h, z, a)).float()
    torch.testing.assert_close(cell(h, z, a), expected, rtol=1e-5, atol=1e-6)


def test_the_block_gru_has_the_parameters_of_the_formula():
    shared = (D * Y + Y + Y) + (Z * Y + Y + Y) + (A * Y + Y + Y)
    mix = (D // G + 3 * Y) * D + 2 * D
    assert count(block_gru()) == shared + mix + 3 * D * D // G + 3 * D


def test_without_weights_a_block_gru_forgets_a_quarter_per_step():
    cell, h = block_gru(), torch.randn(5, D)
    for p in cell.parameters():
        nn.init.zeros_(p)
    torch.testing.assert_close(cell(h, torch.zeros(5, Z), torch.zeros(5, A)), 0.731059 * h)


def test_the_reset_gate_multiplies_the_candidate_and_not_the_memory():
    h = torch.full((1, 1), 0.5)
    reset, candidate, update = (torch.full((1, 1), x) for x in (-100.0, 3.0, 100.0))
    assert gates(reset, candidate, update, h).abs() < 1e-6  # the candidate is off, the memory gone
    assert gates(reset, candidate, -update, h) == 0.5


def test_actions_beyond_one_keep_their_sign_only():
    cell, h, z = block_gru(), torch.randn(2, D), torch.randn(2, Z)
    a = torch.tensor([[0.5, -1.0, 1.0], [-0.2, 1.0, -1.0]])
    far = torch.tensor([[0.5, -7.0, 3.0], [-0.2, 9.0, -1.0]])
    assert torch.equal(cell(h, z, a), cell(h, z, far))


def test_the_divisor_of_far_actions_carries_no_gradient():
    a = torch.tensor([[4.0, 0.5, 1.0]], requires_grad=True)
    net = block_gru()
    seen = []
    net.in_a.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    net(torch.zeros(1, D), torch.zeros(1, Z), a)
    gradient = torch.autograd.grad(seen[0].sum(), a)[0]
    torch.testing.assert_close(gradient, torch.tensor([[0.25, 1.0, 1.0]]))


@pytest.mark.parametrize("cell", [GRU, NormGRU, BlockGRU])
def test_every_cell_keeps_its_memory_bounded_and_reads_all_inputs(cell):
    style = STYLE if cell is BlockGRU else Style(None, nn.ELU, glorot_uniform)
    net = cell(D, Y, Z, A, style)
    inputs = [x.requires_grad_() for x in (torch.zeros(2, D), torch.randn(2, Z), torch.rand(2, A))]
    h = net(*inputs)
    gradients = torch.autograd.grad((h * torch.randn(2, D)).sum(), inputs)
    assert h.abs().max() < 1 and all(g.any() for g in gradients)


def test_the_gru_of_v1_has_the_parameters_of_its_paper():
    style = Style(None, nn.ELU, glorot_uniform)
    inputs = (30 + 6) * 200 + 200
    assert count(GRU(200, 200, 30, 6, style)) == inputs + 3 * 200 * 200 + 3 * 200 * 200 + 6 * 200


# --- images --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size, grid", [(64, 4), (96, 6), (16, 4), (8, 4), (32, 4)])
def test_images_are_halved_until_they_are_small(size, grid):
    encoder = ConvEncoder((size, size, 3), Conv(depth=8), STYLE)
    image = torch.randint(256, (2, 5, size, size, 3), dtype=torch.uint8)
    channels = stages((size, size, 3), 8, (2, 3, 4, 4))[-1]
    assert encoder.size == grid * grid * channels
    assert encoder(image).shape == (2, 5, encoder.size)


@pytest.mark.parametrize("size", [(7, 7), (200, 200), (66, 64)])
def test_sizes_that_do_not_halve_evenly_are_refused(size):
    with pytest.raises(ValueError, match=f"got {size[0]}x{size[1]}; resize it to 64x64"):
        stages((*size, 3), 8, (2, 3, 4, 4))


@pytest.mark.parametrize("conv", [Conv(8), Conv(8, (2, 3, 4, 4), down_stride, up_stride)])
@pytest.mark.parametrize("shape", [(64, 64, 3), (16, 16, 1), (32, 64, 2)])
def test_the_decoder_gives_back_the_shape_of_the_image(shape, conv):
    decoder = ConvDecoder(shape, conv, deter=16, z=8, units=4, style=STYLE)
    assert decoder(torch.randn(2, 3, 16), torch.randn(2, 3, 8)).shape == (2, 3, *shape)


@pytest.mark.parametrize("depth", [1, 3, 4, 6])
def test_blocks_adapt_to_few_channels(depth):
    decoder = ConvDecoder((16, 16, 3), Conv(depth), deter=16, z=8, units=4, style=STYLE)
    assert decoder(torch.randn(2, 16), torch.randn(2, 8)).shape == (2, 16, 16, 3)


def test_the_encoder_sees_pixels_from_minus_to_plus_a_half():
    encoder = ConvEncoder((8, 8, 1), Conv(4), STYLE)
    seen = []
    encoder.layers[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    encoder(torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None].expand(2, 8, 8, 1))
    assert seen[0][0].unique().tolist() == [-0.5] and seen[0][1].unique().tolist() == [0.5]


PLAIN = Style(None, nn.ELU, glorot_uniform)
PAPER = Conv(8, (1, 2, 4, 8), encoder=StrideEncoder, decoder=StrideDecoder, act=nn.ReLU)


@pytest.mark.parametrize("size, grid, stages", [(64, 2, 4), (16, 4, 2), (32, 4, 3), (96, 6, 4)])
def test_v1_and_v2_leave_two_pixels_of_64_and_about_four_of_other_sizes(size, grid, stages):
    shape = (size, size, 3)
    encoder = StrideEncoder(shape, PAPER, PLAIN)
    assert encoder.size == grid * grid * 8 * 2 ** (stages - 1)
    image = torch.randint(256, (2, 5, *shape), dtype=torch.uint8)
    assert encoder(image).shape == (2, 5, encoder.size)
    decoder = StrideDecoder(shape, PAPER, 16, 8, 4, PLAIN)
    assert decoder(torch.randn(2, 5, 16), torch.randn(2, 5, 8)).shape == (2, 5, *shape)
    kernels = [m.kernel_size[0] for m in decoder.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert kernels == ([5, 5, 6, 6] if size == 64 else [4] * stages)


def test_convolutions_of_v1_have_their_own_activation_and_the_last_one_has_none():
    encoder = StrideEncoder((16, 16, 1), PAPER, PLAIN)
    decoder = StrideDecoder((16, 16, 1), PAPER, 16, 8, 4, PLAIN)
    kinds = {type(m) for net in (encoder, decoder) for m in net.modules()}
    assert nn.ReLU in kinds and nn.ELU not in kinds
    assert encoder(torch.randint(256, (9, 16, 16, 1), dtype=torch.uint8)).min() == 0
    assert decoder(torch.randn(9, 16), torch.randn(9, 8)).min() < 0


def test_settings_that_nothing_reads_are_refused():
    with pytest.raises(ValueError, match="up must be left at .* because StrideDecoder has its own"):
        Conv(8, (1, 2, 4, 8), up=up_stride, decoder=StrideDecoder)


# --- observations --------------------------------------------------------------------------------


SPEC = {"b": (2,), "image": (8, 8, 1), "a": (3,)}


def observation(*lead):
    image = torch.randint(256, (*lead, 8, 8, 1), dtype=torch.uint8)
    return {"b": torch.randn(*lead, 2), "image": image, "a": torch.randn(*lead, 3)}


def encoder():
    return Encoder(SPEC, Conv(4), units=5, layers=2, style=STYLE)


def test_tokens_are_the_vectors_then_the_images():
    net, obs = encoder(), observation(4, 3)
    tokens = net(obs)
    assert tokens.shape == (4, 3, net.size)
    vectors = torch.cat([symlog(obs["a"]), symlog(obs["b"])], -1)  # by name
    torch.testing.assert_close(tokens[..., :5], net.mlp(vectors))
    torch.testing.assert_close(tokens[..., 5:], net.convs["image"](obs["image"]))


def test_vectors_are_squashed_only_if_the_paper_does():
    spec, obs = {"a": (3,)}, {"a": 100 * torch.randn(4, 3)}
    net = Encoder(spec, Conv(4), units=5, layers=2, style=STYLE, squash=identity)
    assert torch.equal(net(obs), net.mlp(obs["a"]))


def test_the_order_of_the_dictionary_does_not_matter():
    net, obs = encoder(), observation(2)
    assert torch.equal(net(obs), net(dict(reversed(obs.items()))))


@pytest.mark.parametrize("keep", [["a", "b"], ["image"], ["image", "a"]])
def test_any_mixture_of_vectors_and_images_is_decoded_in_its_own_shape(keep):
    spec = {k: SPEC[k] for k in keep}
    decoder = Decoder(spec, Conv(4), deter=16, z=8, units=5, layers=2, style=STYLE)
    out = decoder(torch.randn(3, 2, 16), torch.randn(3, 2, 8))
    assert {k: tuple(x.shape) for k, x in out.items()} == {k: (3, 2, *SPEC[k]) for k in keep}
