"""The compiled kernels compute what their readable twins compute, forward and back."""

import pytest
import torch
from torch import nn

from dreamer_lite import native
from dreamer_lite.distributions import Categorical, OneHots
from dreamer_lite.heads import PixelHead, TwoHotHead
from dreamer_lite.networks import gates

pytestmark = pytest.mark.skipif(not native.available(), reason="no C compiler")


def near(kernel, plain):
    """Within 1e-5 of the largest entry."""
    atol = 1e-5 * plain.abs().max().item() + 1e-9
    torch.testing.assert_close(kernel, plain, rtol=1e-5, atol=atol)


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("shape", [(5, 3), (700, 8), (700, 12), (77, 16), (999, 24), (300, 130)])
def test_norm_and_activation(shape, threads):
    x = (3 * torch.randn(shape)).requires_grad_()
    scale = torch.randn(shape[1]).requires_grad_()
    plain = nn.functional.silu(nn.functional.rms_norm(x, shape[1:], scale, 1e-4))
    near(native.rms_silu(x.detach(), scale.detach(), 1e-4), plain.detach())
    grad = torch.randn(shape)
    expected = torch.autograd.grad(plain, (x, scale), grad)
    answer = native.rms_silu_backward(grad, x.detach(), scale.detach(), 1e-4)
    for a, b in zip(answer, expected, strict=True):
        near(a, b)


def test_rows_may_lie_apart():
    x, scale, out = torch.randn(6, 20), torch.randn(8), torch.zeros(6, 30)
    native.rms_silu(x[:, 4:12], scale, 1e-4, out[:, 8:16])
    assert torch.equal(out[:, 8:16], native.rms_silu(x[:, 4:12].contiguous(), scale, 1e-4))
    assert not out[:, :8].any() and not out[:, 16:].any()


def test_gates(threads):
    blocks, width, n = 4, 24, 150
    pre = torch.randn(n, blocks, 3 * width, requires_grad=True)
    bias, h = torch.randn(blocks, 3 * width), torch.randn(n, blocks * width, requires_grad=True)
    parts = (pre + bias).chunk(3, -1)
    plain = gates(*(p.flatten(-2) for p in parts), h)
    out, grad = torch.empty(n, blocks * width), torch.randn(n, blocks * width)
    native.gates(pre.detach(), bias, h.detach(), out)
    near(out, plain.detach())
    dpre, dh = torch.empty_like(pre), torch.empty_like(h)
    native.gates_backward(grad, pre.detach(), bias, h.detach(), dpre, dh)
    for a, b in zip((dpre, dh), torch.autograd.grad(plain, (pre, h), grad), strict=True):
        near(a, b)


@pytest.mark.parametrize("unimix", [0.0, 0.01, 0.5])
@pytest.mark.parametrize("shape", [(3, 2), (900, 8), (500, 18)])
def test_dice(shape, unimix, threads):
    x = (4 * torch.randn(shape)).requires_grad_()
    plain = OneHots.of(x, unimix)
    for a, b in zip(native.dice(x.detach(), unimix), plain, strict=True):
        near(a, b.detach())
    grads = torch.randn(2, *shape)
    (expected,) = torch.autograd.grad(list(plain), x, list(grads))
    near(native.dice_backward(*grads, x.detach(), unimix), expected)


def test_the_same_numbers_throw_the_same_faces(threads):
    latent = Categorical(5, 7, unimix=0.1)
    x, out = 3 * torch.randn(400, 35), torch.empty(400, 35)
    torch.manual_seed(3)
    expected = latent(x).sample()
    torch.manual_seed(3)
    native.throw_dice(x, latent, torch.rand(400, 5), out)
    assert torch.equal(out, expected)


def test_a_die_shows_its_last_face_where_rounding_leaves_the_sum_below_one():
    latent, out = Categorical(1, 3), torch.empty(1, 3)
    native.throw_dice(torch.zeros(1, 3), latent, torch.ones(1, 1), out)
    assert out.tolist() == [[0, 0, 1]]


def test_samples_are_differentiated_straight_through(threads):
    latent = Categorical(4, 6, unimix=0.1)
    x, grad = torch.randn(300, 24, requires_grad=True), torch.randn(300, 24)
    (expected,) = torch.autograd.grad(latent(x).sample(), x, grad)
    already = torch.randn(300, 24)
    dx = already.clone()
    native.throw_dice_backward(grad, x.detach(), latent, dx)
    near(dx - already, expected)


@pytest.mark.parametrize("bins", [255, 41, 8])
def test_twohots(bins, threads):
    head = TwoHotHead(bins)
    edges = [0.0, 1.0, -1.0, 0.3, 1e4, -1e9, 1e9, head.bins[3], head.bins[-1]]
    target = torch.tensor(edges).repeat(20)
    x = (2 * torch.randn(len(target), bins)).requires_grad_()
    plain, grad = head.loss(x, target), torch.randn(len(target))
    near(native.twohot_loss(x.detach(), head.bins, target), plain.detach())
    (expected,) = torch.autograd.grad(plain, x, grad)
    near(native.twohot_loss_backward(grad, x.detach(), head.bins, target), expected)
    near(native.twohot_mean(x.detach(), head.bins), head.mean(x.detach()))
    assert not native.twohot_mean(torch.full((3, bins), 0.7), head.bins).any()


def test_pixels(threads):
    x = (3 * torch.randn(30, 16, 16, 3)).requires_grad_()
    image = torch.randint(256, x.shape, dtype=torch.uint8)
    plain, grad = PixelHead().loss(x, image), torch.randn(30)
    flat = x.detach().flatten(1), image.flatten(1)
    near(native.pixel_loss(*flat), plain.detach())
    (expected,) = torch.autograd.grad(plain, x, grad)
    near(native.pixel_loss_backward(grad, *flat).view_as(x), expected)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_fold_and_its_way_back(channels, threads):
    n, h, w, o = 7, 4, 6, channels
    layer = nn.ConvTranspose2d(16 * o, o, 4, 2, 1)
    taps = torch.randn(n, 16 * o, h, w)
    with torch.no_grad():  # every input channel is one tap of one output channel
        layer.weight.copy_(torch.eye(16 * o).view(16 * o, 4, 4, o).permute(0, 3, 1, 2))
        plain = layer(taps).permute(0, 2, 3, 1)
    flat = taps.permute(0, 2, 3, 1).reshape(n * h * w, 16 * o)
    near(native.fold(flat, layer.bias.detach(), n, h, w), plain)
    grad = torch.randn(n, 2 * h, 2 * w, o)
    back = native.unfold(grad, n, h, w)
    assert torch.allclose((back * flat).sum(), (grad * (plain - layer.bias)).sum(), rtol=1e-3)


SIZES = [(3, 8, 4), (1, 16, 8), (5, 12, 4), (8, 3, 6), (16, 24, 4), (20, 40, 6)]  # i, o, pixels


def images(n: int, channels: int, h: int, w: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random images channels-last, and the same numbers as the library wants them."""
    x = torch.randn(n, h, w, channels)
    return x, x.permute(0, 3, 1, 2).clone().requires_grad_()


@pytest.mark.parametrize("i, o, side", SIZES)
def test_a_convolution_and_the_largest_of_four(i, o, side, threads):
    x, plain_x = images(500, i, side, side + 2)
    layer = nn.Conv2d(i, o, 5, padding=2)
    weight, bias = layer.weight.detach().permute(2, 3, 1, 0), layer.bias.detach()
    plain = nn.functional.max_pool2d(layer(plain_x), 2)
    y, index = native.conv_pool(x, weight, bias)
    near(y.permute(0, 3, 1, 2), plain.detach())
    grad = torch.randn_like(y)
    expected = torch.autograd.grad(plain, (plain_x, *layer.parameters()), grad.permute(0, 3, 1, 2))
    dx, dweight, dbias = native.conv_pool_backward(grad, index, x, weight, True)
    near(dx.permute(0, 3, 1, 2), expected[0])
    near(dweight.permute(3, 2, 0, 1), expected[1])
    near(dbias, expected[2])
    assert native.conv_pool_backward(grad, index, x, weight, False)[0] is None


def test_of_equal_numbers_the_first_is_the_largest_as_in_the_library():
    x, weight = torch.zeros(1, 4, 4, 2), torch.randn(5, 5, 2, 8)
    y, index = native.conv_pool(x, weight, torch.arange(8.0))
    assert torch.equal(y, torch.arange(8.0).expand(1, 2, 2, 8)) and not index.any()


def test_what_is_no_number_is_not_lost_in_a_pool():
    x = torch.zeros(1, 8, 8, 1)
    x[0, 0, 0] = float("nan")
    y = native.conv_pool(x, torch.ones(5, 5, 1, 8), torch.zeros(8))[0]
    plain = nn.functional.conv2d(x.permute(0, 3, 1, 2), torch.ones(8, 1, 5, 5), padding=2)
    plain = nn.functional.max_pool2d(plain, 2)
    assert torch.equal(y.permute(0, 3, 1, 2).isnan(), plain.isnan())


@pytest.mark.parametrize("i, o, side", SIZES)
def test_a_convolution_to_four_quarters(i, o, side, threads):
    x, plain_x = images(500, i, side, side + 1)
    layer = nn.Conv2d(i, 4 * o, 3, padding=1)
    weight, bias = layer.weight.detach().permute(2, 3, 1, 0), layer.bias.detach()
    plain = layer(plain_x).unflatten(1, (2, 2, o)).permute(0, 4, 1, 5, 2, 3)
    plain = plain.flatten(3, 4).flatten(1, 2)  # [n,2h,2w,o]
    y = native.conv_up(x, weight, bias)
    near(y, plain.detach())
    grad = torch.randn_like(y)
    expected = torch.autograd.grad(plain, (plain_x, *layer.parameters()), grad)
    dx, dweight, dbias = native.conv_up_backward(grad, x, weight)
    near(dx.permute(0, 3, 1, 2), expected[0])
    near(dweight.permute(3, 2, 0, 1), expected[1])
    near(dbias, expected[2])


# --- compiling ------------------------------------------------------------------------------------


@pytest.mark.parametrize("x", [0.0, -1e-20, 5.0, -5.0, 90.0, -90.0, 1e20, float("nan")])
def test_extreme_numbers_are_those_of_the_library(x):
    row = torch.tensor([[x, 1.0]])
    plain = nn.functional.silu(nn.functional.rms_norm(row, (2,), torch.ones(2), 1e-4))
    kernel = native.rms_silu(row, torch.ones(2), 1e-4)
    torch.testing.assert_close(kernel, plain, equal_nan=True)


def test_signatures_are_read_from_the_source():
    source = "/* void no(int a) */\nvoid f(int a, long n,\n    const float *x) {"
    source += "\nNARROW void g(float *y) {"
    names = {k: [t.__name__ for t in v] for k, v in native.signatures(source).items()}
    assert names == {"f": ["c_int", "c_long", "c_void_p"], "g": ["c_void_p"]}


def test_every_kernel_of_the_source_is_there():
    names = native.signatures(native.SOURCE.read_text())
    assert len(names) > 10 and all(hasattr(native.library(), name) for name in names)


def test_kernels_can_be_forbidden(monkeypatch):
    monkeypatch.setenv("DREAMER_LITE_KERNELS", "0")
    assert native.library.__wrapped__() is None


def test_without_a_compiler_there_are_no_kernels(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    assert native.library.__wrapped__() is None


def test_kernels_are_compiled_once(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert native.library.__wrapped__()
    monkeypatch.setattr(native, "build", lambda path: pytest.fail("compiled again"))
    assert native.library.__wrapped__()


def test_other_precisions_and_devices_are_left_to_the_library():
    assert native.usable(torch.zeros(2))
    assert not native.usable(torch.zeros(2), torch.zeros(2).double())
    assert not native.usable(torch.zeros(2, device="meta"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not native.usable(torch.zeros(2))
