"""The same mathematics, less work: drop-in layers for the readable ones (chapter 13, optional).

`accelerate(agent)` swaps layers in place; parameters, names and results stay (tests/test_fast.py).
"""

import ctypes

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dreamer_lite.heads import TwoHotHead
from dreamer_lite.networks import BlockGRU, RMSNorm, gates


class _RMSNormSiLU(torch.autograd.Function):
    """silu(x / √(mean x² + ε) · scale) with its gradient written out.

    The library's composite keeps five intermediate tensors and calls pow twice.  x [N,C].
    """

    @staticmethod
    def forward(ctx, x: Tensor, scale: Tensor, eps: float) -> Tensor:
        inv = (x * x).mean(-1, keepdim=True).add_(eps).rsqrt_()
        unit = x * inv
        y = unit * scale
        ctx.save_for_backward(unit, y, inv, scale)
        return nn.functional.silu(y)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        unit, y, inv, scale = ctx.saved_tensors
        grad = torch.ops.aten.silu_backward(grad.contiguous(), y)
        grad_scale = (grad * unit).sum(0)
        grad = grad.mul_(scale)
        dot = (grad * unit).mean(-1, keepdim=True).neg_()
        return torch.addcmul(grad, unit, dot).mul_(inv), grad_scale, None


class FastSequential(nn.Sequential):
    """A Sequential in which every RMSNorm followed by SiLU runs as one function."""

    def forward(self, x: Tensor) -> Tensor:
        layers = list(self)
        while layers:
            layer = layers.pop(0)
            if isinstance(layer, RMSNorm) and layers and isinstance(layers[0], nn.SiLU):
                layers.pop(0)
                flat = x.reshape(-1, x.shape[-1]).float()
                x = _RMSNormSiLU.apply(flat, layer.weight, layer.eps).view(x.shape)
            else:
                x = layer(x)
        return x


class FastBlockGRU(BlockGRU):
    """The shared inputs meet all blocks in one dense product instead of eight copies."""

    def forward(self, h: Tensor, z: Tensor, a: Tensor) -> Tensor:
        a = a / a.detach().abs().clamp(min=1)
        shared = torch.cat([self.in_h(h), self.in_z(z), self.in_a(a)], -1)
        width = h.shape[-1] // self.blocks
        dense = self.mix.weight[:, width:].movedim(0, 1).flatten(1)  # [3Y,D]
        x = torch.addmm(self.mix.bias.flatten(), shared, dense)
        blocks = h.unflatten(-1, (self.blocks, -1)).transpose(0, 1)  # [g,B,D/g]
        own = torch.bmm(blocks, self.mix.weight[:, :width])
        x = self.mix_out(x + own.transpose(0, 1).flatten(-2))
        parts = self.gates(x.unflatten(-1, (self.blocks, -1))).chunk(3, -1)
        return gates(*(p.flatten(-2) for p in parts), h)


class FastTwoHotHead(TwoHotHead):
    """Half of the mirrored sum, and a loss that touches two bins instead of 255."""

    def mean(self, params: Tensor) -> Tensor:
        p, half = params.float().softmax(-1), self.num_params // 2
        return (p[..., -half:] - p[..., :half].flip(-1)) @ self.bins[-half:]

    def loss(self, params: Tensor, target: Tensor) -> Tensor:
        x = target.detach().float().clamp(self.bins[0], self.bins[-1])
        above = torch.searchsorted(self.bins, x.contiguous(), right=True)
        above = above.clamp(1, self.num_params - 1)
        share = (x - self.bins[above - 1]) / (self.bins[above] - self.bins[above - 1])
        params = params.float()
        picked = params.gather(-1, torch.stack([above - 1, above], -1))
        return params.logsumexp(-1) - picked[..., 0] * (1 - share) - picked[..., 1] * share


SWAPS = {
    nn.Sequential: FastSequential,
    BlockGRU: FastBlockGRU,
    TwoHotHead: FastTwoHotHead,
}


def accelerate(agent: nn.Module) -> nn.Module:
    """Replaces layers of `agent` by their fast twins, in place; returns it."""
    for module in agent.modules():
        if type(module) in SWAPS:
            module.__class__ = SWAPS[type(module)]
    return agent


def keep_freed_memory() -> bool:
    """Lets glibc reuse freed memory instead of returning it to the system after every layer.

    A large tensor is otherwise mapped, zeroed and unmapped page by page at each use. Does nothing
    elsewhere; returns whether it did.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # no glibc: macOS, Windows, musl
        return False
    trim_threshold, mmap_threshold, most = -1, -3, 2**31 - 1
    return bool(mallopt(mmap_threshold, 2**30) and mallopt(trim_threshold, most))
