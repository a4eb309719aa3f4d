"""drive-lab looks up the frames that the page packed, and those are the package's own."""

import base64
import io
import json
import re

import lint_book
import nbformat
import numpy as np
import pytest
import torch
from conftest import mounted
from PIL import Image

from dreamer_lite import report, training
from dreamer_lite.agent import Dreamer
from dreamer_lite.presets import PRESETS
from dreamer_lite.spaces import ActionSpec

LAB = "drive-lab"
KEYS, HOLD, DEPTH = 5, 5, 3


def page():
    """What chapter 14 defines and imports, without running its cells."""
    (found,) = [p for p in lint_book.pages(["14"])]
    nodes = [n for cell in found.code for n in lint_book.parsed(cell).body]
    kinds = "FunctionDef Import ImportFrom ClassDef".split()
    names = ("KEYS", "HOLD", "SHADES", "LABELS")
    chosen = [
        n
        for n in nodes
        if type(n).__name__ in kinds or lint_book.ast.unparse(n).lstrip("(").startswith(names)
    ]
    scope = {}
    for node in chosen:
        exec(lint_book.ast.unparse(node), scope)
    return scope


@pytest.fixture(scope="module")
def scope():
    return page()


def orders():
    """All orders of keys, in the order of the sheet; first none at all."""
    found = [[]]
    for n in range(1, DEPTH + 1):
        found += [list(np.base_repr(i, KEYS).zfill(n)) for i in range(KEYS**n)]
    return [list(map(int, s)) for s in found]


def test_every_order_of_keys_has_a_row_of_its_own(js, scope):
    asked = orders()
    assert js(LAB, "place", [(s, KEYS) for s in asked]) == list(range(len(asked)))
    assert [list(s) for s in scope["sequences"]()] == asked[1:]


def test_steps_run_along_the_way_that_was_driven(js):
    shape = dict(count=KEYS, hold=HOLD)
    asked = [([2, 4, 1], t) for t in (-4, 0, 1, 5, 6, 15)]
    rows = js(LAB, "place", [(s, KEYS) for s in ([], [2], [2, 4], [2, 4, 1])])
    found = js(LAB, "cell", [(keys, t, shape) for keys, t in asked])
    line = [rows[0], rows[0], rows[1], rows[1], rows[2], rows[3]]
    assert found == [[r, c] for r, c in zip(line, (0, 4, 0, 4, 0, 4), strict=True)]


def made_up():
    """Frames and numbers as the page finds them for one moment, at random."""
    rng = np.random.default_rng(0)
    frames = rng.integers(256, size=(2, len(orders()), HOLD, 64, 64)).astype(np.uint8)
    numbers = rng.normal(size=(len(orders()), HOLD, 3)) * [0.5, 0.5, 4]
    return dict(truth=frames[0], dream=frames[1], numbers=numbers)


def test_numbers_come_back_as_they_were_packed(js, scope):
    found = made_up()
    text = scope["as_bytes"](found["numbers"])
    (raw,) = js(LAB, "decode", [(text,)])
    for line, column in ((0, 0), (7, 3), (155, 4)):
        (got,) = js(LAB, "numbers", [(raw, [line, column], HOLD)])
        want = found["numbers"][line, column]
        assert [got["paid"], got["reward"]] == pytest.approx(want[:2], abs=0.0101)
        assert got["value"] == pytest.approx(want[2], abs=0.101)


def pixels(address):
    """The gray values of a picture in a data address."""
    data = base64.b64decode(address.split(",")[1])
    return np.asarray(Image.open(io.BytesIO(data)).convert("L")).astype(int)


def test_the_sheet_holds_every_frame_in_sixteen_shades(scope):
    found = made_up()
    address = scope["webp"](scope["shaded"](scope["sheet"](found)))
    picture = pixels(address)
    for line, column in ((0, 4), (9, 2), (155, 0)):
        for name, first in (("truth", 0), ("dream", HOLD)):
            x = 64 * (first + column)
            got = picture[64 * line : 64 * line + 64, x : x + 64]
            assert abs(got - found[name][line, column]).max() <= 255 / 15 / 2 + 1


def test_the_decibels_of_the_lab_are_those_of_the_package(js):
    rng = np.random.default_rng(1)
    one, other = rng.integers(256, size=(2, 64, 64, 1)).astype(np.uint8)
    pairs = [(one, other), (one, one), (one, np.minimum(one, 200))]
    got = js(LAB, "psnr", [(a.ravel().tolist(), b.ravel().tolist()) for a, b in pairs])
    assert got == pytest.approx([float(report.psnr(a, b)) for a, b in pairs], abs=1e-6)


def test_dreams_of_the_page_are_those_of_the_package(scope):
    """One long way through the tree is what `RSSM.follow` dreams, if the dice can't differ."""
    cfg = PRESETS["toy"]
    torch.manual_seed(0)
    agent = Dreamer(cfg, {"image": (16, 16, 1)}, ActionSpec(discrete=(KEYS,)))
    rssm = agent.world_model.rssm
    with torch.no_grad():
        for p in rssm.prior_net[-1].parameters():
            p.mul_(1e4)  # every die is sure of its face
    rssm.latent = type(rssm.latent)(rssm.latent.groups, rssm.latent.classes, 0.0)
    start, keys = agent.initial(1), [3, 0, 4]
    tree = scope["dreamt_branches"](agent, start, list(range(KEYS)))
    action = torch.eye(KEYS)[np.repeat(keys, HOLD)][:, None]
    with torch.no_grad():
        want = rssm.follow(start, action)
    at = [orders().index(keys[: n + 1]) - 1 for n in range(DEPTH)]
    torch.testing.assert_close(tree.z[at].flatten(0, 1), want.z[:, 0])
    torch.testing.assert_close(tree.h[at].flatten(0, 1), want.h[:, 0], atol=1e-5, rtol=1e-4)


def test_the_stored_lab_shows_what_the_shipped_agent_dreams(scope, monkeypatch):
    pytest.importorskip("ale_py")
    monkeypatch.chdir(lint_book.BOOK)
    text = nbformat.read("14-inside-the-dream.ipynb", 4)
    html = "".join(
        o.data.get("text/html", "") for c in text.cells for o in c.get("outputs", []) if "data" in o
    )
    (sheets,) = re.findall(r'data-sheets="drive-lab">(.*?)</script>', html)
    agent, run = training.load_run("data/runs/boxing-laptop-s0")
    match = report.record(agent, run["env"], 45, seed=7)
    names = scope["gymnasium"].make(run["env"]).unwrapped.get_action_meanings()
    given = dict(agent=agent, run=run, match=match, buttons=names, model=agent.world_model)
    scope.update(given)
    want = scope["shaded"](scope["sheet"](scope["branches"](45))).astype(int)
    got = pixels(json.loads(sheets)[0])
    assert got.shape == want.shape
    real = slice(0, 64 * HOLD)
    assert (got[:, real] == want[:, real]).all()
    assert (abs(got - want) > 17).mean() < 0.01, "dreams may differ by a rounded die, not more"


@pytest.fixture
def lab(browser, scope):
    found = made_up()
    for name, white in (("truth", 20), ("dream", 23)):  # two boxers that stand still
        found[name] = np.full_like(found[name], 131)
        found[name][..., 20:40, white : white + 4] = 214
        found[name][..., 20:40, 40:44] = 0
    data = scope["lab_data"]({"one": found, "other": found})
    data["sheets"] = [scope["webp"](scope["shaded"](scope["sheet"](found)))] * 2
    with mounted(browser, LAB, data, "the game and the dream of it side by side") as tab:
        tab.get_by_text("The last look").first.wait_for()
        yield tab


def said(tab):
    return tab.locator(".dl-said").inner_text()


def test_keys_drive_both_and_go_back(lab):
    stage = lab.get_by_role("group", name="The game and the dream;")
    stage.focus()
    stage.press("ArrowLeft")
    lab.get_by_text("5 of 15 steps").first.wait_for()
    assert "(left)" in said(lab) and "white boxer at column 22" in said(lab)
    stage.press("Backspace")
    assert "The last look" in said(lab)


def test_the_scrubber_shows_what_was_seen(lab):
    slider = lab.get_by_label("step")
    slider.focus()
    slider.press("ArrowLeft")
    assert "1 step before the last look" in said(lab)


def test_three_keys_end_the_dream_and_the_error_can_be_shown(lab):
    lab.get_by_role("button", name="Show the error").click()
    assert lab.locator("canvas").nth(2).is_visible()
    for name in ("up", "up", "up"):
        lab.get_by_role("button", name=name, exact=True).click()
    lab.get_by_text("15 of 15 steps").first.wait_for()
    assert lab.get_by_role("button", name="up", exact=True).is_disabled()
