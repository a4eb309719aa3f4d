"""Plants bugs in copies of the package and sees whether the tests notice: `make mutants`.

    python tools/mutants.py [--jobs 2] [word ...]      only bugs whose text has one of the words

tests/mutants.toml lists the bugs and the tests that must notice; only those run, each in a process
of its own. Prints a table of bugs and the tests that caught them, and writes it to
_build/mutants.md. Exit status 1 if a bug survived, or if a test failed or died without any.
"""

import argparse
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "tests" / "mutants.toml"
REPORT = ROOT / "_build" / "mutants.md"
SECONDS = 120  # of the processor; a bug that makes a test run for ever is noticed, too
ENDLESS = "(ran for ever)"


class Job(NamedTuple):
    """Tests to run on a copy of the package, with a bug or without one."""

    tests: list[str]
    mutant: dict | None = None


class Result(NamedTuple):
    """How it ended: the test that failed, if any, and why there is no answer, if there is none."""

    job: Job
    caught: str | None
    trouble: str | None
    seconds: float  # of the processor


def mutants() -> list[dict]:
    """All bugs of the list."""
    return tomllib.loads(LIST.read_text(encoding="utf-8"))["mutant"]


def patched(mutant: dict) -> str:
    """The file with the bug in it."""
    text = (ROOT / "dreamer_lite" / mutant["file"]).read_text(encoding="utf-8")
    if text.count(mutant["old"]) != 1:
        raise ValueError(f"{mutant['file']} must hold once what {mutant['bug']!r} replaces")
    return text.replace(mutant["old"], mutant["new"])


def healthy(chosen: list[dict]) -> list[Job]:
    """The same tests without a bug, file by file: else their failures would mean nothing."""
    files = {}
    for test in sorted({test for mutant in chosen for test in mutant["tests"]}):
        files.setdefault(test.partition("::")[0], []).append(test)
    return [Job(tests) for tests in files.values()]


# --- processes -----------------------------------------------------------------------------------


def run_all(jobs: list[Job], workers: int) -> Iterator[Result]:
    """Every job in a process of its own, `workers` at a time, in the order in which they end."""
    waiting, running = list(reversed(jobs)), {}
    with tempfile.TemporaryDirectory() as top:
        while waiting or running:
            while waiting and len(running) < workers:
                job = waiting.pop()
                folder = copied(job, Path(top).resolve() / str(len(waiting)))
                running[start(folder, job.tests)] = job, folder
            pid, status, used = os.wait4(-1, 0)
            job, folder = running.pop(pid)
            output = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")
            shutil.rmtree(folder)
            answer = verdict(os.waitstatus_to_exitcode(status), output)
            yield Result(job, *answer, used.ru_utime + used.ru_stime)


def copied(job: Job, folder: Path) -> Path:
    """A folder with a copy of the package, and the bug in it."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "dreamer_lite", folder / "dreamer_lite", ignore=ignore)
    if job.mutant:
        target = folder / "dreamer_lite" / job.mutant["file"]
        target.write_text(patched(job.mutant), encoding="utf-8")
    return folder


def start(folder: Path, tests: list[str]) -> int:
    """The number of a new process that runs pytest on the package in `folder`.

    Forked, because importing PyTorch anew for every bug would take longer than the tests.
    """
    sys.stdout.flush()
    child = os.fork()
    if not child:
        # The kernel sends SIGXCPU at the first limit. SIGKILL comes from elsewhere: no memory.
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 60))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with open(folder / "log.txt", "w", encoding="utf-8") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os._exit(ask_pytest(folder, tests))
    return child


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


def verdict(status: int, output: str) -> tuple[str | None, str | None]:
    """(the test that noticed, why there is no answer); (None, None) if all tests passed.

    A process that was killed, or that could not import the package, has noticed nothing.
    """
    if status == 0:
        return None, None
    if status == -signal.SIGXCPU:
        return ENDLESS, None
    found = re.search(r"^(?:FAILED|ERROR) \S*?(test_\w+\.py::\w+)", output, re.MULTILINE)
    if status == 1 and found:
        return found[1], None
    how = f"signal {-status}" if status < 0 else f"status {status}"
    return None, f"pytest ended with {how}\n{output[-2000:]}"


# --- the report ----------------------------------------------------------------------------------


def row(result: Result) -> str:
    """A line of the table."""
    mutant = result.job.mutant
    caught = "**no answer**" if result.trouble else result.caught or "**nothing**"
    cells = mutant["bug"], mutant.get("museum", "–"), mutant.get("trap", "–"), caught
    return f"| {' | '.join(map(str, cells))} | {result.seconds:.1f} |"


def table(results: list[Result], total: str) -> str:
    """The report: bugs in the order of the list, and bugs that are no patch."""
    titles = "| bug | museum | trap | caught by | processor s |\n|---|---|---|---|---|"
    order = {mutant["bug"]: i for i, mutant in enumerate(mutants())}
    planted = [r for r in results if r.job.mutant]
    rows = map(row, sorted(planted, key=lambda r: order[r.job.mutant["bug"]]))
    elsewhere = tomllib.loads(LIST.read_text(encoding="utf-8"))["elsewhere"]
    others = [f"| {x['bug']} | {x['museum']} | {', '.join(x['tests'])} |" for x in elsewhere]
    return "\n".join(
        [f"# Planted bugs, and the tests that caught them\n\n{total}\n", titles, *rows]
        + [
            "\n## No patch of a module\n",
            "| bug | museum | caught by |\n|---|---|---|",
            *others,
            "",
        ]
    )


def prepare() -> None:
    """Imports here what every child would import; one thread for each process."""
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    import gymnasium  # noqa: F401
    import pytest  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch.distributed.tensor  # noqa: F401
    import tyro  # noqa: F401

    torch.set_num_threads(1)


def main(args: list[str]) -> int:
    """Plants the bugs; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("words", nargs="*", help="only bugs whose text contains one of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at a time")
    options = parser.parse_args(args)
    words, started = options.words, time.monotonic()
    chosen = [m for m in mutants() if not words or any(w in m["bug"] for w in words)]
    prepare()
    results, bad = [], 0
    for result in run_all(healthy(chosen) + [Job(m["tests"], m) for m in chosen], options.jobs):
        results.append(result)
        if result.job.mutant:
            print(row(result), flush=True)
        bad += bool(result.trouble) or bool(result.caught) != bool(result.job.mutant)
        if not result.job.mutant and result.caught:
            print(f"{result.caught} fails without any bug", file=sys.stderr)
        if result.trouble:
            print(result.trouble, file=sys.stderr)
    caught = sum(bool(r.caught) for r in results if r.job.mutant)
    minutes, seconds = (time.monotonic() - started) / 60, sum(r.seconds for r in results)
    total = f"{caught} of {len(chosen)} bugs caught in {minutes:.1f} minutes "
    total += f"({seconds / 60:.1f} minutes of the processor, {options.jobs} processes at a time)."
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(table(results, total), encoding="utf-8")
    print(f"\n{total} Report: {REPORT.relative_to(ROOT)}")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
