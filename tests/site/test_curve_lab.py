"""curve-lab draws the numbers it was given, on each of the four clocks."""

import numpy as np
import pytest
from conftest import mounted

NAME = "curve-lab"
POINTS = [[4000 * i, 1000 * i, 60 * i - 30, 0.1 * i, float(i * i - 6)] for i in range(1, 9)]
THEIRS = [[10_000, 2500, 600, None, 20.0], [30_000, 7500, 1900, None, 40.0]]


def test_a_curve_has_a_place_on_every_axis_and_no_hours_are_made_up(js):
    axes = ["frames", "agent steps", "updates", "hours"]
    for column, axis in enumerate(axes):
        ours, theirs = js(NAME, "along", [(POINTS, axis), (THEIRS, axis)])
        assert ours == [[p[column], p[4]] for p in POINTS]
        assert len(theirs) == (0 if axis == "hours" else 2)


def test_smoothing_is_a_mean_over_the_neighbors_there_are(js):
    pairs = [[p[0], p[4]] for p in POINTS]
    for reach in range(4):
        (found,) = js(NAME, "smooth", [(pairs, reach)])
        y = np.array(POINTS)[:, 4]
        means = [y[max(0, i - reach) : i + reach + 1].mean() for i in range(len(y))]
        np.testing.assert_allclose(found, np.stack([np.array(POINTS)[:, 0], means], 1))


def test_between_two_points_the_score_is_that_of_numpy(js):
    pairs = [[p[0], p[4]] for p in POINTS]
    x, y = np.array(pairs).T
    inside = np.linspace(x[0], x[-1], 23)
    found = js(NAME, "at", [(pairs, float(where)) for where in inside])
    np.testing.assert_allclose(found, np.interp(inside, x, y))
    assert js(NAME, "at", [(pairs, 0), (pairs, 1e9), ([], 1), ([[5, 7]], 5)]) == [
        None,
        None,
        None,
        7,
    ]


def test_the_first_place_above_a_level(js):
    pairs = [[p[0], p[4]] for p in POINTS]
    assert js(NAME, "passes", [(pairs, 9), (pairs, 1000)]) == [16_000, None]


def test_ticks_are_round(js):
    assert js(NAME, "tickStep", [(400_000,), (6000,), (2.1,)]) == [100_000, 1000, 0.5]


@pytest.fixture
def lab(browser):
    data = dict(
        runs=[dict(name="run-s0", game="Boxing", points=POINTS)],
        published=[dict(name="paper", game="Boxing", points=THEIRS, spread=3.0)],
        baselines=dict(Boxing=[0.1, 12.1]),
    )
    words = "a learning curve over frames with published points beside it"
    with mounted(browser, NAME, data, words) as tab:
        yield tab


def test_the_words_follow_the_axis_and_the_cursor(lab):
    said = lab.locator(".dl-said")
    assert "first above the human at 20,000 frames" in said.inner_text()
    lab.get_by_label("updates", exact=True).check()
    assert "first above the human at 270 updates" in said.inner_text()
    lab.get_by_label("Look at, % of the axis").fill("100")
    assert "no score here" in said.inner_text()
    lab.get_by_label("hours", exact=True).check()
    assert "hours of the published runs are not known" in said.inner_text()
    assert lab.locator("svg").get_by_text("human", exact=True).count() == 1


def test_smoothing_moves_the_moment_at_which_the_human_is_passed(lab):
    lab.get_by_label("Smooth over neighbors").fill("5")
    assert "20,000 frames" not in lab.locator(".dl-said").inner_text()
