"""What the public border refuses, always in one form: name, expected, got, remedy.

Inside the package tensors are trusted; these checks stand where a reader hands something in.
"""

from dataclasses import fields
from numbers import Real
from typing import Any

import numpy as np
from torch import Tensor


def shown(x: Any) -> str:
    """A tensor or array as dtype and shape, "float32 [6, 3]"; else its type and value."""
    if isinstance(x, Tensor | np.ndarray):
        return f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)}"
    return f"{type(x).__name__} {x!r}"[:100]


def require(ok: bool, name: str, expected: str, got: Any, remedy: str) -> None:
    """Raises ValueError unless ok."""
    if not ok:
        got = got if isinstance(got, str) else shown(got)
        raise ValueError(f"{name} must be {expected}, got {got}; {remedy}")


def real(**tensors: Tensor) -> None:
    """Refuses what is no float tensor (any shape)."""
    for name, x in tensors.items():
        kind = isinstance(x, Tensor) and x.is_floating_point()
        require(kind, name, "a float tensor", x, "give float32 numbers")


def floats(remedy: str, /, **tensors: Tensor) -> None:
    """Refuses what is no float tensor (any shape), is empty, or (on the CPU) holds a NaN.

    On a GPU looking at the numbers would make the processor wait for them.
    """
    for name, x in tensors.items():
        require(isinstance(x, Tensor) and x.is_floating_point(), name, "a float tensor", x, remedy)
        require(x.numel() > 0, name, "not empty", x, remedy)
        if x.device.type == "cpu":
            require(not x.isnan().any(), name, "without NaN", f"NaN in {shown(x)}", remedy)


def pixels(remedy: str, /, axes: str = "[..., H, W, C]", **images: Any) -> None:
    """Refuses what is not uint8 with as many axes as are named: tensors and arrays."""
    least = axes.count(",") + 1 - ("..." in axes)
    for name, x in images.items():
        kind = str(getattr(x, "dtype", "")).removeprefix("torch.")
        axes_fit = kind and (x.ndim >= least if "..." in axes else x.ndim == least)
        require(kind == "uint8" and axes_fit, name, f"uint8 {axes}", x, remedy)


def shaped(x: Tensor, name: str, shape: tuple[int, ...], remedy: str) -> None:
    """Refuses another shape; () is that of a number, []."""
    require(x.shape == shape, name, str(list(shape)), x, remedy)


def width(x: Tensor, name: str, size: int, remedy: str) -> None:
    """Refuses another size of the last dimension: x must be [...,size]."""
    require(x.dim() > 0 and x.shape[-1] == size, name, f"[..., {size}]", x, remedy)


def between(low: float, high: float, remedy: str, /, **numbers: float) -> None:
    """Refuses numbers outside of [low, high], and what is not a number."""
    for name, x in numbers.items():
        expected = f"at least {low:g}" if high == float("inf") else f"in [{low:g}, {high:g}]"
        ok = isinstance(x, Real) and low <= x <= high  # NaN compares false
        require(ok, name, expected, f"{x!r}", remedy)


def refuse_unread(settings: Any) -> None:
    """Refuses a value that nothing will read: `settings.unread()` gives {field: why}."""
    default = {f.name: f.default for f in fields(settings)}
    for name, why in settings.unread().items():
        value, kept = getattr(settings, name), default[name]
        remedy = f"nothing reads it because {why}; leave it alone or change that"
        require(value == kept, name, f"left at {kept!r}", f"{value!r}", remedy)
