"""Convolutions with less work (chapter 13, optional).

5×5 and max-pool: of four pixels one has a gradient, so three quarters of it are never computed.
Nearest ×2 and 5×5: the 25 taps fall on 3×3 different pixels, so four 3×3 convolutions, one for each
quarter of the output, are the same map with 9 taps for 25. What the kernels are not made for goes
to the original layers; that of 2023, 4×4 with stride 2, the library does as fast.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dreamer_lite import native

# --- 5×5 and max-pool -----------------------------------------------------------------------------


class _ConvPool(torch.autograd.Function):
    """max over 2×2 of (w ∗ x + b).  x [n,h,w,i], weight [5,5,i,o] -> [n,h/2,w/2,o]."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y, index = native.conv_pool(x, weight, bias)
        ctx.save_for_backward(x, weight, index)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight, index = ctx.saved_tensors
        seen = ctx.needs_input_grad[0]  # an image needs no gradient
        return native.conv_pool_backward(grad.contiguous(), index, x, weight, seen)


def conv_pool(conv: nn.Conv2d, pool: nn.MaxPool2d, x: Tensor) -> Tensor:
    """x [N,i,h,w] -> [N,o,h/2,w/2]."""
    weight = conv.weight.permute(2, 3, 1, 0)
    return channels_first(_ConvPool.apply(channels_last(x), weight, conv.bias))


# --- nearest ×2 and 5×5 ---------------------------------------------------------------------------


class _ConvUp(torch.autograd.Function):
    """Four 3×3 convolutions, interleaved.  x [n,h,w,i], weight [3,3,i,4·o] -> [n,2h,2w,o]."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return native.conv_up(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        return native.conv_up_backward(grad.contiguous(), *ctx.saved_tensors)


def conv_up(up: nn.Upsample, conv: nn.Conv2d, x: Tensor) -> Tensor:
    """x [N,i,h,w] -> [N,o,2h,2w]."""
    weight = quarters(conv.weight)
    return channels_first(_ConvUp.apply(channels_last(x), weight, conv.bias.repeat(4)))


def quarters(weight: Tensor) -> Tensor:
    """[o,i,5,5] for a repeated image as [3,3,i,4·o] for the image itself.

    Pixel 2r+a of the output reads 2r+a+k-2 of the repeated image, k = 0..4, and that is pixel
    ⌊(2r+a+k)/2⌋ - 1 = r - 1 + ⌊(a+k)/2⌋ of the image. Taps on the same pixel are added.
    """
    a, u, k = torch.meshgrid(*map(torch.arange, (2, 3, 5)), indexing="ij")
    falls = ((a + k) // 2 == u).to(weight.dtype)  # [2,3,5]
    folded = torch.einsum("auk,bvl,oikl->uviabo", falls, falls, weight)
    return folded.flatten(-3)


# --- a transposed 4×4 with stride 2 to few channels -----------------------------------------------


class _LastUp(torch.autograd.Function):
    """A transposed 4×4 convolution with stride 2 to few channels: a matrix product and a sum.

    x [n,h,w,C], weight [C,4,4,o] -> [n,2h,2w,o]. The library's takes three times as long.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        taps = x.flatten(0, -2) @ weight.flatten(1)
        return native.fold(taps, bias, *x.shape[:3])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        taps = native.unfold(grad.contiguous(), *x.shape[:3])  # [n·h·w,16·o]
        grad_weight = x.flatten(0, -2).T @ taps
        grad_x = (taps @ weight.flatten(1).T).view_as(x)
        return grad_x, grad_weight.view_as(weight), grad.sum((0, 1, 2))


class FastConvTranspose2d(nn.ConvTranspose2d):
    """The last layer of a decoder: one or three channels from many."""

    def forward(self, x: Tensor) -> Tensor:
        """x [N,C,h,w] -> [N,o,2h,2w]."""
        shape = self.kernel_size, self.stride, self.padding, self.output_padding
        few = self.out_channels <= 4 and shape == ((4, 4), (2, 2), (1, 1), (0, 0))
        if not few or not usable(x, self):
            return super().forward(x)
        weight = self.weight.permute(0, 2, 3, 1).contiguous()  # [C,4,4,o]
        return channels_first(_LastUp.apply(channels_last(x), weight, self.bias))


# --- which layers ---------------------------------------------------------------------------------


def pair(layers: list[nn.Module], x: Tensor) -> Callable | None:
    """The function that does the first two layers on x [N,i,h,w]; None if there is none."""
    one, two = (*layers, None, None)[:2]
    if type(one) is nn.Conv2d and type(two) is nn.MaxPool2d:
        even = x.dim() == 4 and x.shape[2] % 2 == x.shape[3] % 2 == 0
        halves = (two.kernel_size, two.stride, two.padding, two.dilation) == (2, 2, 0, 1)
        fits, conv, function = even and halves and not two.ceil_mode, one, conv_pool
    elif type(one) is nn.Upsample and type(two) is nn.Conv2d:
        doubles = (one.size, one.scale_factor, one.mode) == (None, 2, "nearest")
        fits, conv, function = doubles, two, conv_up
    else:
        return None
    return function if fits and is_same(conv) and usable(x, conv) else None


def is_same(conv: nn.Module) -> bool:
    """Whether it is a 5×5 convolution that keeps the size of the image."""
    return (conv.kernel_size, conv.stride, conv.padding) == ((5, 5), (1, 1), (2, 2))


def usable(x: Tensor, conv: nn.Module) -> bool:
    """Whether the kernels can do this convolution on images x [N,c,h,w]."""
    plain = (conv.dilation, conv.groups, conv.padding_mode) == ((1, 1), 1, "zeros")
    whole = x.dim() == 4 and x.numel() > 0 and conv.bias is not None
    return plain and whole and native.usable(x, conv.weight)


def channels_last(x: Tensor) -> Tensor:
    """[N,c,h,w] -> [N,h,w,c] without gaps; a view if it lies so in memory."""
    return x.permute(0, 2, 3, 1).contiguous()


def channels_first(x: Tensor) -> Tensor:
    """[N,h,w,c] -> [N,c,h,w], a view."""
    return x.permute(0, 3, 1, 2)
