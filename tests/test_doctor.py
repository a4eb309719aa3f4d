import subprocess
import sys

import numpy as np
import pytest

from dreamer_lite import doctor


def test_the_command_finds_this_environment_healthy():
    run = subprocess.run(
        [sys.executable, "-m", "dreamer_lite.doctor"], capture_output=True, text=True, timeout=120
    )
    lines = run.stdout.splitlines()
    assert [line.split()[1] for line in lines] == [check.__name__ for check in doctor.CHECKS]
    assert run.returncode == 0 and all(line.startswith("OK ") for line in lines), run.stdout
    assert run.stderr == ""


def test_all_atari_games_are_there():
    games = int(doctor.atari().split(", ")[1].split()[0])
    assert games > 100


def test_one_failure_is_named_and_sets_the_exit_status(monkeypatch, capsys):
    def broken():
        raise RuntimeError("no such thing")

    monkeypatch.setattr(doctor, "CHECKS", (doctor.python, broken))
    assert doctor.main() == 1
    good, bad = capsys.readouterr().out.splitlines()
    assert good.startswith("OK    python")
    assert bad == "FAIL  broken     RuntimeError: no such thing"


def test_a_missing_emulator_is_reported_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)
    ok, text = doctor.line(doctor.atari)
    assert not ok and "pip install -e '.[atari]'" in text


def test_dm_control_is_optional(monkeypatch):
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    ok, text = doctor.line(doctor.dm_control)
    assert ok and "pip install -e '.[dmc]'" in text


def test_a_picture_that_cannot_be_drawn_is_reported(monkeypatch):
    pytest.importorskip("dm_control", reason="needs dm_control: pip install -e '.[dmc]'")
    monkeypatch.setattr("dreamer_lite.control.Control.render", lambda env: np.zeros((64, 64, 3)))
    ok, text = doctor.line(doctor.dm_control)
    assert not ok and "without a picture" in text


def test_missing_widgets_are_reported_with_the_remedy():
    with pytest.raises(doctor.Trouble, match=r"not-a-package is not installed.*\[book\]"):
        doctor.versions("book", "not-a-package")


def test_an_old_python_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 0))
    assert doctor.line(doctor.python)[0] is False


def test_a_cuda_build_without_a_gpu_is_said_to_be_one():
    assert doctor.build(None, False) == "CPU build"
    assert doctor.build("12.8", True) == "CUDA 12.8 build"
    assert "without a usable GPU" in doctor.build("12.8", False)


def test_too_little_disk_or_memory_is_refused():
    assert doctor.enough("disk", 3 * doctor.GIB, 4 * doctor.GIB, 2.0, "make room")
    with pytest.raises(doctor.Trouble, match="1.0 GiB free of 4.0.*make room"):
        doctor.enough("disk", 1 * doctor.GIB, 4 * doctor.GIB, 2.0, "make room")
