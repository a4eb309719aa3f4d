"""Scores of several runs: the numbers of the literature, and what is shown of them."""

import json

import numpy as np
import pytest
from PIL import Image

from dreamer_lite import scores
from dreamer_lite.scores import Result, interval, iqm

# Given by rliable 1.2.0 for these scores, with 20,000 draws.
FIVE = np.array([0.126, -0.132, 0.64, 0.105, -0.536])[:, None]
SEVEN = np.array(
    [
        [0.362, 1.304, 0.947],
        [-0.704, -1.265, -0.623],
        [0.041, -2.325, -0.219],
        [-1.246, -0.732, -0.544],
        [-0.316, 0.412, 1.043],
        [-0.129, 1.366, -0.665],
        [0.352, 0.903, 0.094],
    ]
)


def test_the_best_and_the_worst_quarter_do_not_count():
    assert iqm(np.array([-1e9, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1e9])) == 3.5
    assert iqm(np.array([1.0, 2.0, 6.0])) == 3.0, "a quarter of three is nobody"
    assert np.array_equal(iqm(np.array([[4.0, 1.0, 2.0, 9.0], [0.0, 0.0, 8.0, 8.0]])), [3, 4])


def test_the_numbers_are_those_of_rliable():
    assert iqm(FIVE.ravel()) == pytest.approx(0.033)
    assert interval(FIVE) == pytest.approx((-0.40133333, 0.46866667))
    assert iqm(SEVEN.ravel()) == pytest.approx(-0.1122727272727273)
    assert interval(SEVEN, draws=20_000) == pytest.approx((-0.5034, 0.3595), abs=0.012)


def test_runs_are_drawn_within_their_task():
    far = np.array([[0.0, 100.0], [0.0, 100.0], [0.0, 100.0]])
    assert interval(far) == (50.0, 50.0)


def test_runs_that_agree_leave_no_doubt_and_more_runs_leave_less():
    assert interval(np.ones((4, 1))) == (1.0, 1.0)
    rng = np.random.default_rng(0)
    few, many = (np.diff(interval(rng.normal(size=(n, 1)))) for n in (5, 200))
    assert many < few / 2


def write_run(folder, rows):
    folder.mkdir(parents=True)
    lines = [{"step": step} | ({"episode/score": x} if x is not None else {}) for step, x in rows]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def some(tmp_path):
    """Two settings, two environments, three seeds; the score is 10·setting + environment + seed."""
    return [
        Result(
            label, env, seed, 10.0 * (label == "b") + (env == "y") + seed,
            write_run(tmp_path / f"{label}{env}{seed}", [(0, None), (10, seed), (20, 2 * seed)]),
        )
        for label in "ab" for env in "xy" for seed in range(3)
    ]  # fmt: skip


def test_the_table_has_a_row_for_each_setting_and_environment(tmp_path):
    rows = scores.table(some(tmp_path))
    assert [(r["settings"], r["env"], r["runs"]) for r in rows] == [
        (label, env, 3) for label in "ab" for env in "xy"
    ]
    assert [r["iqm"] for r in rows] == [1, 2, 11, 12]
    assert all(r["low"] < r["iqm"] < r["high"] for r in rows)


def test_with_a_scale_there_is_a_row_over_all_environments(tmp_path):
    results = some(tmp_path)
    rows = scores.table(results, {"x": (0, 10), "y": (1, 11)})
    assert [r["env"] for r in rows] == ["x", "y", "all 2, scaled"] * 2
    assert rows[2]["iqm"] == pytest.approx(0.1) and rows[5]["iqm"] == pytest.approx(1.1)
    assert len(scores.table(results, {"x": (0, 10)})) == 4, "y has no scale"
    assert len(scores.table(results[1:], {"x": (0, 10), "y": (1, 11)})) == 5, "a run is missing"
    with pytest.raises(ValueError, match="scale must be two different scores"):
        scores.table(results, {"x": (5, 5), "y": (1, 11)})


def test_a_single_run_has_no_interval(tmp_path):
    text = scores.markdown(scores.table(some(tmp_path)[:1]))
    assert text.splitlines()[-1] == "| a | x | 1 | 0.00 | – | 0.00 |"


def test_a_curve_takes_the_latest_score_of_every_run(tmp_path):
    one = write_run(tmp_path / "1", [(0, None), (10, 1.0), (20, None), (30, 3.0)])
    two = write_run(tmp_path / "2", [(0, None), (20, 5.0)])
    none = write_run(tmp_path / "3", [(0, None)])
    points = scores.curve([one, two, none])
    assert [(p["step"], p["runs"], p["iqm"]) for p in points] == [
        (10, 1, 1),
        (20, 2, 3),
        (30, 2, 4),
    ]
    assert points[0]["low"] is None and points[1]["low"] == 1


def test_everything_is_written(tmp_path):
    text = scores.write(some(tmp_path), tmp_path)
    assert (tmp_path / "results.md").read_text() == text and text.count("\n") == 6
    data = json.loads((tmp_path / "results.json").read_text())
    assert len(data["runs"]) == 12 and len(data["curves"]) == 4
    assert Image.open(tmp_path / "curves.png").size == (1080, 420)


def test_nothing_finished_is_an_empty_table(tmp_path):
    assert scores.write([], tmp_path).count("\n") == 2
    assert not (tmp_path / "curves.png").exists()
