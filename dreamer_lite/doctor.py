"""Can this machine run the book? One line per question, to read and to paste into a bug report.

python -m dreamer_lite.doctor          exit status 0 if every line says OK, 1 otherwise
"""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable

GIB = 2**30  # bytes


class Trouble(Exception):
    """What is wrong, and what to do about it."""


def python() -> str:
    """The interpreter and the system."""
    if not (3, 11) <= sys.version_info[:2] <= (3, 14):
        raise Trouble(f"{platform.python_version()}; install Python 3.11 to 3.14")
    return f"{platform.python_version()} on {platform.system()}, {platform.machine()}"


def package() -> str:
    """This package, as installed."""
    return importlib.metadata.version("dreamer-lite")


def torch() -> str:
    """PyTorch, which build it is, and that it can compute a gradient."""
    import torch

    x = torch.ones(3, requires_grad=True)
    (x**2).sum().backward()
    if not torch.equal(x.grad, 2 * torch.ones(3)):
        raise Trouble(f"{torch.__version__} computes wrong gradients; reinstall it")
    return f"{torch.__version__}, {build(torch.version.cuda, torch.cuda.is_available())}"


def build(cuda: str | None, usable: bool) -> str:
    """CPU or CUDA build; a CUDA build without a GPU works, but is some GB larger than needed."""
    if cuda is None:
        return "CPU build"
    return f"CUDA {cuda} build" + ("" if usable else " without a usable GPU (runs on the CPU)")


def device() -> str:
    """Where training would run, tried with one matrix product."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    x = torch.eye(64, device="cuda")
    if not torch.equal((x @ x).cpu(), torch.eye(64)):
        raise Trouble("the GPU computes wrong products; check its driver")
    gpu = torch.cuda.get_device_properties(0)
    return f"cuda, {torch.cuda.device_count()} x {gpu.name} with {gpu.total_memory / GIB:.0f} GiB"


def threads() -> str:
    """Threads that PyTorch uses, of the processor cores there are."""
    import torch

    asked = os.environ.get("OMP_NUM_THREADS", "not set")
    return f"{torch.get_num_threads()} of {os.cpu_count()} cores (OMP_NUM_THREADS {asked})"


def kernels() -> str:
    """Optional: the functions in C that make training on the processor faster."""
    from dreamer_lite import native

    if native.available():
        return "compiled"
    return "none, training is slower without; they need a C compiler (gcc, clang)"


def memory(least: float = 2.0) -> str:
    """Free main memory; the chapters need about 2 GiB."""
    import psutil

    info = psutil.virtual_memory()
    return enough("memory", info.available, info.total, least, "close other programs")


def disk(least: float = 1.0) -> str:
    """Free space in this folder, where runs are stored."""
    usage = shutil.disk_usage(".")
    return enough("disk", usage.free, usage.total, least, "make room or run elsewhere")


def enough(what: str, free: int, total: int, least: float, remedy: str) -> str:
    """`free` and `total` in bytes, `least` in GiB."""
    numbers = f"{free / GIB:.1f} GiB free of {total / GIB:.1f}"
    if free < least * GIB:
        raise Trouble(f"{numbers}, {what} should be {least:g} GiB; {remedy}")
    return numbers


def gymnasium() -> str:
    """Environments: one step of a classic."""
    import gymnasium

    env = gymnasium.make("CartPole-v1")
    env.reset(seed=0)
    env.step(env.action_space.sample())
    return gymnasium.__version__


def atari() -> str:
    """The Atari emulator with its games: one frame of Boxing."""
    try:
        import ale_py
    except ImportError:
        raise Trouble(missing("ale-py", "atari")) from None
    import gymnasium

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    gymnasium.register_envs(ale_py)
    env = gymnasium.make("ALE/Boxing-v5")
    env.reset(seed=0)
    frame = env.step(0)[0]
    if frame.shape != (210, 160, 3) or not frame.any():
        raise Trouble(f"Boxing shows a frame {frame.shape} without a picture; reinstall ale-py")
    return f"ale-py {ale_py.__version__}, {len(ale_py.roms.get_all_rom_ids())} games, Boxing runs"


def dm_control() -> str:
    """Optional: the bodies of dm_control, one step and one picture of a pole on a cart."""
    if importlib.util.find_spec("dm_control") is None:
        return "not installed, only dmc/... needs it: pip install -e '.[dmc]'"
    from dreamer_lite.control import Control

    env = Control("cartpole-swingup", render_mode="rgb_array")
    env.reset(seed=0)
    env.step(env.action_space.sample())
    frame = env.render()
    env.close()
    if frame.shape != (64, 64, 3) or not frame.any():
        raise Trouble(f"cartpole shows a frame {frame.shape} without a picture; try MUJOCO_GL=egl")
    found = versions("dmc", "dm_control", "mujoco")
    return f"{found}, drawn by {os.environ.get('MUJOCO_GL', 'its default')}"


def widgets() -> str:
    """What the sliders in notebooks need."""
    return versions("book", "ipywidgets", "jupyterlab", "matplotlib")


def versions(extra: str, *names: str) -> str:
    """The versions of packages that the extra brings, without importing them."""
    found = []
    for name in names:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            raise Trouble(missing(name, extra)) from None
    return ", ".join(found)


def missing(name: str, extra: str) -> str:
    """The remedy for a package that is not there."""
    return f"{name} is not installed: pip install -e '.[{extra}]'"


# The questions, in their order
CHECKS = (
    python,
    package,
    torch,
    device,
    threads,
    kernels,
    memory,
    disk,
    gymnasium,
    atari,
    dm_control,
    widgets,
)


def line(check: Callable[[], str]) -> tuple[bool, str]:
    """Answer one question; whatever goes wrong is an answer too."""
    try:
        return True, f"OK    {check.__name__:10} {check()}"
    except Trouble as trouble:
        return False, f"FAIL  {check.__name__:10} {trouble}"
    except Exception as error:  # a doctor does not die of the patient's disease
        return False, f"FAIL  {check.__name__:10} {type(error).__name__}: {error}"


def main() -> int:
    """Print all lines; 0 if all is well."""
    healthy = True
    for check in CHECKS:
        ok, text = line(check)
        print(text, flush=True)
        healthy &= ok
    return 0 if healthy else 1


if __name__ == "__main__":
    sys.exit(main())
