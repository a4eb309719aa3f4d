"""The loops over time of a V3 world model, with as few calls as possible (chapter 13, optional).

`FastRSSM` observes and imagines like `RSSM`. What needs no memory, such as the projections of all
images and actions, happens before the loop, and the gradient of a weight is one product after it.
Other norms, latents and devices take the readable path. ValueError where that has one.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dreamer_lite import native
from dreamer_lite.distributions import Categorical
from dreamer_lite.guard import rows
from dreamer_lite.networks import BEFORE, BlockGRU, RMSNorm, gates
from dreamer_lite.rssm import RSSM, State

Grads = dict[nn.Parameter, Tensor]  # a parameter (any shape), its gradient


# --- layers that run one step of time after another ----------------------------------------------


class Dense:
    """y_t = W x_t + b_t for steps t; a bias [T,B,O] differs from step to step.  [B,I] -> [B,O]."""

    def __init__(self, weight: Tensor, bias: Tensor, steps: int, batch: int):
        self.weight, self.turned = weight, weight.T
        self.bias = bias.unbind(0) if bias.dim() == 3 else [bias] * steps
        self.ys = weight.new_empty(steps, batch, len(weight))
        self.y = self.ys.unbind(0)

    def forward(self, t: int, x: Tensor) -> Tensor:
        """x [B,I] -> y_t [B,O], kept for the way back."""
        return torch.addmm(self.bias[t], x, self.turned, out=self.y[t])


class Hidden(Dense):
    """silu(norm(W x_t + b_t)); remembers what the way back needs."""

    def __init__(self, weight, bias, norm: RMSNorm, steps: int, batch: int, out=None):
        super().__init__(weight, bias, steps, batch)
        self.norm, self.scale, self.eps = norm, norm.weight.detach(), norm.eps
        self.outs = torch.empty_like(self.ys) if out is None else out
        self.out = self.outs.unbind(0)

    def forward(self, t: int, x: Tensor) -> Tensor:
        """x [B,I] -> [B,O]."""
        super().forward(t, x)
        return self.activate(t)

    def activate(self, t: int) -> Tensor:
        """silu(norm(y_t)) of what `y[t]` holds.  [B,O]."""
        return native.rms_silu(self.y[t], self.scale, self.eps, self.out[t])

    def begin_backward(self) -> None:
        """Room for the gradients of all steps."""
        self.grads = torch.empty_like(self.ys)
        self.grad = self.grads.unbind(0)
        self.total = self.scale.new_zeros(torch.get_num_threads(), len(self.scale))

    def backward(self, t: int, grad: Tensor) -> Tensor:
        """Of what the norm was given: ∂/∂(W x_t + b_t).  [B,O] -> [B,O]."""
        native.rms_silu_backward(grad, self.y[t], self.scale, self.eps, self.grad[t], self.total)
        return self.grad[t]

    def parameters(self, x: Tensor, linear: nn.Linear) -> Grads:
        """Gradients of all steps at once; x [T,B,I]: what went in."""
        return {self.norm.weight: self.total.sum(0)} | dense_grads(self.grads, x, linear)


def dense_grads(grad: Tensor, x: Tensor, linear: nn.Linear) -> Grads:
    """∂W = Σ ∂y x', ∂b = Σ ∂y.  grad [T,B,O], x [T,B,I]."""
    grad = grad.flatten(0, 1)
    return {linear.weight: grad.T @ x.flatten(0, 1), linear.bias: grad.sum(0)}


class Net:
    """A `networks.readout` of one step after another; its input is seen through `weight`."""

    def __init__(self, net: nn.Sequential, steps: int, batch: int, weight=None, bias=None):
        self.linears, norms = list(net[::3]), list(net[1::3])
        given = [(x.weight.detach(), x.bias.detach()) for x in self.linears]
        given[0] = given[0] if weight is None else (weight, bias)
        self.hidden = [
            Hidden(*one, norm, steps, batch) for one, norm in zip(given[:-1], norms, strict=True)
        ]
        self.last = Dense(*given[-1], steps, batch)

    def forward(self, t: int, x: Tensor) -> Tensor:
        """x [B,I] -> [B,O]."""
        for layer in self.hidden:
            x = layer.forward(t, x)
        return self.last.forward(t, x)

    def begin_backward(self) -> None:
        """Room for the gradients of all layers."""
        for layer in self.hidden:
            layer.begin_backward()

    def backward(self, t: int, grad: Tensor) -> Tensor:
        """∂ of the first layer's W x + b [B,U]; the product with W is left to the caller."""
        after = self.last
        for layer in reversed(self.hidden):
            grad = layer.backward(t, grad @ after.weight)
            after = layer
        return grad

    def parameters(self, grad: Tensor) -> Grads:
        """All but the first layer's W and b.  grad [T,B,O]: of the output."""
        outs = [layer.outs for layer in self.hidden]
        grads = dense_grads(grad, outs[-1], self.linears[-1])
        grads[self.hidden[0].norm.weight] = self.hidden[0].total.sum(0)
        for layer, linear, x in zip(self.hidden[1:], self.linears[1:], outs, strict=False):
            grads |= layer.parameters(x, linear)
        return grads


def is_readout(net: nn.Module) -> bool:
    """Whether `net` is one or more layers of Linear, RMSNorm, SiLU, and a last Linear."""
    kinds, layer = [type(x) for x in net], [nn.Linear, RMSNorm, nn.SiLU]
    return len(kinds) > 1 and kinds == layer * (len(kinds) // 3) + [nn.Linear]


# --- the cell -------------------------------------------------------------------------------------


class FastBlockGRU(BlockGRU):
    """The shared inputs meet all blocks in one dense product instead of eight copies."""

    def forward(self, h: Tensor, z: Tensor, a: Tensor) -> Tensor:
        """[B,D], [B,Z], [B,A] -> [B,D]."""
        rows(BEFORE, len(h), h=(h, self.deter), z=(z, self.z), a=(a, self.action))
        a = a / a.detach().abs().clamp(min=1)
        shared = torch.cat([self.in_h(h), self.in_z(z), self.in_a(a)], -1)
        own, dense = self.weights()
        x = torch.addmm(self.mix.bias.flatten(), shared, dense)
        x = self.mix_out(x + torch.bmm(self.split(h), own).transpose(0, 1).flatten(-2))
        parts = self.gates(x.unflatten(-1, (self.blocks, -1))).chunk(3, -1)
        return gates(*(p.flatten(-2) for p in parts), h)

    def weights(self) -> tuple[Tensor, Tensor]:
        """`mix` as a map of each block's own slice [g,D/g,D/g] and one of the shared [3Y,D]."""
        width = self.mix.weight.shape[-1]
        return self.mix.weight[:, :width], self.mix.weight[:, width:].movedim(0, 1).flatten(1)

    def split(self, x: Tensor) -> Tensor:
        """A view of [B,D] by blocks.  [g,B,D/g]."""
        return x.unflatten(-1, (self.blocks, -1)).transpose(0, 1)


class Cell:
    """A `FastBlockGRU` over many steps, forward and back.  All steps' inputs are [T,B,.]."""

    def __init__(self, cell: FastBlockGRU, steps: int, batch: int):
        self.cell, self.split = cell, cell.split
        inputs = cell.in_h, cell.in_z, cell.in_a
        hidden = inputs[0][0].out_features
        self.shared = cell.in_h[0].weight.new_empty(steps, batch, 3 * hidden)
        self.in_h, self.in_z, self.in_a = (
            Hidden(net[0].weight.detach(), net[0].bias.detach(), net[1], steps, batch, out)
            for net, out in zip(inputs, self.shared.chunk(3, -1), strict=True)
        )
        self.own, self.dense = (x.detach().contiguous() for x in cell.weights())
        bias = cell.mix.bias.detach().flatten()
        self.mix = Hidden(self.dense.T, bias, cell.mix_out[0], steps, batch)
        self.gates = cell.gates.weight.detach()
        self.bias = cell.gates.bias.detach()
        self.pres = self.shared.new_empty(steps, batch, self.bias.numel())
        self.pre = self.pres.unbind(0)

    def forward(self, t: int, h: Tensor, z: Tensor, out: Tensor) -> None:
        """h_t [B,D] from the step before; the action's part of `shared` is there already."""
        self.in_h.forward(t, h)
        self.in_z.forward(t, z)
        x = Dense.forward(self.mix, t, self.shared[t])
        self.split(x).baddbmm_(self.split(h), self.own)
        x = self.mix.activate(t)
        torch.bmm(self.split(x), self.gates, out=self.split(self.pre[t]))
        native.gates(self.pre[t], self.bias, h, out)

    def begin_backward(self) -> None:
        """Room for the gradients, and the weights turned round."""
        for layer in (self.in_h, self.in_z, self.in_a, self.mix):
            layer.begin_backward()
        self.own_turned = self.own.transpose(1, 2).contiguous()
        self.gates_turned = self.gates.transpose(1, 2).contiguous()
        self.dpre, self.dshared = torch.empty_like(self.pres), torch.empty_like(self.shared)

    def backward(self, t: int, grad: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Of the state before, [B,D], [B,Z], from that of h_t; the action's is kept for later."""
        dh, dx = torch.empty_like(h), torch.empty_like(h)
        native.gates_backward(grad, self.pre[t], self.bias, h, self.dpre[t], dh)
        torch.bmm(self.split(self.dpre[t]), self.gates_turned, out=self.split(dx))
        dx = self.mix.backward(t, dx)
        self.split(dh).baddbmm_(self.split(dx), self.own_turned)
        parts = torch.mm(dx, self.mix.weight, out=self.dshared[t]).chunk(3, -1)
        dh.addmm_(self.in_h.backward(t, parts[0]), self.in_h.weight)
        return dh, self.in_z.backward(t, parts[1]) @ self.in_z.weight

    def parameters(self, h: Tensor, z: Tensor, a: Tensor) -> Grads:
        """Gradients of all steps at once, from the states before and the actions, [T,B,.]."""
        c, split = self.cell, lambda x: self.split(x.flatten(0, 1))
        for t, grad in enumerate(self.dshared.chunk(3, -1)[2]):
            self.in_a.backward(t, grad)
        grads = {c.mix_out[0].weight: self.mix.total.sum(0)}
        grads |= self.in_h.parameters(h, c.in_h[0])
        grads |= self.in_z.parameters(z, c.in_z[0])
        grads |= self.in_a.parameters(a, c.in_a[0])
        dmix, dpre = split(self.mix.grads), split(self.dpre)
        shared = self.shared.flatten(0, 1).T @ self.mix.grads.flatten(0, 1)  # [3Y,D]
        shared = shared.unflatten(1, (c.blocks, -1)).transpose(0, 1)
        grads[c.mix.weight] = torch.cat([split(h).mT @ dmix, shared], 1)
        grads[c.gates.weight] = split(self.mix.outs).mT @ dpre
        grads[c.mix.bias], grads[c.gates.bias] = dmix.sum(1), dpre.sum(1)
        return grads


# --- the loops ------------------------------------------------------------------------------------


class _Observe(torch.autograd.Function):
    """`RSSM.observe` with its way back written out: states and posterior parameters [T,B,.]."""

    @staticmethod
    def forward(ctx, rssm: "FastRSSM", embed, action, first, h, z, *params):
        ctx.loop, ctx.params = Observation(rssm, embed, action, first), params
        out = ctx.loop.forward(h, z)
        return tuple(x.detach() for x in out)  # other objects than those kept: no cycles

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_h, grad_z, grad_logits):
        embed, grads = ctx.loop.backward(grad_h, grad_z, grad_logits)
        return None, embed, None, None, None, None, *(grads[p] for p in ctx.params)


class Observation:
    """One pass over a batch of sequences."""

    def __init__(self, rssm: "FastRSSM", embed: Tensor, action: Tensor, first: Tensor):
        self.rssm, self.embed = rssm, embed
        (steps, batch), deter = first.shape, rssm.deter
        self.keep = (~first).to(embed.dtype)[..., None]  # a new episode forgets
        self.action = action * self.keep
        self.action = self.action / self.action.abs().clamp(min=1)
        self.cell = Cell(rssm.cell, steps, batch)
        self.from_h, self.from_e = (
            rssm.post_net[0].weight.detach().split([deter, embed.shape[-1]], 1)
        )
        seen = torch.addmm(rssm.post_net[0].bias.detach(), embed.flatten(0, 1), self.from_e.T)
        self.post = Net(rssm.post_net, steps, batch, self.from_h, seen.view(steps, batch, -1))
        new = embed.new_empty
        self.h, self.h_before = new(steps, batch, deter), new(steps, batch, deter)
        self.z, self.z_before = (new(steps, batch, rssm.latent.size) for _ in range(2))

    def forward(self, h: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From the state before, [B,D] and [B,Z], to h, z and logits of all steps [T,B,.]."""
        latent, steps = self.rssm.latent, len(self.embed)
        noise = torch.rand(*self.embed.shape[:2], latent.groups)
        for t, a in enumerate(self.action):
            self.cell.in_a.forward(t, a)
        for t in range(steps):
            h_before = torch.mul(h, self.keep[t], out=self.h_before[t])
            z_before = torch.mul(z, self.keep[t], out=self.z_before[t])
            h, z = self.h[t], self.z[t]
            self.cell.forward(t, h_before, z_before, h)
            logits = self.post.forward(t, h)
            native.throw_dice(logits, latent, noise[t], z)
        return self.h, self.z, self.post.last.ys

    def backward(self, grad_h: Tensor, grad_z: Tensor, grad_logits: Tensor):
        """Through time, [T,B,.]; returns the gradient of `embed` and those of the parameters."""
        latent, logits, grad_logits = self.rssm.latent, self.post.last.y, grad_logits.clone()
        self.cell.begin_backward()
        self.post.begin_backward()
        keep = torch.cat([self.keep[1:], torch.zeros_like(self.keep[:1])])  # of the step after
        h_later, z_later = torch.zeros_like(grad_h[0]), torch.zeros_like(grad_z[0])
        for t in reversed(range(len(self.embed))):
            dh = torch.addcmul(grad_h[t], h_later, keep[t])
            dz = torch.addcmul(grad_z[t], z_later, keep[t])
            native.throw_dice_backward(dz, logits[t], latent, grad_logits[t])
            dseen = self.post.backward(t, grad_logits[t])
            dh = torch.addmm(dh, dseen, self.from_h)
            h_later, z_later = self.cell.backward(t, dh, self.h_before[t])
        return self.parameters(grad_logits)

    def parameters(self, grad_logits: Tensor) -> tuple[Tensor, Grads]:
        """Gradient of `embed` [T,B,E] and those of the parameters, from [T,B,G·K]."""
        first, layer = self.rssm.post_net[0], self.post.hidden[0]
        grads = self.cell.parameters(self.h_before, self.z_before, self.action)
        grads |= self.post.parameters(grad_logits)
        grads |= dense_grads(layer.grads, torch.cat([self.h, self.embed], -1), first)
        return layer.grads @ self.from_e, grads


class Joined(State):
    """States whose h and z lie side by side already."""

    joined: Tensor  # [...,D+Z]

    @property
    def feat(self) -> Tensor:
        """[h; z] without copying.  [...,D+Z]."""
        return self.joined


class FastRSSM(RSSM):
    """Observes and imagines in few calls; one step, and whatever differs from V3, is readable."""

    def suits(self, *tensors: Tensor) -> bool:
        """Whether the fast loops can run this model on these tensors (any shape)."""
        return (
            type(self.cell) is FastBlockGRU
            and all(normed(net) for net in (self.cell.in_h, self.cell.in_z, self.cell.in_a))
            and is_readout(self.post_net)
            and is_readout(self.prior_net)
            and isinstance(self.latent, Categorical)
            and native.usable(*tensors, *self.cell.parameters(), *self.post_net.parameters())
        )

    def observe(self, embed: Tensor, prev_action: Tensor, is_first: Tensor, s: State):
        """As `RSSM.observe`: [T,B,E], [T,B,A], [T,B], [B,.] -> states [T,B,.] and q."""
        self.check(embed, prev_action, is_first, s)
        watched = any(x.requires_grad for x in (prev_action, *s))  # their gradients it has not
        if watched or not self.suits(embed, prev_action, *s):
            return super().observe(embed, prev_action, is_first, s)
        params = [*self.cell.parameters(), *self.post_net.parameters()]
        h, z, logits = _Observe.apply(self, embed, prev_action, is_first, *s, *params)
        return State(h, z), self.latent(logits)

    def imagine(self, policy: Callable, s: State, horizon: int) -> tuple[State, Tensor]:
        """As `RSSM.imagine`: [N,.] -> states [H+1,N,.] and actions [H,N,A]."""
        self.check_start(s, horizon)
        if torch.is_grad_enabled() or not self.suits(*s):
            return super().imagine(policy, s, horizon)
        batch, deter = s.h.shape
        feat = s.h.new_empty(horizon + 1, batch, deter + self.latent.size)
        states = Joined(feat[..., :deter], feat[..., deter:])
        states.joined = feat
        states.h[0], states.z[0] = s
        cell, prior, actions = Cell(self.cell, 1, batch), Net(self.prior_net, 1, batch), []
        for t in range(horizon):
            actions.append(policy(feat[t]).sample())
            cell.in_a.forward(0, actions[-1] / actions[-1].abs().clamp(min=1))
            cell.forward(0, states.h[t], states.z[t], states.h[t + 1])
            logits = prior.forward(0, states.h[t + 1])
            noise = torch.rand(batch, self.latent.groups)
            native.throw_dice(logits, self.latent, noise, states.z[t + 1])
        return states, torch.stack(actions)


def normed(net: nn.Module) -> bool:
    """Whether `net` is one layer of Linear, RMSNorm, SiLU."""
    return [type(x) for x in net] == [nn.Linear, RMSNorm, nn.SiLU]
