"""Logger: means, strict JSON, and one diary over several lives of a run."""

import json
import sys

import pytest
import torch

from dreamer_lite.logger import Logger, read_metrics, rewind


def logger_in(folder, **kwargs):
    return Logger(folder, 100, progress=False, **kwargs)


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


def test_a_line_holds_the_means_since_the_last_line(tmp_path):
    log = logger_in(tmp_path, frames_per_step=4)
    for value in (1.0, torch.tensor(2.0, requires_grad=True), 6):
        log.add("loss/kl", value)
    log.add("a", torch.tensor(5))
    log.write(10, 3)
    log.add("a", 7)
    log.write(20, 4)
    first, second = read_metrics(tmp_path)
    assert list(first) == ["step", "frame", "update", "hours", "a", "loss/kl"]
    assert (first["step"], first["frame"], first["update"]) == (10, 40, 3)
    assert (first["a"], first["loss/kl"]) == (5, 3)
    assert second["a"] == 7 and "loss/kl" not in second


def test_a_tensor_overwritten_after_add_does_not_change_the_mean(tmp_path):
    log, buffer = logger_in(tmp_path), torch.tensor(1.0)
    log.add("x", buffer)
    buffer.fill_(100.0)
    log.add("x", buffer)
    buffer.fill_(0.0)
    assert log.write(1, 1)["x"] == 50.5


def test_each_line_is_on_disk_at_once(tmp_path):
    log = logger_in(tmp_path)
    log.write(1, 0)
    assert (tmp_path / "metrics.jsonl").read_text().endswith("}\n")
    log.close()


def test_nan_and_infinity_become_null_and_are_counted(tmp_path):
    log = logger_in(tmp_path)
    log.add("a", float("nan"))
    log.add("b", torch.tensor(float("inf")))
    log.add("c", 1.0)
    log.write(1, 1)
    line = (tmp_path / "metrics.jsonl").read_text()
    row = json.loads(line, parse_constant=refuse)
    assert row["a"] is None and row["b"] is None and row["c"] == 1 and row["nonfinite"] == 2
    log.add("a", 1.0)
    assert "nonfinite" not in log.write(2, 2)


def test_resume_drops_lines_after_the_checkpoint_and_the_one_cut_off(tmp_path):
    log = logger_in(tmp_path)
    for step in (10, 20, 30):
        log.add("score", float(step))
        log.write(step, step)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 40, "sco')
    assert [row["step"] for row in read_metrics(path)] == [10, 20, 30]
    again = logger_in(tmp_path)
    again.restore(log.state(), 20)
    again.add("score", 99.0)
    again.write(30, 30)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["step"], row["score"]) for row in rows] == [(10, 10), (20, 20), (30, 99)]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_complete_last_line_without_its_newline_is_kept(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}')
    rewind(path, 5)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_hours_and_unwritten_sums_survive_a_restart(tmp_path):
    log = logger_in(tmp_path)
    log.hours_before = 2.0
    log.add("x", torch.tensor(1.0))
    state = json.loads(json.dumps(log.state()))
    again = logger_in(tmp_path)
    again.restore(state, 0)
    again.add("x", torch.tensor(2.0))
    row = again.write(5, 1)
    assert row["x"] == 1.5
    assert 2.0 <= row["hours"] < 2.1


def test_the_bar_shows_score_and_speed_and_starts_at_the_resumed_step(tmp_path, capsys):
    log = Logger(tmp_path, 100)
    log.restore({"hours": 0.0, "sums": {}, "counts": {}}, 40)
    for step in (50, 60):
        log.add("score", 1.25)
        log.add("hidden", 1.0)
        log.write(step, step)
    log.bar.refresh()
    log.close()
    shown = capsys.readouterr().err
    assert "60/100" in shown and "score=1.25" in shown and "updates/s=" in shown
    assert "hidden" not in shown
    assert log.bar.initial == 40


def test_missing_metrics_are_named(tmp_path):
    with pytest.raises(ValueError, match="no metrics at"):
        read_metrics(tmp_path)


def test_missing_tensorboard_is_named_at_once(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match=r"pip install -e '\.\[tensorboard\]'"):
        logger_in(tmp_path / "run", tensorboard=True)
    assert not (tmp_path / "run").exists()


def test_tensorboard_gets_the_means(tmp_path, monkeypatch):
    calls = []

    class Writer:
        def __init__(self, folder, purge_step):
            calls.append(("open", folder, purge_step))

        def add_scalar(self, *args):
            calls.append(args)

        def flush(self):
            calls.append(("flush",))

        close = flush

    monkeypatch.setattr("dreamer_lite.logger.summary_writer", lambda: Writer)
    log = logger_in(tmp_path, tensorboard=True)
    log.add("x", 3.0)
    log.write(7, 1)
    log.close()
    folder = str(tmp_path / "tensorboard")
    assert calls == [("open", folder, 7), ("x", 3.0, 7), ("flush",), ("flush",)]


def test_tensorboard_reads_what_was_written(tmp_path):
    pytest.importorskip("tensorboard", reason="needs tensorboard: pip install -e '.[tensorboard]'")
    log = logger_in(tmp_path, tensorboard=True)
    log.add("loss/kl", 3.0)
    log.write(7, 1)
    log.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    (event,) = found.Scalars("loss/kl")
    assert (event.step, event.value) == (7, 3.0)
