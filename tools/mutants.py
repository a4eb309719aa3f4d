"""Plants bugs in a copy of the package and sees whether the tests notice: `make mutants`.

    python tools/mutants.py [word ...]      only bugs whose text contains one of the words

tests/mutants.toml lists the bugs. Prints a table of bugs and the tests that caught them; exit
status 1 if one survived.
"""

import contextlib
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "tests" / "mutants.toml"
SECONDS = 120  # of the processor; a bug that makes a test run for ever is noticed, too


def mutants() -> list[dict]:
    """All bugs of the list."""
    return tomllib.loads(LIST.read_text(encoding="utf-8"))["mutant"]


def patched(mutant: dict) -> str:
    """The file with the bug in it."""
    text = (ROOT / "dreamer_lite" / mutant["file"]).read_text(encoding="utf-8")
    if text.count(mutant["old"]) != 1:
        raise ValueError(f"{mutant['file']} must hold once what {mutant['bug']!r} replaces")
    return text.replace(mutant["old"], mutant["new"])


def run(folder: Path, tests: list[str]) -> tuple[int, str]:
    """Exit status and output of pytest on the package in `folder`, in a child process.

    Forked, because importing PyTorch anew for every bug would take longer than the tests.
    """
    log = folder / "log.txt"
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        with open(log, "w", encoding="utf-8") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os._exit(ask_pytest(folder, tests))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status, log.read_text(encoding="utf-8", errors="replace")


def ask_pytest(folder: Path, tests: list[str]) -> int:
    """Runs in the child."""
    import pytest

    os.chdir(folder)
    sys.path.insert(0, str(folder))
    import dreamer_lite

    if Path(dreamer_lite.__file__).parent != folder / "dreamer_lite":
        return 90  # the package that is installed, not the copy
    paths = [str(ROOT / "tests" / test) for test in tests]
    options = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", f"--rootdir={ROOT}"]
    return int(pytest.main([*options, "-c", str(ROOT / "pyproject.toml"), *paths]))


@contextlib.contextmanager
def copied():
    """A folder with a copy of the package."""
    with tempfile.TemporaryDirectory() as folder:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "dreamer_lite", Path(folder) / "dreamer_lite", ignore=ignore)
        yield Path(folder).resolve()


def first_failure(output: str) -> str:
    """The test that noticed."""
    found = re.search(r"^(?:FAILED|ERROR) \S*?(test_\w+\.py::\w+)", output, re.MULTILINE)
    return found[1] if found else "(ran for ever)"


def plant(mutant: dict) -> str | None:
    """The test that caught the bug; None if nothing did."""
    with copied() as folder:
        text = patched(mutant)
        (folder / "dreamer_lite" / mutant["file"]).write_text(text, encoding="utf-8")
        status, output = run(folder, mutant["tests"])
    if status not in (0, 1, -signal.SIGXCPU, -signal.SIGKILL):
        raise RuntimeError(f"{mutant['bug']}: pytest ended with {status}\n{output[-2000:]}")
    return first_failure(output) if status else None


def check_healthy(chosen: list[dict]) -> None:
    """The tests must pass without a bug, or their failures would mean nothing."""
    tests = sorted({test for mutant in chosen for test in mutant["tests"]})
    with copied() as folder:
        status, output = run(folder, tests)
    if status:
        raise RuntimeError(f"the tests fail without any bug\n{output[-4000:]}")


def main(words: list[str]) -> int:
    """Plants the bugs one by one; returns the exit status."""
    import gymnasium  # noqa: F401  here and not in every child
    import scipy.stats  # noqa: F401
    import torch  # noqa: F401
    import tyro  # noqa: F401

    chosen = [m for m in mutants() if not words or any(w in m["bug"] for w in words)]
    started = time.monotonic()
    check_healthy(chosen)
    print("| bug | trap | caught by |\n|---|---|---|")
    survivors = 0
    for mutant in chosen:
        caught = plant(mutant)
        survivors += caught is None
        print(
            f"| {mutant['bug']} | {mutant.get('trap', '–')} | {caught or '**nothing**'} |",
            flush=True,
        )
    minutes = (time.monotonic() - started) / 60
    print(f"\n{len(chosen) - survivors} of {len(chosen)} bugs caught in {minutes:.1f} minutes.")
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
