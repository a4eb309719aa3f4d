"""A folder of somebody else's vectors may be incomplete; ours may not."""

import pytest
from parity import parity_io
from parity.parity_io import OURS, cases, load, refuse_untested


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """The vectors are read from a folder that holds one file."""
    (tmp_path / "v1_adam.npz").write_bytes((OURS / "v1_adam.npz").read_bytes())
    monkeypatch.setattr(parity_io, "FOLDER", tmp_path)
    monkeypatch.setattr(parity_io, "load", lambda name: load(name, tmp_path))
    monkeypatch.setattr(parity_io, "TESTED", {})


def skipped(mark) -> list[str]:
    """Why a decorated test would be skipped."""
    return [m.kwargs["reason"] for param in mark.mark.args[1] for m in param.marks]


def test_a_missing_file_or_case_of_another_folder_skips_its_test(elsewhere):
    assert "no case of v1_conv.npz" in skipped(cases("v1_conv"))[0]
    assert "no case of v1_adam.npz" in skipped(cases("v1_adam", lambda case: False))[0]
    assert skipped(cases("v1_adam")) == []


def test_cases_that_no_test_of_another_folder_takes_are_named(elsewhere):
    cases("v1_adam", lambda case: case.hp["clip"] > 1)
    with pytest.raises(pytest.skip.Exception, match="left out, .*: v1_adam/clipped$"):
        refuse_untested("v1")
    cases("v1_adam")
    refuse_untested("v1")


def test_our_own_vectors_are_complete(monkeypatch):
    monkeypatch.setattr(parity_io, "FOLDER", OURS)
    monkeypatch.setattr(parity_io, "load", lambda name: load(name, OURS))
    monkeypatch.setattr(parity_io, "TESTED", {})
    with pytest.raises(AssertionError, match="no case of v1_adam.npz"):
        cases("v1_adam", lambda case: False)
    with pytest.raises(FileNotFoundError, match="v1_adam2"):
        cases("v1_adam2")
    with pytest.raises(AssertionError, match="clipped"):
        refuse_untested("v1")
