"""The list of planted bugs fits the code as it is; `make mutants` plants them."""

import ast
import tomllib
from pathlib import Path

import mutants
import pytest
from test_traps import INTENDED, TRAPS, functions

LIST = tomllib.loads(mutants.LIST.read_text(encoding="utf-8"))
BUGS = {mutant["bug"]: mutant for mutant in LIST["mutant"]}


def test_no_bug_is_listed_twice():
    assert len(BUGS) == len(LIST["mutant"])


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_can_be_planted_and_its_tests_exist(bug):
    mutant = BUGS[bug]
    text = mutants.patched(mutant)  # the old text occurs exactly once
    ast.parse(text)
    assert mutant["old"] != mutant["new"]
    for test in mutant["tests"]:
        path, name = test.split("::")
        assert name in functions(Path(path).stem.removeprefix("test_")), test


def test_every_bug_of_the_museum_is_planted_or_caught_otherwise():
    planted = {m["museum"] for m in LIST["mutant"] if "museum" in m}
    otherwise = {m["museum"] for m in LIST["elsewhere"]}
    assert planted | otherwise == set(range(1, 19)) and not planted & otherwise


def test_every_trap_that_is_no_number_or_file_is_planted():
    planted = {m.get("trap") for m in LIST["mutant"]}
    # T3, T7: what an environment hands over, and which settings are refused.
    assert set(TRAPS) - planted == {"T3", "T7"} and INTENDED not in planted


def test_text_that_is_gone_is_noticed(monkeypatch):
    mutant = next(iter(BUGS.values())) | {"old": "this is nowhere"}
    with pytest.raises(ValueError, match="must hold once what"):
        mutants.patched(mutant)


def test_the_first_failure_is_read_from_what_pytest_says():
    said = "...F\nFAILED ../repo/tests/test_rssm.py::test_reset[a] - AssertionError\n1 failed"
    assert mutants.first_failure(said) == "test_rssm.py::test_reset"
    assert mutants.first_failure("") == "(ran for ever)"
