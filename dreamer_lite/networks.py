"""The layers everything is made of: dense stacks, convolutions, recurrent cells (chapters 3, 4).

A `Style` says how a layer looks in a paper (normalization, activation, initialization); the cells
are interchangeable: `cell(h, z, a) -> h`. Images are [...,H,W,C] outside and channels-last inside.
ValueError for widths that are no whole numbers, and for tensors of other widths than a layer has.
Cells stand in the loop over time: they look at shapes, and `RSSM` at numbers.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from dreamer_lite.guard import (
    alike,
    between,
    floats,
    pixels,
    real,
    refuse_unread,
    require,
    rows,
    whole,
)
from dreamer_lite.spaces import ObsSpec, is_image, refuse_odd
from dreamer_lite.transforms import symlog


class RMSNorm(nn.RMSNorm):
    """x / √(mean x² + ε) · scale over the last axis.  V3: ε = 1e-4, a learned scale, no shift."""

    def __init__(self, units: int):
        super().__init__(units, eps=1e-4)

    def forward(self, x: Tensor) -> Tensor:
        """[...,units] -> [...,units] in float32."""
        return super().forward(x.float())  # also where the layers around it run in bfloat16


class LayerNorm(nn.LayerNorm):
    """(x - mean) / √(var + ε) · scale + shift, over the last axis.  V2, V3 of 2023: ε = 1e-3."""

    def __init__(self, units: int):
        super().__init__(units, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """[...,units] -> [...,units] in float32."""
        return super().forward(x.float())


def trunc_normal(weight: Tensor, fan_in: int, scale: float = 1.0) -> None:
    """V3: normal cut at ±2 std, std = 1.1368 √(1/fan_in); the variance is then 1/fan_in.

    weight of any shape is filled in place; scale 0 gives exact zeros.
    """
    refuse_no_weight(weight, fan_in, scale)
    std = 1.1368 * scale * math.sqrt(1 / fan_in)
    nn.init.trunc_normal_(weight, 0.0, std, -2 * std, 2 * std) if std else nn.init.zeros_(weight)


def glorot_uniform(weight: Tensor, fan_in: int, scale: float = 1.0) -> None:
    """V1, V2 (the default of Keras): U(-l, l) with l = √(6 / (fan_in + fan_out)).

    Of a convolution [o,i,k,k] both fans count the pixels of the kernel. Fills weight in place.
    """
    refuse_no_weight(weight, fan_in, scale)
    area = math.prod(weight.shape[2:]) if weight.dim() == 4 else 1
    fan_out = weight.numel() // max(fan_in, 1) * area
    limit = scale * math.sqrt(6 / (fan_in + fan_out))
    nn.init.uniform_(weight, -limit, limit)


def refuse_no_weight(weight: Tensor, fan_in: int, scale: float) -> None:
    """What may be filled with first weights: a float tensor of any shape, whatever is in it."""
    real("give the weight of a layer", weight=weight)
    whole(1, "the inputs of one output", fan_in=fan_in)
    between(0, math.inf, "1 is usual, 0 gives zeros", scale=scale)


@dataclass(frozen=True)
class Style:
    """How one hidden layer is built: Linear (or Conv) -> norm -> act, weights drawn by init."""

    norm: type[nn.Module] | None = RMSNorm
    act: type[nn.Module] = nn.SiLU
    init: Callable[..., None] = trunc_normal


WIDTHS = "widths are those of the tensors"  # to who gave another number


def linear(inputs: int, outputs: int, style: Style, scale: float = 1.0) -> nn.Linear:
    """A dense layer with zero bias; `scale` multiplies the initial weights (0: exact zeros)."""
    whole(1, WIDTHS, inputs=inputs, outputs=outputs)
    layer = nn.Linear(inputs, outputs)
    style.init(layer.weight, inputs, scale)
    nn.init.zeros_(layer.bias)
    return layer


def finish(units: int, style: Style) -> list[nn.Module]:
    """What follows a linear map in a hidden layer: norm (if any) and activation."""
    return ([style.norm(units)] if style.norm else []) + [style.act()]


def mlp(inputs: int, units: int, layers: int, style: Style) -> nn.Sequential:
    """[...,inputs] -> [...,units] through `layers` hidden layers."""
    whole(1, WIDTHS, inputs=inputs, units=units)
    whole(0, "0 is no hidden layer", layers=layers)
    widths = [inputs] + [units] * layers
    blocks = [
        [linear(i, o, style), *finish(o, style)] for i, o in zip(widths, widths[1:], strict=False)
    ]
    return nn.Sequential(*sum(blocks, []))


def readout(inputs: int, units: int, layers: int, outputs: int, style: Style, scale: float = 1.0):
    """An `mlp` followed by one plain linear layer: every head, actor and critic."""
    width = units if layers else inputs
    return nn.Sequential(*mlp(inputs, units, layers, style), linear(width, outputs, style, scale))


class BlockLinear(nn.Module):
    """g independent linear maps: block j of the output sees block j of the input only.

    [N,g,in/g] -> [N,g,out/g]. Weight [g,in/g,out/g], initialized with the *full* fan-in, as the
    authors' code does.
    """

    def __init__(self, inputs: int, outputs: int, blocks: int, style: Style):
        super().__init__()
        whole(1, "V3 has 8 blocks", inputs=inputs, outputs=outputs, blocks=blocks)
        even = inputs % blocks == outputs % blocks == 0
        got = f"{inputs} to {outputs} in {blocks} blocks"
        require(even, "blocks", "a divisor of inputs and outputs", got, "V3 has 8 blocks")
        self.weight = nn.Parameter(torch.empty(blocks, inputs // blocks, outputs // blocks))
        self.bias = nn.Parameter(torch.zeros(blocks, outputs // blocks))
        style.init(self.weight, inputs)

    def forward(self, x: Tensor) -> Tensor:
        """[N,g,in/g] -> [N,g,out/g]."""
        real("split a row into its blocks", ("N", *self.weight.shape[:2]), x=x)
        y = torch.bmm(x.transpose(0, 1), self.weight)  # [g,N,out/g]: one matrix product per block
        return y.transpose(0, 1) + self.bias


# --- recurrent cells: h_t = f(h_{t-1}, z_{t-1}, a_{t-1}) ---------------------------------------

BEFORE = "give what was known a step before, as many rows as h has"  # to who gave something else


class GRU(nn.Module):
    """V1: x = act(W [z; a]), then a plain gated recurrent unit.  deter D, hidden Y."""

    def __init__(self, deter: int, hidden: int, z: int, action: int, style: Style):
        super().__init__()
        self.inputs = mlp(z + action, hidden, 1, style)
        self.gru = nn.GRUCell(hidden, deter)
        style.init(self.gru.weight_ih, hidden)
        nn.init.orthogonal_(self.gru.weight_hh)
        nn.init.zeros_(self.gru.bias_ih)
        nn.init.zeros_(self.gru.bias_hh)
        self.deter, self.z, self.action = deter, z, action

    def forward(self, h: Tensor, z: Tensor, a: Tensor) -> Tensor:
        """[B,D], [B,Z], [B,A] -> [B,D]."""
        rows(BEFORE, len(h), h=(h, self.deter), z=(z, self.z), a=(a, self.action))
        x = self.inputs(torch.cat([z, a], -1))
        with torch.autocast("cuda", enabled=False):  # under which h would be kept in bfloat16
            return self.gru(x.float(), h.float())


def gates(reset: Tensor, candidate: Tensor, update: Tensor, h: Tensor) -> Tensor:
    """V2's and V3's gated update; all [...,D].

        c = tanh(σ(reset) · candidate),   u = σ(update - 1),   h' = u·c + (1-u)·h

    The reset gate multiplies the candidate's pre-activation, not h; the -1 makes a fresh network
    keep 73 % of its memory. Source: authors' code,
    V2 `common/nets.py:317-347`, V3 `rssm.py:135-159`.
    """
    alike("give three gates like h", h, reset=reset, candidate=candidate, update=update, h=h)
    c = torch.tanh(reset.sigmoid() * candidate)
    u = (update - 1).sigmoid()
    return u * c + (1 - u) * h


class NormGRU(nn.Module):
    """V2: one linear map of [x; h] to all three gates, layer norm over the whole of it."""

    def __init__(self, deter: int, hidden: int, z: int, action: int, style: Style):
        super().__init__()
        self.inputs = mlp(z + action, hidden, 1, style)
        self.gates = linear(hidden + deter, 3 * deter, style)
        self.norm = LayerNorm(3 * deter)
        self.deter, self.z, self.action = deter, z, action

    def forward(self, h: Tensor, z: Tensor, a: Tensor) -> Tensor:
        """[B,D], [B,Z], [B,A] -> [B,D]."""
        rows(BEFORE, len(h), h=(h, self.deter), z=(z, self.z), a=(a, self.action))
        x = self.inputs(torch.cat([z, a], -1))
        reset, candidate, update = self.norm(self.gates(torch.cat([x, h], -1))).chunk(3, -1)
        return gates(reset, candidate, update, h)


class BlockGRU(nn.Module):
    """V3: eight blocks of h, each updated from its own slice and a shared view of [h, z, a].

    Cost per step grows with D²/8 instead of D², so the memory can be large.
    """

    def __init__(self, deter: int, hidden: int, z: int, action: int, style: Style, blocks: int = 8):
        super().__init__()
        self.blocks = blocks
        self.in_h = mlp(deter, hidden, 1, style)
        self.in_z = mlp(z, hidden, 1, style)
        self.in_a = mlp(action, hidden, 1, style)
        self.mix = BlockLinear(deter + blocks * 3 * hidden, deter, blocks, style)
        self.mix_out = nn.Sequential(*finish(deter, style))  # the norm runs over the full h
        self.gates = BlockLinear(deter, 3 * deter, blocks, style)
        self.deter, self.z, self.action = deter, z, action

    def forward(self, h: Tensor, z: Tensor, a: Tensor) -> Tensor:
        """[B,D], [B,Z], [B,A] -> [B,D]."""
        rows(BEFORE, len(h), h=(h, self.deter), z=(z, self.z), a=(a, self.action))
        a = a / a.detach().abs().clamp(min=1)  # actions beyond ±1 keep their sign only
        shared = torch.cat([self.in_h(h), self.in_z(z), self.in_a(a)], -1)  # [B,3Y]
        shared = shared[:, None].expand(-1, self.blocks, -1)  # every block sees all of it
        own = h.unflatten(-1, (self.blocks, -1))  # [B,g,D/g]
        x = self.mix_out(self.mix(torch.cat([own, shared], -1)).flatten(-2))  # [B,D]
        parts = self.gates(x.unflatten(-1, (self.blocks, -1))).chunk(3, -1)  # split inside a block
        return gates(*(p.flatten(-2) for p in parts), h)


# --- images -----------------------------------------------------------------------------------


class ChannelNorm(nn.Module):
    """Norm and activation over the channels of [N,C,H,W] (a free view in channels-last memory)."""

    def __init__(self, channels: int, style: Style):
        super().__init__()
        self.layers = nn.Sequential(*finish(channels, style))

    def forward(self, x: Tensor) -> Tensor:
        """[N,C,H,W] -> [N,C,H,W]."""
        return self.layers(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def stages(shape: tuple[int, ...], depth: int, mults: tuple[int, ...]) -> list[int]:
    """Channels per stage: images are halved until 4×4 (64: 4 stages, 16: 2; 96 ends at 6×6)."""
    refuse_odd({"image": shape})
    require(len(shape) == 3, "image", "[H,W,C]", f"{shape}", "a vector needs no convolutions")
    whole(1, "V3 has 64 at size 200m, V1 32", depth=depth)
    height, width, _ = shape
    count = int(math.log2(min(height, width) / 4)) if min(height, width) >= 8 else 0
    if not count or count > len(mults) or height % 2**count or width % 2**count:
        raise ValueError(
            f"image must be 8..{4 * 2 ** len(mults)} pixels and halve evenly down to about 4x4, "
            f"got {height}x{width}; resize it to 64x64 (`envs.make` does)"
        )
    return [depth * m for m in mults[:count]]


def initialized(layer: nn.Module, style: Style, scale: float = 1.0) -> nn.Module:
    """A convolution with first weights (fan_in = kernel area × channels), channels-last."""
    area = layer.kernel_size[0] * layer.kernel_size[1]
    style.init(layer.weight, area * layer.in_channels, scale)
    nn.init.zeros_(layer.bias)
    return layer.to(memory_format=torch.channels_last)


def down_pool(i: int, o: int, style: Style) -> nn.Sequential:
    """V3: 5×5 convolution, 2×2 max-pool, norm, activation; halves the image."""
    layer = initialized(nn.Conv2d(i, o, 5, padding=2), style)
    return nn.Sequential(layer, nn.MaxPool2d(2), ChannelNorm(o, style))


def down_stride(i: int, o: int, style: Style) -> nn.Sequential:
    """V3 of 2023: 4×4 convolution with stride 2, norm, activation; 16 taps for 100."""
    return nn.Sequential(initialized(nn.Conv2d(i, o, 4, 2, 1), style), ChannelNorm(o, style))


def up_nearest(i: int, o: int, style: Style) -> nn.Sequential:
    """V3: repeat every pixel 2×2, then a 5×5 convolution; doubles the image."""
    return nn.Sequential(
        nn.Upsample(scale_factor=2), initialized(nn.Conv2d(i, o, 5, padding=2), style)
    )


def up_stride(i: int, o: int, style: Style) -> nn.Sequential:
    """V3 of 2023: transposed 4×4 convolution with stride 2; 4 taps a pixel for 25."""
    return nn.Sequential(initialized(nn.ConvTranspose2d(i, o, 4, 2, 1), style))


def refuse_no_state(h: Tensor, z: Tensor, deter: int, size: int) -> None:
    """What a decoder reads: h [...,D] and z [...,Z] of the same moments."""
    floats("give the memory of states, `s.h`", (..., deter), h=h)
    check = floats if size else real  # a decoder of one vector has no z
    check("give the latent of the same states as h, `s.z`", (*h.shape[:-1], size), z=z)


class ConvEncoder(nn.Module):
    """uint8 image [...,H,W,C] -> tokens [...,h·w·c]: x/255 - ½, then one `down` per stage."""

    def __init__(self, shape: tuple[int, ...], conv: "Conv", style: Style):
        super().__init__()
        depths = stages(shape, conv.depth, conv.mults)
        pairs = zip([shape[-1], *depths], depths, strict=False)
        self.layers = nn.Sequential(*(conv.down(i, o, style) for i, o in pairs))
        scale = 2 ** len(depths)
        self.shape, self.size = shape, shape[0] // scale * (shape[1] // scale) * depths[-1]

    def forward(self, image: Tensor) -> Tensor:
        """uint8 [...,H,W,C] -> [...,size]."""
        pixels("give raw pixels 0..255", (..., *self.shape), image=image)
        x = image.flatten(0, -4).float() / 255 - 0.5  # [N,H,W,C]
        x = self.layers(x.permute(0, 3, 1, 2))  # [N,c,h,w]
        return x.permute(0, 2, 3, 1).flatten(1).unflatten(0, image.shape[:-3])


class ConvDecoder(nn.Module):
    """(h, z) -> image logits [...,H,W,C]: a block-linear map of h plus an MLP of z, then `up`s."""

    def __init__(self, shape, conv: "Conv", deter: int, z: int, units: int, style: Style, blocks=8):
        super().__init__()
        depths = stages(shape, conv.depth, conv.mults)[::-1]  # deepest first
        scale = 2 ** len(depths)
        self.grid = (shape[0] // scale, shape[1] // scale, depths[0])
        self.blocks, size = math.gcd(blocks, depths[0]), math.prod(self.grid)  # whole channels each
        self.from_h = BlockLinear(deter, size, self.blocks, style)
        self.from_z = readout(z, 2 * units, 1, size, style)
        self.merge = nn.Sequential(*finish(depths[0], style))
        self.ups = nn.ModuleList(
            nn.Sequential(conv.up(i, o, style), ChannelNorm(o, style))
            for i, o in zip(depths, depths[1:], strict=False)
        )
        self.out = conv.up(depths[-1], shape[-1], style)
        self.deter, self.z = deter, z

    def forward(self, h: Tensor, z: Tensor) -> Tensor:
        """[...,D], [...,Z] -> [...,H,W,C]."""
        refuse_no_state(h, z, self.deter, self.z)
        lead, (height, width, c) = h.shape[:-1], self.grid
        h, z = h.flatten(0, -2), z.flatten(0, -2)
        x = self.from_h(h.unflatten(-1, (self.blocks, -1)))  # [N,g,h·w·c/g]
        x = x.unflatten(-1, (height, width, c // self.blocks)).movedim(1, -2).flatten(-2)
        x = self.merge(x + self.from_z(z).unflatten(-1, self.grid))  # [N,h,w,c]
        x = x.permute(0, 3, 1, 2)
        for up in self.ups:
            x = up(x)
        return self.out(x).permute(0, 2, 3, 1).unflatten(0, lead)


PAPER = (64, 64)  # the size of image for which V1 and V2 are defined


class StrideEncoder(ConvEncoder):
    """V1, V2: 4×4 convolutions with stride 2 and no padding, 64 → 31 → 14 → 6 → 2.

    Other sizes than 64×64 are ours: padding 1, halved until about 4×4. Source: authors' code V1
    `models.py:84-99`, V2 `common/nets.py:183-226`.
    """

    def __init__(self, shape: tuple[int, ...], conv: "Conv", style: Style):
        nn.Module.__init__(self)
        style = replace(style, act=conv.act or style.act)
        depths = stages(shape, conv.depth, conv.mults)
        padding, blocks, (rows, cols, channels) = int(shape[:2] != PAPER), [], shape
        self.shape = shape
        for depth in depths:
            layer = nn.Conv2d(channels, depth, 4, 2, padding)
            blocks.append(nn.Sequential(initialized(layer, style), ChannelNorm(depth, style)))
            rows, cols = ((n + 2 * padding - 4) // 2 + 1 for n in (rows, cols))
            channels = depth
        self.layers = nn.Sequential(*blocks)
        self.size = rows * cols * channels


class StrideDecoder(nn.Module):
    """V1, V2: one dense layer of [h; z], then transposed convolutions with stride 2.

    64×64: kernels 5, 5, 6, 6 on 1×1 pixel, 1 → 5 → 13 → 30 → 64. Other sizes are ours: the encoder
    mirrored, kernels 4 with padding 1. Source: V1 `models.py:102-117`, V2 `common/nets.py:229-281`.
    """

    def __init__(self, shape, conv: "Conv", deter: int, z: int, units: int, style: Style):
        super().__init__()  # units: the width of MLPs, of which there is none
        style = replace(style, act=conv.act or style.act)
        depths = stages(shape, conv.depth, conv.mults)[::-1]  # deepest first
        scale, paper = 2 ** len(depths), shape[:2] == PAPER
        self.grid = (1, 1, 4 * depths[0])
        if not paper:
            self.grid = (shape[0] // scale, shape[1] // scale, depths[0])
        self.dense = linear(deter + z, math.prod(self.grid), style)
        kernels = (5, 5, 6, 6) if paper else (4,) * len(depths)
        widths = [self.grid[-1], *depths[1:], shape[-1]]
        layers = []
        for i, o, kernel in zip(widths, widths[1:], kernels, strict=False):
            layer = nn.ConvTranspose2d(i, o, kernel, 2, int(not paper))
            layers += [initialized(layer, style), ChannelNorm(o, style)]
        self.layers = nn.Sequential(*layers[:-1])  # the last one is linear
        self.deter, self.z = deter, z

    def forward(self, h: Tensor, z: Tensor) -> Tensor:
        """[...,D], [...,Z] -> [...,H,W,C]."""
        refuse_no_state(h, z, self.deter, self.z)
        lead = h.shape[:-1]
        x = self.dense(torch.cat([h, z], -1)).flatten(0, -2).unflatten(-1, self.grid)
        return self.layers(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).unflatten(0, lead)


@dataclass(frozen=True)
class Conv:
    """How images are halved and doubled: depth · mults channels per stage."""

    depth: int = 64  # channels are multiples of this
    mults: tuple[int, ...] = (2, 3, 4, 4)  # channels / depth of each stage
    down: Callable[..., nn.Module] = down_pool
    up: Callable[..., nn.Module] = up_nearest
    encoder: type[nn.Module] = ConvEncoder
    decoder: type[nn.Module] = ConvDecoder
    act: type[nn.Module] | None = None  # V1, V2: activation of convolutions; None: the style's

    def __post_init__(self) -> None:
        remedy = "V3 has depth 64 at size 200m and mults (2, 3, 4, 4), V1 32 and (1, 2, 4, 8)"
        whole(1, remedy, depth=self.depth)
        some = isinstance(self.mults, tuple) and len(self.mults) > 0
        require(some, "mults", "a tuple with one number a stage", self.mults, remedy)
        whole(1, remedy, **{f"mults[{i}]": n for i, n in enumerate(self.mults)})
        refuse_unread(self)

    def unread(self) -> dict[str, str]:
        """Fields that have no meaning beside the others, and why."""
        pieces = {"down": (self.encoder, StrideEncoder), "up": (self.decoder, StrideDecoder)}
        idle = {k: f"{own.__name__} has its own" for k, (x, own) in pieces.items() if x is own}
        if (self.encoder, self.decoder) == (ConvEncoder, ConvDecoder):
            idle["act"] = "ConvEncoder and ConvDecoder have the activation of the style"
        return idle


# --- observations: a dictionary of images and vectors ------------------------------------------


class Encoder(nn.Module):
    """obs {name: [...,shape]} -> tokens e [...,E]: vectors by symlog and an MLP, then images.

    Every image has a network of its own, so sizes may differ (the authors' code stacks several
    images of one size as channels of one).
    squash: what happens to a vector before the MLP (V3: symlog; V1, V2: nothing).
    """

    def __init__(
        self, spec: ObsSpec, conv: Conv, units: int, layers: int, style: Style, squash=symlog
    ):
        super().__init__()
        require(bool(spec), "spec", "at least one observation", f"{spec}", "name what is seen")
        refuse_odd(spec)
        self.spec, self.squash = spec, squash
        self.vectors = sorted(k for k, s in spec.items() if not is_image(s))
        self.images = sorted(k for k, s in spec.items() if is_image(s))
        inputs = sum(spec[k][0] for k in self.vectors)
        self.mlp = mlp(inputs, units, layers, style) if self.vectors else None
        self.convs = nn.ModuleDict({k: conv.encoder(spec[k], conv, style) for k in self.images})
        self.size = units * bool(self.vectors) + sum(c.size for c in self.convs.values())

    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        """{name: [...,shape]} -> [...,E]."""
        self.check(obs)
        tokens = [self.convs[k](obs[k]) for k in self.images]
        if self.mlp:
            vector = torch.cat([obs[k] for k in self.vectors], -1)
            tokens.insert(0, self.mlp(self.squash(vector)))
        return torch.cat(tokens, -1)  # [...,E]

    def check(self, obs: dict[str, Tensor]) -> None:
        """Refuses other names than the encoder was built for, and other kinds than [...,shape]."""
        remedy = "give the observations the agent was built for, all of the same moments"
        if not obs.keys() >= self.spec.keys():
            require(False, "obs", f"{sorted(self.spec)}", f"{[*obs]}", remedy)
        for name, shape in self.spec.items():
            kind = pixels if is_image(shape) else floats
            kind(remedy, (..., *shape), **{f"obs[{name!r}]": obs[name]})
        leads = {name: tuple(obs[name].shape[: -len(s)]) for name, s in self.spec.items()}
        alike = len(set(leads.values())) == 1
        require(alike, "obs", "of one shape apart from what is seen", f"{leads}", remedy)


class Decoder(nn.Module):
    """(h, z) -> {name: what its head reads}: images [...,H,W,C], vectors [...,n]."""

    def __init__(self, spec: ObsSpec, conv: Conv, deter, z, units: int, layers: int, style: Style):
        super().__init__()
        vectors = {k: s[0] for k, s in spec.items() if not is_image(s)}
        images = {k: s for k, s in spec.items() if is_image(s)}
        self.mlp = mlp(deter + z, units, layers, style) if vectors else None
        self.deter, self.z = deter, z
        self.outs = nn.ModuleDict({k: linear(units, n, style) for k, n in vectors.items()})
        self.convs = nn.ModuleDict(
            {k: conv.decoder(s, conv, deter, z, units, style) for k, s in images.items()}
        )

    def forward(self, h: Tensor, z: Tensor) -> dict[str, Tensor]:
        """[...,D], [...,Z] -> {name: [...,shape]}."""
        refuse_no_state(h, z, self.deter, self.z)
        out = {k: net(h, z) for k, net in self.convs.items()}
        if self.mlp:
            x = self.mlp(torch.cat([h, z], -1))
            out |= {k: net(x) for k, net in self.outs.items()}
        return out
