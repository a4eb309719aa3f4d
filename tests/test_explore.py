import itertools
import json
import re

import matplotlib
import pytest

from dreamer_lite.explore import Explore, slider

ALT = "A single dot whose two coordinates follow the two sliders above"


def draw(x, y=0):
    figure = matplotlib.figure.Figure(figsize=(1, 1))
    figure.subplots().plot(x, y, "o")
    return figure


def page(**values):
    return Explore(draw, "dot", ALT, dpi=30, **values)


def test_there_is_one_frame_per_combination_and_the_last_slider_turns_fastest():
    grid = dict(x=[0, 1, 2], y=[5, 6])
    frames = page(**grid).frames()
    points = list(itertools.product(*grid.values()))
    assert len(frames) == len(points) == 6
    assert frames[3] == page(x=[1, 9], y=[6, 7]).frames()[0]  # 3 = 1 * 2 + 1


def test_two_executions_give_the_same_bytes():
    assert page(x=[0, 1])._repr_html_() == page(x=[0, 1])._repr_html_()


def test_the_page_carries_the_frames_the_labels_and_the_text_alternative():
    text = page(x=[0.5, 1e-3])._repr_html_()
    frames = json.loads(re.search(r'application/json">(.*?)</script>', text)[1])
    assert len(frames) == 2 and all(f.startswith("data:image/png;base64,") for f in frames)
    assert f'alt="{ALT}"' in text and "<span>x</span>" in text and 'data-values="0.5|0.001"' in text


def test_names_and_values_cannot_break_out_of_the_page():
    assert "<b>" not in slider("<b>", [0, 1])
    assert "<b>" not in Explore(draw, "dot", ALT + " <b>", x=[0, 1])._repr_html_()


def test_live_sliders_redraw_between_the_stored_values():
    widget = page(x=[0.0, 1.0]).widget()
    control, image = widget.children
    before = bytes(image.value)
    control.value = 0.37
    assert bytes(image.value) != before


def test_the_first_picture_stands_for_the_whole_in_print():
    flipbook = page(x=[0.5, 1])
    first = "data:image/png;base64," + flipbook._repr_mimebundle_()["image/png"]
    assert first == flipbook.frames()[0] != flipbook.frames()[1]


def test_with_a_kernel_the_bundle_also_has_the_live_widget():
    bundle = page(x=[0, 1])._repr_mimebundle_()
    assert bundle["text/plain"] == "Explore(dot: x)"
    assert any("widget-view" in kind for kind in bundle)


@pytest.mark.parametrize(
    "values, alt, message",
    [
        ({}, ALT, "got 1"),
        ({"x": [1]}, ALT, "x needs at least two values"),
        ({"x": range(8), "y": range(8)}, ALT, "got 64; use fewer"),
        ({"x": [0, 1]}, "a dot", "eight words"),
    ],
)
def test_a_bad_flip_book_is_refused_with_the_reason(values, alt, message):
    with pytest.raises(ValueError, match=message):
        Explore(draw, "dot", alt, **values)
