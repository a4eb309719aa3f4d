"""The list of planted bugs fits the code as it is; `make mutants` plants them."""

import ast
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import mutants
import pytest
from test_traps import TRAPS, functions

LIST = tomllib.loads(mutants.LIST.read_text(encoding="utf-8"))
BUGS = {mutant["bug"]: mutant for mutant in LIST["mutant"]}


def test_no_bug_is_listed_twice():
    assert len(BUGS) == len(LIST["mutant"])


def exists(test: str) -> bool:
    path, name = test.split("::")
    return name in functions(Path(path).stem.removeprefix("test_"))


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_can_be_planted_and_its_tests_exist(bug):
    mutant = BUGS[bug]
    text = mutants.patched(mutant)  # the old text occurs exactly once
    ast.parse(text)
    assert mutant["old"] != mutant["new"]
    assert mutant["tests"] and all(map(exists, mutant["tests"]))


def test_every_bug_of_the_museum_is_planted_or_caught_otherwise():
    planted = {m["museum"] for m in LIST["mutant"] if "museum" in m}
    otherwise = {m["museum"] for m in LIST["elsewhere"]}
    assert planted | otherwise == set(range(1, 19)) and not planted & otherwise
    assert all(x["tests"] and all(map(exists, x["tests"])) for x in LIST["elsewhere"])


def test_every_trap_that_is_no_number_or_file_is_planted():
    planted = {m.get("trap") for m in LIST["mutant"]}
    # T3, T7: what an environment hands over, and which settings are refused.
    assert set(TRAPS) - planted == {"T3", "T7"}


def test_text_that_is_gone_is_noticed(monkeypatch):
    mutant = next(iter(BUGS.values())) | {"old": "this is nowhere"}
    with pytest.raises(ValueError, match="must hold once what"):
        mutants.patched(mutant)


def test_only_a_failed_test_or_one_without_end_counts_as_caught():
    said = "...F\nFAILED ../repo/tests/test_rssm.py::test_reset[a] - AssertionError\n1 failed"
    assert mutants.verdict(0, "1 passed") == (None, None)
    assert mutants.verdict(1, said) == ("test_rssm.py::test_reset", None)
    assert mutants.verdict(-signal.SIGXCPU, "") == (mutants.ENDLESS, None)
    for status, output in ((-signal.SIGKILL, said), (2, said), (90, ""), (1, "")):
        caught, trouble = mutants.verdict(status, output)
        assert caught is None and "pytest ended with" in trouble
    assert "signal 9" in mutants.verdict(-signal.SIGKILL, "")[1]  # killed for want of memory


def test_the_report_tells_of_every_bug_which_test_caught_it():
    chosen = mutants.mutants()
    jobs = [mutants.Job(m["tests"], m) for m in chosen]
    results = [mutants.Result(job, job.tests[0], None, 1.0) for job in reversed(jobs)]
    results[0] = results[0]._replace(caught=None)
    results[1] = results[1]._replace(caught=None, trouble="killed")
    text = mutants.table([mutants.Result(mutants.Job([]), None, None, 1.0), *results], "Total.")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    planted = [row for row in rows if len(row) == 5][1:]
    assert [row[0].removeprefix("| ") for row in planted] == [m["bug"] for m in chosen]
    assert [row[3] for row in planted[:-2]] == [m["tests"][0] for m in chosen[:-2]]
    assert [row[3] for row in planted[-2:]] == ["**no answer**", "**nothing**"]
    assert all(f"| {x['museum']} |" in text for x in LIST["elsewhere"])


def test_all_tests_run_once_without_a_bug():
    chosen = mutants.mutants()
    jobs = mutants.healthy(chosen)
    found = [test for job in jobs for test in job.tests]
    assert sorted(found) == sorted({test for m in chosen for test in m["tests"]})
    assert not any(job.mutant for job in jobs)


def test_a_comparison_without_assert_is_refused_by_the_linter():
    command = [sys.executable, "-m", "ruff", "check", "--stdin-filename", "tests/test_x.py", "-"]
    code = "def test_sum():\n    1 + 1 == 3\n"
    said = subprocess.run(command, input=code, capture_output=True, text=True, cwd=mutants.ROOT)
    assert said.returncode == 1 and "B015" in said.stdout
