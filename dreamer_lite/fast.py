"""The same mathematics, less work: drop-in layers for the readable ones (chapter 13, optional).

`accelerate(agent)` swaps layers in place; parameters, names and results stay (tests/test_fast.py).
Each twin hands what it is not made for, such as another device or precision, to the original.
"""

import ctypes

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dreamer_lite import native
from dreamer_lite.distributions import Categorical, OneHots
from dreamer_lite.fast_conv import FastConvTranspose2d, pair
from dreamer_lite.fast_rssm import FastBlockGRU, FastRSSM
from dreamer_lite.heads import PixelHead, TwoHotHead, answers, fits
from dreamer_lite.networks import BlockGRU, RMSNorm
from dreamer_lite.rssm import RSSM

# --- stacks of dense layers ---------------------------------------------------------------------


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


class _Stack(torch.autograd.Function):
    """Hidden layers x -> silu(norm(x W' + b)) in a row, the last one perhaps plain.  x [N,C].

    blocks: for each layer, whether it has a linear map, and the norm's ε (None: no norm, no SiLU).
    """

    @staticmethod
    def forward(ctx, x: Tensor, blocks: tuple, *params: Tensor) -> Tensor:
        kept, rest = [], list(params)
        for dense, eps in blocks:
            inner = torch.addmm(rest.pop(1), x, rest.pop(0).T) if dense else x
            kept += [x, inner]
            x = inner if eps is None else native.rms_silu(inner, rest.pop(0), eps)
        ctx.save_for_backward(*params, *kept)
        ctx.blocks = blocks
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        count = len(ctx.saved_tensors) - 2 * len(ctx.blocks)
        params, kept = list(ctx.saved_tensors[:count]), list(ctx.saved_tensors[count:])
        grads, grad = [], grad.contiguous()
        for i, (dense, eps) in reversed(list(enumerate(ctx.blocks))):
            inner, x = kept.pop(), kept.pop()
            if eps is not None:
                grad, grad_scale = native.rms_silu_backward(grad, inner, params.pop(), eps)
                grads.append(grad_scale)
            if dense:
                params.pop()
                weight = params.pop()
                grads += [grad.sum(0), grad.T @ x]
                grad = grad @ weight if i or ctx.needs_input_grad[0] else None
        return grad, None, *reversed(grads)


class FastSequential(nn.Sequential):
    """A Sequential in which a row of Linear, RMSNorm and SiLU runs as one function.

    So do a convolution and what halves or doubles the image beside it.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x [...,I] -> [...,O], or images [N,I,H,W] -> [N,O,H',W']."""
        layers = list(self)
        while layers:
            taken, blocks, params = stack(layers)
            if blocks and native.usable(x, *params) and x.numel():
                flat = native.rows(x.reshape(-1, x.shape[-1]))
                flat = _Stack.apply(flat, tuple(blocks), *params)
                x = flat.view(*x.shape[:-1], flat.shape[-1])
                layers = layers[taken:]
            elif normed(layers):
                flat = x.reshape(-1, x.shape[-1]).float()
                x = _RMSNormSiLU.apply(flat, layers[0].weight, layers[0].eps).view(x.shape)
                layers = layers[2:]
            elif conv := pair(layers, x):
                x = conv(*layers[:2], x)
                layers = layers[2:]
            else:
                x = layers.pop(0)(x)
        return x


def normed(layers: list[nn.Module]) -> bool:
    """Whether the first two layers are RMSNorm and SiLU."""
    kinds = [type(layer) for layer in layers[:2]]
    return kinds == [RMSNorm, nn.SiLU]


def stack(layers: list[nn.Module]) -> tuple[int, list[tuple[bool, float | None]], list[Tensor]]:
    """How many of the first layers `_Stack` can do, its blocks, its parameters (any shape)."""
    blocks, params, i = [], [], 0
    while i < len(layers):
        dense = type(layers[i]) is nn.Linear and layers[i].bias is not None
        norm = normed(layers[i + dense :])
        if not dense and not norm:
            break
        if dense:
            params += [layers[i].weight, layers[i].bias]
        blocks.append((dense, layers[i + dense].eps if norm else None))
        if norm:
            params.append(layers[i + dense].weight)
        i += dense + 2 * norm
    return i, blocks, params


# --- images -------------------------------------------------------------------------------------


class _PixelLoss(torch.autograd.Function):
    """Σ (σ(x) - image/255)² in one pass.  x [N,m] float, image [N,m] uint8 -> [N]."""

    @staticmethod
    def forward(ctx, x: Tensor, image: Tensor) -> Tensor:
        ctx.save_for_backward(x, image)
        return native.pixel_loss(x, image)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        return native.pixel_loss_backward(grad.contiguous(), *ctx.saved_tensors), None


class FastPixelHead(PixelHead):
    """Bytes are compared where they are, without a copy as numbers."""

    def loss(self, logits: Tensor, image: Tensor) -> Tensor:
        """logits [...,H,W,C], image uint8 [...,H,W,C] -> [...], in the units of `PixelHead`."""
        fits = image.dtype == torch.uint8 and image.shape == logits.shape and image.numel() > 0
        if not fits or not native.usable(logits):
            return super().loss(logits, image)
        flat = logits.flatten(0, -4).flatten(1).contiguous()
        loss = _PixelLoss.apply(flat, image.reshape(flat.shape).contiguous())
        return loss.view(logits.shape[:-3])


# --- distributions ------------------------------------------------------------------------------


class _TwoHotLoss(torch.autograd.Function):
    """Cross-entropy of softmax(x) with twohot(target), without either.  x [N,K], target [N]."""

    @staticmethod
    def forward(ctx, x: Tensor, bins: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(x, bins, target)
        return native.twohot_loss(x, bins, target)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        return native.twohot_loss_backward(grad.contiguous(), *ctx.saved_tensors), None, None


class FastTwoHotHead(TwoHotHead):
    """Half of the mirrored sum, and a loss that touches two bins instead of 255."""

    def mean(self, params: Tensor) -> Tensor:
        """[...,K] -> [...]."""
        answers(params, self.num_params, look=False)
        if native.usable(params) and not (torch.is_grad_enabled() and params.requires_grad):
            flat = params.reshape(-1, self.num_params).contiguous()
            return native.twohot_mean(flat, self.bins).view(params.shape[:-1])
        p, half = params.float().softmax(-1), self.num_params // 2
        # No product of matrices: autocast would round values and bins to bfloat16
        return ((p[..., -half:] - p[..., :half].flip(-1)) * self.bins[-half:]).sum(-1)

    def loss(self, params: Tensor, target: Tensor) -> Tensor:
        """[...,K], [...] -> [...], in nats."""
        fits(params, target, self.num_params, look=False)
        if native.usable(params):
            flat = params.reshape(-1, self.num_params).contiguous()
            target = target.detach().float().reshape(-1).contiguous()
            return _TwoHotLoss.apply(flat, self.bins, target).view(params.shape[:-1])
        x = target.detach().float().clamp(self.bins[0], self.bins[-1])
        above = torch.searchsorted(self.bins, x.contiguous(), right=True)
        above = above.clamp(1, self.num_params - 1)
        share = (x - self.bins[above - 1]) / (self.bins[above] - self.bins[above - 1])
        params = params.float()
        picked = params.gather(-1, torch.stack([above - 1, above], -1))
        return params.logsumexp(-1) - picked[..., 0] * (1 - share) - picked[..., 1] * share


class _Dice(torch.autograd.Function):
    """OneHots.of in one pass.  x [...,K] -> p, ln p."""

    @staticmethod
    def forward(ctx, x: Tensor, unimix: float):
        ctx.save_for_backward(x)
        ctx.unimix = unimix
        return native.dice(x, unimix)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Tensor):
        x, zero = *ctx.saved_tensors, None
        grads = [g.contiguous() for g in grads]
        return native.dice_backward(*grads, x, ctx.unimix), zero


class FastCategorical(Categorical):
    """Softmax, mixture and logarithm in one pass."""

    def __call__(self, params: Tensor) -> OneHots:
        """params [...,G·K] -> p and ln p [...,G,K]."""
        if not native.usable(params):
            return super().__call__(params)
        x = params.unflatten(-1, (self.groups, self.classes)).contiguous()
        return OneHots(*_Dice.apply(x, self.unimix))


# --- swapping -----------------------------------------------------------------------------------

# A layer and its fast twin, which has the same parameters
SWAPS = {
    nn.Sequential: FastSequential,
    nn.ConvTranspose2d: FastConvTranspose2d,
    BlockGRU: FastBlockGRU,
    TwoHotHead: FastTwoHotHead,
    PixelHead: FastPixelHead,
    RSSM: FastRSSM,
}


def accelerate(agent: nn.Module) -> nn.Module:
    """Replaces layers of `agent` by their fast twins, in place; returns it."""
    model = getattr(agent, "world_model", agent)  # an agent, or a world model alone
    for module in [*agent.modules(), *model.obs_heads.values()]:
        if type(module) in SWAPS:
            module.__class__ = SWAPS[type(module)]
    latent = model.rssm.latent
    if type(latent) is Categorical:
        model.rssm.latent = FastCategorical(latent.groups, latent.classes, latent.unimix)
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
