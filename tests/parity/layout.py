"""From the authors' layout to ours: where an official array lives in a module of this package."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from dreamer_lite.networks import BlockLinear, RMSNorm


def swap(x: Tensor) -> Tensor:
    """[B,T,...] <-> [T,B,...]."""
    return x.transpose(0, 1)


def leaf(x: Tensor) -> Tensor:
    """A copy that gradients are asked for."""
    return x.clone().requires_grad_()


class View(NamedTuple):
    """Where an official array lives: of(parameter) or of(its gradient) has the official layout."""

    parameter: nn.Parameter
    of: Callable[[Tensor], Tensor]


def kernel_views(layer: nn.Module, name: str, weights: dict) -> dict[str, View]:
    """Official [in,out], [g,in/g,out/g], [k,k,in,out] or transposed [k,k,out,in] in our weight."""
    path, weight = f"{name}/kernel", layer.weight
    if isinstance(layer, BlockLinear):
        return {path: View(weight, lambda w: w)}
    if isinstance(
        layer, nn.Conv2d | nn.ConvTranspose2d
    ):  # a smaller kernel is a larger one with a border of zeros
        size = weights[path].shape[0]
        middle = slice((weight.shape[-1] - size) // 2, (weight.shape[-1] + size) // 2)
        return {path: View(weight, lambda w: w.permute(2, 3, 1, 0)[middle, middle])}
    return {path: View(weight, lambda w: w.T)}


def views(module: nn.Module, names: list, weights: dict) -> dict[str, View]:
    """Our layers in order of construction, and the official names of the same layers.

    A pair of names means that the authors have two layers where we have one with all outputs.
    """
    kinds = nn.Linear | nn.Conv2d | nn.ConvTranspose2d | BlockLinear | RMSNorm | nn.LayerNorm
    layers = [m for m in module.modules() if isinstance(m, kinds)]
    found = {}
    for layer, name in zip(layers, names, strict=True):
        if isinstance(name, tuple):
            for half, part in zip(name, (0, 1), strict=True):
                found[f"{half}/kernel"] = View(layer.weight, lambda w, i=part: w.chunk(2)[i].T)
                found[f"{half}/bias"] = View(layer.bias, lambda w, i=part: w.chunk(2)[i])
        elif isinstance(layer, RMSNorm | nn.LayerNorm):
            keras = f"{name}/gamma" in weights
            found[f"{name}/{'gamma' if keras else 'scale'}"] = View(layer.weight, lambda w: w)
            if isinstance(layer, nn.LayerNorm):
                found[f"{name}/{'beta' if keras else 'shift'}"] = View(layer.bias, lambda w: w)
        else:
            found |= kernel_views(layer, name, weights)
            found[f"{name}/bias"] = View(layer.bias, lambda w: w.flatten())
    return found


def fill(found: dict[str, View], weights: dict[str, Tensor]) -> None:
    """Copies every official array; all must have a place."""
    assert found.keys() == weights.keys(), found.keys() ^ weights.keys()
    for view in found.values():
        nn.init.zeros_(view.parameter)
    for name, view in found.items():
        view.of(view.parameter.data).copy_(weights[name])


def numbered(count: int, *names: str) -> list[str]:
    """numbered(2, "a{}", "b{}") = [a0, b0, a1, b1]."""
    return [name.format(i) for i in range(count) for name in names]
