"""The command line: what can be typed, what it does, and how it ends."""

import errno
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from dreamer_lite import cli, training
from dreamer_lite.distributions import Gaussian
from dreamer_lite.presets import PRESETS, TOY, V3, leaves, sized, to_dict
from dreamer_lite.rssm import State

ENV = "dreamer_lite/MiniPong-v0"
SMALL = shlex.split(
    "--envs 2 --model.deter 16 --model.hidden 8 --model.units 8 --model.latent.groups 2 "
    "--model.latent.classes 3 --replay.length 8 --replay.batch 4 --replay.warmup 64 "
    "--replay.ratio 4 --replay.capacity 4000 --behavior.horizon 3"
)


def train_args(logdir, steps):
    return ["train", "toy", "--env", ENV, "--steps", str(steps), "--logdir", str(logdir), *SMALL]


def typed(text):
    """The settings that a command line asks for."""
    return cli.parse(shlex.split(text)).command


def fails(args, capsys):
    """Exit status and what was printed, of a command that must not succeed."""
    with pytest.raises(SystemExit) as ended:
        cli.main([str(a) for a in args])
    return ended.value.code, capsys.readouterr()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of 200 steps."""
    logdir = tmp_path_factory.mktemp("runs") / "tiny"
    cli.main(train_args(logdir, 200))
    return logdir


# Typing


REST = "--env x --steps 8 --logdir d"


def test_a_preset_without_options_is_the_preset():
    for name, preset in PRESETS.items():
        command = typed(f"train {name} {REST}")
        assert (command.config, command.env, command.steps) == (preset, "x", 8)


def test_options_override_the_size_and_the_size_overrides_the_preset():
    expected = sized(V3, "12m")
    expected = replace(expected, model=replace(expected.model, units=99))
    assert typed(f"train v3 {REST} --size 12m --model.units 99").config == expected
    assert typed(f"train v3 --model.units 99 {REST} --size=12m").config == expected


def test_an_override_equal_to_the_presets_number_still_overrides_the_size():
    config = typed(f"train toy {REST} --size 12m --model.deter {TOY.model.deter}").config
    assert (config.model.deter, config.model.hidden) == (TOY.model.deter, 256)


def help_of(preset, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", preset, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def options(text):
    """{option: its help} of a help page, whatever it is framed with."""
    found, name = {}, None
    for line in (line.strip("│ ") for line in text.splitlines()):
        if line.startswith("--") and line.strip("-"):
            name, *words = re.split(r"\s{2,}", line, maxsplit=1)
            name = re.split("[ ,]", name)[0]
            found[name] = "".join(words)
        elif name:
            found[name] = f"{found[name]} {line}".strip()
    return found


@pytest.mark.parametrize("preset", PRESETS)
def test_every_number_of_a_preset_is_an_option_with_its_default(preset, capsys):
    found = options(help_of(preset, capsys))
    numbers = {
        "--" + path.replace("_", "-"): value
        for path, value in leaves(to_dict(PRESETS[preset]))
        if isinstance(value, (bool, int, float))
    }
    assert len(numbers) > 40
    for name, value in numbers.items():
        assert f"(default: {value})" in found[name], name


def test_every_option_says_what_it_means(capsys):
    found = options(help_of("toy", capsys))
    mute = [name for name, text in found.items() if len(text.split("(default")[0].strip()) < 3]
    assert len(found) > 50 and mute == []


def test_every_preset_has_a_description():
    assert cli.ABOUT.keys() == PRESETS.keys()


@pytest.mark.parametrize(
    "text",
    ["train", "train lap", f"train toy {REST} --replay.rati 3", "eval", "bench toy --size 3m", "x"],
)
def test_what_makes_no_sense_exits_with_status_2(text, capsys):
    status, printed = fails(shlex.split(text), capsys)
    assert status == 2 and printed.out == "" and printed.err


def test_mistakes_are_answered_in_one_line(tmp_path, capsys):
    for args in (
        ["eval", tmp_path / "nothing"],
        ["pack", tmp_path / "nothing", "--out", tmp_path / "x.zip"],
        [*train_args(tmp_path / "run", 8), "--threads", "0"],
        ["train", "toy", "--env", "Nowhere-v0", "--steps", "8", "--logdir", tmp_path / "run"],
    ):
        status, printed = fails(args, capsys)
        assert status == 2 and printed.err.startswith("dreamer-lite: "), args
        assert len(printed.err.splitlines()) == 1


def test_a_size_for_settings_that_have_none_is_refused():
    gaussian = replace(V3.model, latent=Gaussian(30))
    cfg = replace(V3, model=gaussian)
    assert cli.resized(cfg, "12m") is cfg and cli.resized(V3, "12m") == sized(V3, "12m")
    cli.check_size(cfg, None)
    with pytest.raises(ValueError, match="size 12m"):
        cli.check_size(cfg, "12m")


def test_threads_are_set_before_anything_runs():
    before = torch.get_num_threads()
    cli.use_threads(before + 1)
    assert torch.get_num_threads() == before + 1
    cli.use_threads(None)
    assert torch.get_num_threads() == before + 1
    torch.set_num_threads(before)


# Doing


def test_the_command_in_the_record_of_a_run_repeats_it(run):
    record = json.loads((run / "run.json").read_text())
    command = typed(record["command"].removeprefix("dreamer-lite "))
    assert to_dict(command.config) == json.loads((run / "config.json").read_text())
    assert (command.env, command.steps, command.seed) == (ENV, 200, 0)


def test_train_makes_a_complete_run(run):
    record = json.loads((run / "run.json").read_text())
    assert (record["status"], record["step"], record["env"]) == ("complete", 200, ENV)


def test_eval_prints_mean_spread_and_a_line_of_json_the_same_every_time(run, capsys):
    printed = []
    for _ in range(2):
        cli.main(["eval", str(run), "--episodes", "2", "--seed", "3"])
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    sentence, line = printed[0].splitlines()
    numbers = json.loads(line)
    assert (numbers["step"], numbers["mode"], len(numbers["episodes"])) == (200, "sample", 2)
    assert numbers["mean"] == sum(numbers["episodes"]) / 2
    assert f"{numbers['mean']:.2f} ± {numbers['sd']:.2f}" in sentence


@pytest.mark.parametrize("mode", ["sample", "mode"])
def test_eval_acts_as_it_was_told(run, mode, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(
        training, "evaluate", lambda *_, **k: asked.append(k) or training.Score(0, 0, [0], [1])
    )
    cli.main(["eval", str(run), "--mode", mode])
    assert asked[0]["mode"] == (mode == "mode")


@pytest.mark.parametrize("name", PRESETS)
def test_eval_acts_as_the_paper_of_its_preset_evaluates(name, monkeypatch, capsys):
    agent, asked = SimpleNamespace(cfg=PRESETS[name]), []
    score = training.Score(0, 0, [0], [1])
    monkeypatch.setattr(training, "load_run", lambda *_: (agent, {"env": ENV, "step": 0}))
    monkeypatch.setattr(training, "evaluate", lambda *_, **k: asked.append(k["mode"]) or score)
    cli.main(["eval", "anywhere"])
    greedy = "v1" in name or "v2" in name  # their authors take the mode; V3's samples
    said = json.loads(capsys.readouterr().out.splitlines()[-1])["mode"]
    assert (asked, said) == ([greedy], "mode" if greedy else "sample")


def test_runs_checkpoints_milestones_and_files_are_the_same_agent(run):
    checkpoint = max((run / "checkpoints").iterdir())
    milestone = max((run / "milestones").iterdir())
    agents = []
    for path in (run, checkpoint, milestone, milestone / "agent.safetensors"):
        agent, record = training.load_run(path)
        assert record["step"] == 200 and record["env"] == ENV
        agents.append(agent)
    state = State(torch.ones(1, 16), torch.zeros(1, 6))
    with torch.no_grad():
        values = [agent.behavior.policy(state.feat).probs for agent in agents]
    assert torch.equal(values[0], values[1]) and torch.equal(values[2], values[3])
    torch.testing.assert_close(values[0], values[2], atol=1e-3, rtol=0)  # half precision


@pytest.mark.parametrize("suffix", ["webp", "gif"])
def test_dream_writes_pictures_and_numbers(run, tmp_path, capsys, suffix):
    args = f"--steps 60 --length 12 --context 4 --horizon 3 --samples 1 --format {suffix}"
    cli.main(["dream", str(run), "--out", str(tmp_path), *args.split()])
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"dream.{suffix}", "dream.png", "imagined.png", "dream.json"}
    numbers = json.loads((tmp_path / "dream.json").read_text())
    assert len(numbers["psnr"]) == 12 and numbers["context"] == 4
    assert numbers["caption"] in capsys.readouterr().out


def test_dreams_start_from_the_rows_that_were_chosen(run, tmp_path, monkeypatch):
    seen = []
    keep = cli.report.imagine
    monkeypatch.setattr(
        cli.report, "imagine", lambda a, s, *x, **k: seen.append(s) or keep(a, s, *x, **k)
    )
    args = "--steps 40 --length 12 --context 4 --horizon 2 --samples 1 --frames".split()
    for frames in (["3", "20", "30"], ["30"], []):
        cli.main(
            ["dream", str(run), "--out", str(tmp_path), *args[: None if frames else -1], *frames]
        )
    assert [len(state.h) for state in seen] == [3, 1, 2]
    torch.testing.assert_close(seen[0].h[2], seen[1].h[0])  # the same row of the same recording
    assert not torch.equal(seen[0].h[0], seen[0].h[1])


@pytest.mark.parametrize("wrong", ["--clips 0", "--horizon 0", "--frames 40", "--frames -1"])
def test_pictures_that_cannot_be_made_are_refused(run, tmp_path, capsys, wrong):
    args = ["dream", run, "--out", tmp_path, "--steps", "40", *wrong.split()]
    status, printed = fails(args, capsys)
    assert status == 2 and wrong.split()[0][2:] in printed.err


def test_a_full_disk_is_answered_in_a_line_with_advice(tmp_path, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cli.training, "train", full)
    status, printed = fails(train_args(tmp_path / "run", 8), capsys)
    assert status == 1 and "newest checkpoint" in printed.err and printed.err.count("\n") == 1
    status, printed = fails(["pack", tmp_path / "nothing", "--out", tmp_path / "a/b.zip"], capsys)
    assert status in (1, 2) and printed.err.startswith("dreamer-lite: ")


def test_bench_prints_a_table_and_writes_json(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cli.bench, "SIDE", 64)
    out = tmp_path / "bench.json"
    cli.main(["bench", "toy", "--env", ENV, *SMALL, "--repeats", "1", "--out", str(out)])
    assert "world model" in capsys.readouterr().out
    assert json.loads(out.read_text())["settings"]["batch"] == 4


def test_the_doctor_answers_with_his_exit_status(capsys):
    status, printed = fails(["doctor"], capsys)
    lines = printed.out.splitlines()
    assert status == (1 if any(line.startswith("FAIL") for line in lines) else 0)
    assert any(line.startswith("OK    torch") for line in lines)


# Stopping


def launch(args):
    """The module as a program, as a shell would start it."""
    return subprocess.Popen(
        [sys.executable, "-m", "dreamer_lite", *args],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path, program, seconds=60):
    """Until a file exists; a program that ended before is reported with what it said."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert program.poll() is None, program.stderr.read()
        assert time.monotonic() < end, f"no {path.name} after {seconds} s"
        time.sleep(0.05)


def test_a_run_that_is_told_to_stop_says_so_and_goes_on_later(tmp_path):
    logdir = tmp_path / "run"
    program = launch(train_args(logdir, 10**7))
    wait_for(logdir / "metrics.jsonl", program)
    program.send_signal(signal.SIGTERM)
    assert program.wait(60) == 128 + signal.SIGTERM
    record = json.loads((logdir / "run.json").read_text())
    assert record["status"] == "interrupted"
    cli.main(train_args(logdir, record["step"] + 4))
    assert json.loads((logdir / "run.json").read_text())["status"] == "complete"


def test_a_keyboard_interrupt_elsewhere_exits_with_status_130(run, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "evaluate", interrupted)
    assert fails(["eval", run], capsys)[0] == 130
