"""What the public border refuses by a ValueError of one form: name, expected, got, remedy.

Inside the package tensors are trusted; these checks stand where a reader hands something in. A
shape is a tuple: a letter stands for any size, a first `...` for any axes, so that (..., "H", 3) is
[..., H, 3].
"""

from dataclasses import fields
from numbers import Integral, Real
from typing import Any

import numpy as np
from torch import Tensor

Shape = tuple  # of whole numbers, letters and perhaps a first `...`
PIXELS = (..., "H", "W", "C")  # the shape of images


def shown(x: Any) -> str:
    """A tensor or array as dtype and shape, "float32 [6, 3]"; else its type and value."""
    if isinstance(x, Tensor | np.ndarray):
        return f"{kind(x)} {list(x.shape)}"
    return f"{type(x).__name__} {x!r}"[:100]


def written(shape: Shape) -> str:
    """A shape in words: "[..., H, 3]"."""
    return "[" + ", ".join("..." if n is ... else str(n) for n in shape) + "]"


def require(ok: bool, name: str, expected: str, got: Any, remedy: str) -> None:
    """Raises ValueError unless ok."""
    if not ok:
        got = got if isinstance(got, str) else shown(got)
        raise ValueError(f"{name} must be {expected}, got {got}; {remedy}")


# --- tensors and arrays --------------------------------------------------------------------------


def fits(x: Any, shape: Shape) -> bool:
    """Whether a tensor or array has the shape."""
    got = tuple(x.shape)
    if shape and shape[0] is ...:
        shape = shape[1:]
        got = got[max(len(got) - len(shape), 0) :]
    return len(got) == len(shape) and all(
        a == b or isinstance(b, str) for a, b in zip(got, shape, strict=True)
    )


def has_nan(x: Tensor) -> bool:
    """Whether there is a NaN in x (any shape); not looked for on a GPU, which would have to wait.

    A sum with a NaN in it is NaN. So is ∞ - ∞: a second look decides.
    """
    if not x.is_cpu:
        return False
    total = (x.detach() if x.requires_grad else x).sum().item()
    return total != total and bool(x.isnan().any())


def real(remedy: str, shape: Shape | None = None, /, **tensors: Tensor) -> None:
    """Refuses what is no float tensor (any shape, or this one); looks at no number: for loops."""
    for name, x in tensors.items():
        if not (isinstance(x, Tensor) and x.is_floating_point()):
            require(False, name, "a float tensor", x, remedy)
        if shape is not None and x.shape != shape and not fits(x, shape):
            require(False, name, written(shape), x, remedy)


def floats(remedy: str, shape: Shape | None = None, /, **tensors: Tensor) -> None:
    """Refuses what is no float tensor, is empty, or (on the CPU) holds a NaN.

    Any shape, or this one. On a GPU looking at the numbers would make the processor wait for them.
    """
    real(remedy, shape, **tensors)
    for name, x in tensors.items():
        if not x.numel():
            require(False, name, "not empty", x, remedy)
        if has_nan(x):
            require(False, name, "without NaN", f"NaN in {shown(x)}", remedy)


def rows(remedy: str, batch: int, /, **parts: tuple[Tensor, int | str]) -> None:
    """Refuses what is no float tensor [batch, width], for name=(tensor, width); for inner loops."""
    for name, (x, width) in parts.items():
        if x.shape != (batch, width) or not x.is_floating_point():
            real(remedy, (batch, width), **{name: x})  # a letter as width fits


def alike(remedy: str, like: Tensor, /, **tensors: Tensor) -> None:
    """Refuses what is no float tensor of the shape (any shape) of another; for inner loops."""
    for name, x in tensors.items():
        if x.shape != like.shape or not x.is_floating_point():
            real(remedy, tuple(like.shape), **{name: x})


def flags(remedy: str, shape: Shape, /, **tensors: Any) -> None:
    """Refuses what is not bool, of this shape (any shape), or is empty: tensors and arrays."""
    for name, x in tensors.items():
        if kind(x) != "bool" or x.shape != shape and not fits(x, shape):
            require(False, name, f"bool {written(shape)}", x, remedy)
        if 0 in x.shape:
            require(False, name, "not empty", x, remedy)


def pixels(remedy: str, shape: Shape = PIXELS, /, **images: Any) -> None:
    """Refuses what is not uint8, of this shape, or is empty: tensors and arrays."""
    for name, x in images.items():
        if kind(x) != "uint8" or not fits(x, shape):
            require(False, name, f"uint8 {written(shape)}", x, remedy)
        if 0 in x.shape:
            require(False, name, "not empty", x, remedy)


def kind(x: Any) -> str:
    """The dtype of a tensor or array: "uint8"; "" if it is neither."""
    return str(getattr(x, "dtype", "")).removeprefix("torch.")


def arrays(remedy: str, shape: Shape | None = None, /, **given: Any) -> None:
    """Refuses an array of other things than numbers, of another shape, empty, or with a NaN."""
    for name, x in given.items():
        numeric = isinstance(x, np.ndarray | np.generic) and np.issubdtype(x.dtype, np.number)
        require(numeric, name, "an array of numbers", x, remedy)
        require(shape is None or fits(x, shape), name, written(shape or ()), x, remedy)
        require(x.size > 0, name, "not empty", x, remedy)
        require(not np.isnan(x).any(), name, "without NaN", f"NaN in {shown(x)}", remedy)


def shaped(x: Any, name: str, shape: Shape, remedy: str) -> None:
    """Refuses another shape; () is that of a number, []."""
    require(fits(x, shape), name, written(shape), x, remedy)


# --- single numbers and settings -----------------------------------------------------------------


def within(x: Any, low: float, high: float) -> bool:
    """Whether x is a number in [low, high], or a float tensor of such (any shape)."""
    if not isinstance(x, Tensor):
        return isinstance(x, Real) and low <= x <= high  # NaN compares false
    if not x.is_floating_point() or not x.numel() or not x.is_cpu:  # a GPU would have to wait
        return x.is_floating_point() and x.numel() > 0
    least, most = (end.item() for end in x.detach().aminmax())
    return low <= least and most <= high


def between(low: float, high: float, remedy: str, /, **numbers: float | Tensor) -> None:
    """Refuses numbers outside of [low, high], what is not a number, and tensors (any shape) alike.

    Tensors are looked at on the CPU only.
    """
    for name, x in numbers.items():
        if not within(x, low, high):
            got = shown(x) if isinstance(x, Tensor) and x.dim() else f"{x!r}"
            require(False, name, spoken(low, high), got, remedy)


def spoken(low: float, high: float) -> str:
    """A range in words: "in [0, 1]", "at least 0"."""
    texts = "a number", f"at most {high:g}", f"at least {low:g}", f"in [{low:g}, {high:g}]"
    return texts[2 * (low > -float("inf")) + (high < float("inf"))]


def whole(least: int, remedy: str, /, **numbers: int) -> None:
    """Refuses what is not a whole number of at least `least`."""
    for name, x in numbers.items():
        integer = isinstance(x, Integral) and not isinstance(x, bool)
        require(integer, name, "a whole number", f"{x!r}", remedy)
        between(least, float("inf"), remedy, **{name: x})


def instances(kinds: type | tuple[type, ...], remedy: str, /, **things: Any) -> None:
    """Refuses objects of other classes."""
    for name, x in things.items():
        wanted = " or ".join(k.__name__ for k in (kinds if isinstance(kinds, tuple) else (kinds,)))
        require(isinstance(x, kinds), name, f"of type {wanted}", shown(x), remedy)


def refuse_unread(settings: Any) -> None:
    """Refuses a value that nothing will read: `settings.unread()` gives {field: why}."""
    default = {f.name: f.default for f in fields(settings)}
    for name, why in settings.unread().items():
        value, kept = getattr(settings, name), default[name]
        remedy = f"nothing reads it because {why}; leave it alone or change that"
        require(value == kept, name, f"left at {kept!r}", f"{value!r}", remedy)
