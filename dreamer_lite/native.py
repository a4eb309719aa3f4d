"""kernels.c, compiled on first use by the machine's own C compiler (chapter 13, optional).

What surrounds the matrix products, such as norms and samples, is a dozen passes over memory in the
library and one pass here. Compiling takes a few seconds, once per machine. Without a compiler
`available()` is False and everything runs on the library alone, slower.
"""

import ctypes
import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

SOURCE = Path(__file__).with_name("kernels.c")  # what is compiled
# Of the C compiler
FLAGS = (
    *("-std=gnu11", "-O3", "-fPIC", "-shared", "-fopenmp", "-march=native"),
    *("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math"),
    "-mprefer-vector-width=512",
)
# Numbers in C, and what ctypes calls them
TYPES = {"int": ctypes.c_int, "long": ctypes.c_long, "float": ctypes.c_float}


def available() -> bool:
    """Whether the kernels can be used on this machine."""
    return library() is not None


def usable(*tensors: Tensor) -> bool:
    """Whether tensors (any shape) are what the kernels compute with: float32 on the CPU."""
    return (
        all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors)
        and not torch.is_autocast_enabled("cpu")
        and available()
    )


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None without a compiler, or if DREAMER_LITE_KERNELS=0 forbids them."""
    if os.environ.get("DREAMER_LITE_KERNELS") == "0":
        return None
    path = folder() / f"kernels-{fingerprint()}.so"
    try:
        if not path.exists():
            build(path)
        lib = ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError):
        return None
    for name, types in signatures(SOURCE.read_text(encoding="utf-8")).items():
        getattr(lib, name).argtypes = types
        getattr(lib, name).restype = None
    return lib


def folder() -> Path:
    """Where compiled kernels are kept, or the folder for temporary files if that is read-only."""
    base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "dreamer_lite"
    try:
        base.mkdir(parents=True, exist_ok=True)
    except OSError:
        pass
    return base if os.access(base, os.W_OK) else Path(tempfile.gettempdir())


def fingerprint() -> str:
    """Changes with the source, the flags and the processor: code for one may not run on another."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else [platform.processor()]
    processor = sorted({x for x in lines if x.startswith(("flags", "Features", "model name"))})
    parts = [SOURCE.read_text(encoding="utf-8"), *FLAGS, platform.platform(), *processor]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def build(path: Path) -> None:
    """Compiles the kernels to `path`, which appears at once and whole."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        raise FileNotFoundError("no C compiler")
    with tempfile.TemporaryDirectory(dir=path.parent) as work:
        made = Path(work) / "kernels.so"
        command = [*compiler.split(), *FLAGS, str(SOURCE), "-o", str(made), "-lm"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        os.replace(made, path)


def signatures(source: str) -> dict[str, list]:
    """{function: types of its arguments}, read from the definitions in C."""
    found = re.findall(r"^(?:NARROW )?void (\w+)\(([^)]*)\)", source, re.MULTILINE)
    return {name: [argument(a) for a in args.split(",")] for name, args in found}


def argument(text: str):
    """`const float *x` is a pointer, `long n` a number."""
    return ctypes.c_void_p if "*" in text else TYPES[text.split()[0]]


def run(name: str, *args) -> None:
    """Calls a kernel: tensors as pointers, numbers as they are; threads are put in front.

    The caller answers for shapes, strides and dtypes.
    """
    getattr(library(), name)(
        torch.get_num_threads(), *[a.data_ptr() if isinstance(a, Tensor) else a for a in args]
    )


# --- kernels on tensors ---------------------------------------------------------------------------


def rows(x: Tensor) -> Tensor:
    """x [N,C] with adjacent numbers in a row; rows may lie apart."""
    return x if x.stride(1) == 1 else x.contiguous()


def rms_silu(x: Tensor, scale: Tensor, eps: float, out: Tensor | None = None) -> Tensor:
    """silu(x / √(mean x² + ε) · scale).  x, out [N,C], rows may lie apart."""
    out = torch.empty_like(x) if out is None else out
    run("rms_silu", *x.shape, x, x.stride(0), scale, eps, out, out.stride(0))
    return out


def rms_silu_backward(grad: Tensor, x: Tensor, scale: Tensor, eps: float, out=None, total=None):
    """Gradients of x [N,C] and scale [C]; total [threads,C], if given, collects the latter."""
    parts = x.new_zeros(torch.get_num_threads(), x.shape[1]) if total is None else total
    out = torch.empty_like(x) if out is None else out
    strides = grad.stride(0), x.stride(0), out.stride(0)
    run("rms_silu_backward", *x.shape, grad, strides[0], x, strides[1], scale, eps, out,
        strides[2], parts)  # fmt: skip
    return out, None if total is not None else parts.sum(0)


def dice(x: Tensor, unimix: float) -> tuple[Tensor, Tensor]:
    """p = (1-u) softmax(x) + u/K and ln p.  x [...,K]."""
    p, logp = torch.empty_like(x), torch.empty_like(x)
    run("dice", x.numel() // x.shape[-1], x.shape[-1], x, unimix, p, logp)
    return p, logp


def dice_backward(dp: Tensor, dlogp: Tensor, x: Tensor, unimix: float) -> Tensor:
    """∂x [...,K]."""
    out = torch.empty_like(x)
    run("dice_backward", x.numel() // x.shape[-1], x.shape[-1], dp, dlogp, x, unimix, out)
    return out


def twohot_loss(x: Tensor, bins: Tensor, target: Tensor) -> Tensor:
    """x [N,K], bins [K], target [N] -> [N], in nats."""
    out = torch.empty_like(target)
    run("twohot_loss", *x.shape, x, bins, target, out)
    return out


def twohot_loss_backward(grad: Tensor, x: Tensor, bins: Tensor, target: Tensor) -> Tensor:
    """∂x [N,K] from ∂loss [N]."""
    out = torch.empty_like(x)
    run("twohot_loss_backward", *x.shape, grad, x, bins, target, out)
    return out


def twohot_mean(x: Tensor, bins: Tensor) -> Tensor:
    """x [N,K], bins [K] -> [N]."""
    out = x.new_empty(len(x))
    run("twohot_mean", *x.shape, x, bins, out)
    return out


def pixel_loss(x: Tensor, image: Tensor) -> Tensor:
    """x [N,m], image uint8 [N,m] -> [N], in squared units of [0, 1]."""
    out = x.new_empty(len(x))
    run("pixel_loss", *x.shape, x, image, out)
    return out


def pixel_loss_backward(grad: Tensor, x: Tensor, image: Tensor) -> Tensor:
    """∂x [N,m] from ∂loss [N]."""
    out = torch.empty_like(x)
    run("pixel_loss_backward", *x.shape, grad, x, image, out)
    return out


def fold(taps: Tensor, bias: Tensor, n: int, h: int, w: int) -> Tensor:
    """taps [n·h·w,4·4·o], bias [o] -> [n,2h,2w,o]."""
    out = taps.new_empty(n, 2 * h, 2 * w, len(bias))
    run("fold", n, h, w, len(bias), taps, bias, out)
    return out


def unfold(grad: Tensor, n: int, h: int, w: int) -> Tensor:
    """[n,2h,2w,o] -> taps [n·h·w,4·4·o]."""
    out = grad.new_empty(n * h * w, 16 * grad.shape[-1])
    run("unfold", n, h, w, grad.shape[-1], grad, out)
    return out


def gates(pre: Tensor, bias: Tensor, h: Tensor, out: Tensor) -> None:
    """pre [N,g·3·w], bias [g,3·w], h and out [N,g·w]."""
    blocks, width = len(bias), bias.shape[1] // 3
    run("gates", len(h), blocks, width, pre, bias, h, h.stride(0), out, out.stride(0))


def gates_backward(grad: Tensor, pre: Tensor, bias: Tensor, h: Tensor, dpre, dh) -> None:
    """Fills dpre [N,g·3·w] and dh [N,g·w] from grad [N,g·w]."""
    blocks, width = len(bias), bias.shape[1] // 3
    run("gates_backward", len(h), blocks, width, grad, grad.stride(0), pre, bias, h, h.stride(0),
        dpre, dh, dh.stride(0))  # fmt: skip


def throw_dice(x: Tensor, latent, uniform: Tensor, out: Tensor) -> None:
    """One-hot samples: logits x [N,G·K], uniform [N,G], out [N,G·K]."""
    run("throw_dice", len(x), latent.groups, latent.classes, x, latent.unimix, uniform, out,
        out.stride(0))  # fmt: skip


def throw_dice_backward(grad: Tensor, x: Tensor, latent, dx: Tensor) -> None:
    """Adds the straight-through gradient to dx.  grad, x, dx [N,G·K]."""
    run("throw_dice_backward", len(x), latent.groups, latent.classes, grad, grad.stride(0), x,
        latent.unimix, dx)  # fmt: skip


# --- convolutions ---------------------------------------------------------------------------------


def packed(weight: Tensor) -> tuple[int, Tensor]:
    """[k,k,i,o] as the kernels read it: o a multiple of 8, filled up, and 16 columns at a time."""
    columns = nn.functional.pad(weight.flatten(0, 2), (0, -weight.shape[-1] % 8))
    return columns.shape[1], torch.cat([part.flatten() for part in columns.split(16, 1)])


def convolve(name: str, sizes: tuple, x: Tensor, weight: Tensor, bias: Tensor, *out) -> None:
    """Runs a kernel on x by weight [k,k,i,o] and bias [o]."""
    size, columns = packed(weight)
    run(name, *sizes, size, x, columns, nn.functional.pad(bias, (0, size - len(bias))), *out)


def fill(numbers: int) -> int:
    """The next multiple of 16: as many numbers as sums are kept in."""
    return -numbers // 16 * -16


def turned(weight: Tensor) -> Tensor:
    """The weights of the way back: upside down, from outputs to inputs.  [k,k,i,o] -> [k,k,o,i]."""
    return weight.flip(0, 1).transpose(2, 3)


def conv_pool(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """5×5 convolution, largest of 2×2, and which.  x [n,h,w,i], weight [5,5,i,o] -> [n,h/2,w/2,o].

    h and w are even.
    """
    (n, h, w, i), o = x.shape, len(bias)
    out = x.new_empty(n, h // 2, w // 2, o)
    index = torch.empty(out.shape, dtype=torch.uint8)
    convolve("conv_pool", (n, h, w, i, o), x, weight, bias, out, index)
    return out, index


def conv_pool_backward(grad: Tensor, index: Tensor, x: Tensor, weight: Tensor, seen: bool):
    """Gradients of x (None unless seen), weight [5,5,i,o] and bias."""
    (n, h, w, i), o = x.shape, grad.shape[-1]
    size = fill(5 * i)
    total = x.new_zeros(torch.get_num_threads(), o, 5 * size + 1)
    run("conv_pool_weights", n, h, w, i, o, size, x, grad, index, total)
    out = torch.empty_like(x) if seen else None
    if seen:
        convolve(
            "conv_pool_inputs", (n, h, w, i, o), grad, turned(weight), x.new_zeros(i), index, out
        )
    total = total.sum(0)
    taps = total[:, :-1].unflatten(1, (5, size))[..., : 5 * i].unflatten(2, (5, i))  # [o,5,5,i]
    return out, taps.permute(1, 2, 3, 0), total[:, -1]


def conv_up(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """3×3 to four quarters.  x [n,h,w,i], weight [3,3,i,4·o], bias [4·o] -> [n,2h,2w,o]."""
    (n, h, w, i), o = x.shape, len(bias) // 4
    out = x.new_empty(n, 2 * h, 2 * w, o)
    convolve("conv_up", (n, h, w, i, o), x, weight, bias, out)
    return out


def conv_up_backward(grad: Tensor, x: Tensor, weight: Tensor):
    """Gradients of x, weight [3,3,i,4·o] and bias [4·o]; grad [n,2h,2w,o]."""
    (n, h, w, i), o = x.shape, grad.shape[-1]
    size = fill(4 * o)
    total = x.new_zeros(torch.get_num_threads(), 9 * i + 1, size)
    out = torch.empty_like(x)
    sizes, zeros = (n, h, w, i, o), x.new_zeros(i)
    convolve("conv_up_backward", sizes, x, turned(weight), zeros, grad, size, total, out)
    total = total.sum(0)[:, : 4 * o]
    return out, total[:-1].reshape(weight.shape), total[-1]
