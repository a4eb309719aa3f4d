"""The record of a run: complete, and enough to repeat it."""

import json
import re
import shlex
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from dreamer_lite import cli, ledger
from dreamer_lite.networks import down_pool
from dreamer_lite.presets import LAPTOP, TOY, V3, from_dict, sized, to_dict

CPU = torch.device("cpu")
OPTIONS = {"env": "ALE/Boxing-v5", "steps": 40_000, "seed": 0}


def typed(cfg):
    return ledger.command(cfg, "boxing", OPTIONS, CPU)


def described(cfg=LAPTOP, **changes):
    return ledger.describe(cfg, "boxing", OPTIONS | changes, CPU)


def test_the_record_is_json_and_lacks_nothing():
    got = json.loads(json.dumps(described()))
    assert (
        list(got)
        == (
            "name command preset size overrides env steps seed protocol "
            "commit versions hardware device threads processes kernels started"
        ).split()
    )
    assert got["protocol"] == "atari_laptop" and got["threads"] == torch.get_num_threads()
    assert got["versions"].keys() >= {"python", "dreamer-lite", "torch", "numpy", "gymnasium"}
    assert re.fullmatch(r".+, \d+ cores", got["hardware"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", got["started"])
    assert described(env="dreamer_lite/Fork-v0")["protocol"] is None


@pytest.mark.parametrize(
    ("cfg", "expected"),
    [
        (LAPTOP, ("laptop", None, {})),
        (V3, ("v3", None, {})),
        (sized(V3, "12m"), ("v3", "12m", {})),
        (replace(TOY, envs=4), ("toy", None, {"envs": 4})),
        (
            replace(sized(LAPTOP, "25m"), replay=replace(LAPTOP.replay, ratio=8.0, online=False)),
            ("laptop", "25m", {"replay.online": False, "replay.ratio": 8.0}),
        ),
    ],
)
def test_settings_are_a_preset_a_size_and_what_is_still_different(cfg, expected):
    assert ledger.nearest(cfg) == expected


def test_the_command_names_everything_that_the_numbers_depend_on():
    threads = torch.get_num_threads()
    assert typed(LAPTOP) == (
        "dreamer-lite train laptop --env ALE/Boxing-v5 --steps 40000 --seed 0 --device cpu "
        f"--threads {threads} --logdir runs/boxing"
    )


def test_a_typed_command_gives_the_settings_and_options_back():
    replay = replace(V3.replay, online=False, ratio=8.0)
    conv = replace(V3.model.conv, mults=(1, 2))
    changed = replace(V3, replay=replay, model=replace(V3.model, conv=conv, prior_layers=1))
    for cfg in (LAPTOP, changed, sized(changed, "12m"), replace(sized(TOY, "tiny"), envs=3)):
        options = OPTIONS | {"eval_every": 500}
        words = shlex.split(ledger.command(cfg, "my run", options, CPU))
        assert words[:2] == ["dreamer-lite", "train"]
        got = cli.parse(words[1:]).command
        assert got.config == cfg
        assert got.logdir == ledger.Path("runs/my run") and got.threads == torch.get_num_threads()
        assert (got.env, got.steps, got.eval_every) == ("ALE/Boxing-v5", 40_000, 500)


def test_settings_that_only_python_can_express_have_no_command():
    style = replace(V3.model.style, act=nn.ReLU)
    assert typed(replace(V3, model=replace(V3.model, style=style))) is None
    conv = replace(LAPTOP.model.conv, down=down_pool)
    got = described(replace(LAPTOP, model=replace(LAPTOP.model, conv=conv)))
    assert got["command"] is None and got["overrides"] == {"model.conv.down": "@down_pool"}


def test_flags_are_spelled_as_the_command_line_does():
    assert ledger.flag("envs", 4) == "--envs 4"
    assert ledger.flag("replay.online", True) == "--replay.online"
    assert ledger.flag("replay.online", False) == "--replay.no-online"
    assert ledger.flag("verbose", False) == "--no-verbose"


def test_the_settings_of_a_record_can_be_read_back(tmp_path):
    ledger.write(tmp_path / "config.json", to_dict(LAPTOP))
    assert from_dict(json.loads((tmp_path / "config.json").read_text())) == LAPTOP


def test_the_commit_is_gits_own_and_a_plus_says_that_the_package_was_changed():
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ledger.Path(ledger.__file__).parent, capture_output=True
    )
    found = ledger.commit()
    assert head.returncode == 0 or found is None
    assert found is None or head.stdout.decode().startswith(found.removesuffix("+"))


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"ls-files": "__init__.py", "status": "", "rev-parse": "abc"}, "abc"),
        ({"ls-files": "__init__.py", "status": " M agent.py", "rev-parse": "abc"}, "abc+"),
        ({"ls-files": None, "status": "", "rev-parse": "abc"}, None),
    ],
)
def test_the_commit_of_another_repository_around_the_package_does_not_count(
    monkeypatch, answers, expected
):
    monkeypatch.setattr(ledger, "git", lambda command, *_: answers[command])
    assert ledger.commit() == expected


def test_without_git_there_is_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert ledger.git("status") is None and ledger.commit() is None


PEAKS = """
import psutil
from dreamer_lite.ledger import peak_memory
before = peak_memory()
held = b"1" * 300_000_000
del held
print(before, peak_memory(), psutil.Process().memory_info().rss)
"""


def test_the_peak_of_memory_is_that_of_this_process_and_stays_when_memory_is_given_back():
    held = b"1" * 600_000_000  # what starts a process does not count as the process's
    done = subprocess.run([sys.executable, "-c", PEAKS], capture_output=True, text=True, check=True)
    before, peak, now = map(int, done.stdout.split())
    assert 50e6 < before < len(held) and now < peak - 200e6
    assert 250e6 < peak - before < 400e6


def test_a_resumed_run_keeps_its_beginning_and_lists_its_later_lives():
    first = described() | {"ended": "earlier", "unpacked_at": 7}
    second = described(steps=80_000) | {"hardware": "another", "started": "later"}
    got = ledger.resumed(first, second, 500)
    assert got["hardware"] == first["hardware"] and got["started"] == first["started"]
    assert got["steps"] == 80_000 and "--steps 80000" in got["command"]
    assert "ended" not in got and got["unpacked_at"] == 7
    (life,) = got["resumed"]
    assert life["step"] == 500 and life["at"] == "later" and life["hardware"] == "another"
    assert [x["step"] for x in ledger.resumed(got, second, 900)["resumed"]] == [500, 900]


def test_a_record_that_cannot_be_read_is_none(tmp_path):
    assert ledger.read(tmp_path) == {}
    for content in ("{", "[1]"):
        (tmp_path / "run.json").write_text(content)
        assert ledger.read(tmp_path) == {}


def test_only_a_run_that_never_saved_is_cleared_away(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n')
    (tmp_path / "milestones").mkdir()
    for foreign in ({}, {"wandb": 1}, described() | {"status": "complete", "step": 9}):
        ledger.write(tmp_path / "run.json", foreign)
        with pytest.raises(ValueError, match="no checkpoint to continue from"):
            ledger.clear(tmp_path)
        assert (tmp_path / "metrics.jsonl").exists() and (tmp_path / "milestones").exists()
    ledger.write(tmp_path / "run.json", described() | {"status": "running", "step": 0})
    ledger.clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    ledger.clear(tmp_path / "new")
