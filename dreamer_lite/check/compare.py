"""Comparing results: numbers, tensors, and tuples, lists and dictionaries of them."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor


def copied(args: tuple) -> tuple:
    """Arguments that a function may spoil."""
    return tuple(arg.clone() if isinstance(arg, Tensor) else copy.deepcopy(arg) for arg in args)


def gradients(f: Callable, args: tuple) -> dict[str, Any]:
    """An outcome to compare: the value and the gradient of its sum for each float argument.

    A function that stops the gradient in the wrong place has the right value, so compare both.
    """
    leaves = [a.requires_grad_() for a in args if isinstance(a, Tensor) and a.is_floating_point()]
    value = f(*args)
    parts = value if isinstance(value, tuple | list) else (value,)
    total = sum(x.sum() for x in parts if isinstance(x, Tensor))
    found = [None] * len(leaves)
    if isinstance(total, Tensor) and total.requires_grad:
        found = torch.autograd.grad(total, leaves, allow_unused=True)
    for leaf in leaves:
        leaf.requires_grad_(False)
    zeros = map(torch.zeros_like, leaves)
    filled = [z if g is None else g for g, z in zip(found, zeros, strict=True)]
    return {"value": detached(value)} | {f"gradient {i}": g for i, g in enumerate(filled, 1)}


def detached(value: Any) -> Any:
    """The value without its history."""
    if isinstance(value, tuple | list):
        return tuple(map(detached, value))
    return value.detach() if isinstance(value, Tensor) else value


def difference(expected: Any, got: Any, tolerance: float) -> str:
    """In what two results differ, in words; "" if they agree."""
    if isinstance(expected, dict):
        if not isinstance(got, dict) or got.keys() != expected.keys():
            return f"expected the keys {list(expected)}, got {kind(got)}"
        pairs = [(f"{k}: ", expected[k], got[k]) for k in expected]
    elif isinstance(expected, tuple | list):
        parts = list(got) if isinstance(got, Tensor | np.ndarray) and got.ndim else got
        if not isinstance(parts, tuple | list) or len(parts) != len(expected):
            return f"expected {len(expected)} results, got {kind(got)}"
        both = zip(expected, parts, strict=True)
        pairs = [(f"entry {i}: ", *pair) for i, pair in enumerate(both)]
    else:
        return leaf_difference(expected, got, tolerance)
    found = ((where, difference(e, g, tolerance)) for where, e, g in pairs)
    return next((where + words for where, words in found if words), "")


def kind(thing: Any) -> str:
    """A value's type and size in a few words."""
    if isinstance(thing, Tensor | np.ndarray):
        return f"shape {list(thing.shape)}"
    if isinstance(thing, tuple | list | dict):
        return f"{type(thing).__name__} of {len(thing)}"
    return "None (is the return statement missing?)" if thing is None else repr(thing)


def leaf_difference(expected: Any, got: Any, tolerance: float) -> str:
    """The same for single numbers, words and arrays."""
    if not is_number(expected):
        return "" if type(expected) is type(got) and expected == got else f"got {kind(got)}"
    if isinstance(expected, Tensor | np.ndarray) and isinstance(got, tuple | list):
        got = joined(got)
    if not is_number(got):
        return f"expected {kind(expected)}, got {kind(got)}"
    want, have = as_array(expected), as_array(got)
    if want.shape != have.shape:
        return f"expected shape {list(want.shape)}, got {list(have.shape)}"
    wrong = ~np.isclose(have, want, rtol=tolerance, atol=tolerance, equal_nan=True)
    if not wrong.any():
        return ""
    place = tuple(int(i) for i in np.argwhere(wrong)[0])
    where = f"at {list(place)} " if place else ""
    said = [f"{x:.6g}" for x in (want[place], have[place])]
    if as_array(expected, None).dtype == bool:
        said = [{"0": "False", "1": "True"}.get(x, x) for x in said]
    return f"{where}expected {said[0]}, got {said[1]}"


def joined(parts: tuple | list) -> Any:
    """A list of numbers, of arrays or of such lists as one array; as it is if that cannot be."""
    inner = [joined(x) if isinstance(x, tuple | list) else x for x in parts]
    if not inner or not all(map(is_number, inner)):
        return parts
    arrays = [as_array(x) for x in inner]
    return np.stack(arrays) if len({x.shape for x in arrays}) == 1 else parts


def is_number(thing: Any) -> bool:
    """A number or an array of numbers (truth values included)."""
    return isinstance(thing, Tensor | np.ndarray | np.generic | int | float)


def as_array(thing: Any, dtype: Any = np.float64) -> np.ndarray:
    """Any number as float64; dtype None keeps its own."""
    thing = thing.detach().cpu() if isinstance(thing, Tensor) else thing
    return np.asarray(thing, dtype=dtype)


def relation(expected: Any, got: Any, tolerance: float) -> str:
    """A simple relation between a wrong result and the right one, which often tells the mistake."""
    if not (is_number(expected) and is_number(got)):
        return ""
    want, have = as_array(expected), as_array(got)
    if want.shape != have.shape:
        swapped = want.ndim == 2 and want.shape == have.shape[::-1]
        return "It is the transpose of that shape: swap the two axes." if swapped else ""
    if want.ndim and len(want) > 1 and np.allclose(have[::-1], want, tolerance, tolerance):
        return "The numbers are right, but their order along the first axis is reversed."
    if np.allclose(-have, want, tolerance, tolerance):
        return "The numbers are right, but the sign is not."
    ratios = have[np.abs(want) > tolerance] / want[np.abs(want) > tolerance]
    if len(ratios) > 1 and np.allclose(have, ratios[0] * want, tolerance, tolerance):
        return f"All results are {ratios[0]:.4g} times what they should be."
    return ""
