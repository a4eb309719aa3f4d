"""rssm-lab runs the RSSM of the package: the same numbers, and the words that go with them."""

import base64
import json

import numpy as np
import pytest
import torch
from conftest import mounted
from run_book import BOOK
from torch import nn

from dreamer_lite.distributions import Categorical
from dreamer_lite.heads import SymlogHead
from dreamer_lite.networks import Conv, Decoder, NormGRU, Style
from dreamer_lite.rssm import RSSM, State

LAB = "rssm-lab"
SAME = dict(rtol=0, atol=1e-6)
ROWS = json.loads((BOOK / "data/studies/rssm-lab.json").read_text(encoding="utf-8"))["rows"]
ROWS = {row["world"]: row for row in ROWS}


@pytest.fixture(autouse=True)
def double(monkeypatch):
    """Everything in double precision, as in JavaScript: nothing is cast down."""
    torch.set_default_dtype(torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", lambda x: x.double())
    yield
    torch.set_default_dtype(torch.float32)


def tensor(w):
    """One packed array as the numbers it stands for."""
    whole = np.frombuffer(base64.b64decode(w["data"]), np.int8).astype(np.float64)
    return torch.tensor(whole * w["scale"]).view(w["shape"])


def model(world):
    """RSSM and decoder of the package with the weights of a world's model."""
    row, style = ROWS[world]["model"], Style()
    weights = {name: tensor(w) for name, w in row["weights"].items()}
    D, latent = row["deter"], Categorical(row["groups"], row["classes"], row["unimix"])
    E, n = len(ROWS[world]["embeds"][0]), len(ROWS[world]["frames"][0])
    A = weights["rssm.cell.inputs.0.weight"].shape[1] - latent.size
    parts = nn.ModuleDict({
        "rssm": RSSM(NormGRU(D, D, latent.size, A, style), latent, D, D, E, 1, 1, style),
        "decoder": Decoder({"vector": (n,)}, Conv(), D, latent.size, D, 1, style),
    })  # fmt: skip
    parts.load_state_dict(weights)
    return parts


def states(parts, count=5):
    """Memories in (-1, 1) and drawn faces.  [N,.]."""
    torch.manual_seed(0)
    rssm = parts["rssm"]
    h = 2 * torch.rand(count, rssm.deter) - 1
    return State(h, rssm.prior(h).sample())


def numbers(x):
    return torch.tensor(x, dtype=torch.float64)


@pytest.fixture
def run(js):
    """Call a function of the lab with the loaded model of a world as first argument."""

    def call(world, name, cases):
        packed = ROWS[world]["model"]
        return js(LAB, "withModel", [(packed, name, [list(case) for case in cases])])[0]

    return call


@pytest.mark.parametrize("world", ROWS)
@torch.no_grad()
def test_every_piece_computes_what_the_package_computes(world, run):
    parts = model(world)
    rssm, s = parts["rssm"], states(parts)
    a = torch.eye(rssm.cell.inputs[0].in_features - rssm.latent.size)[[0, 1, 0, 1, 1]]
    e = torch.randn(5, rssm.post_net[0].in_features - rssm.deter)
    pairs = [dict(h=h, z=z) for h, z in zip(s.h.tolist(), s.z.tolist(), strict=True)]

    found = run(world, "recur", zip(pairs, a.tolist(), strict=True))
    torch.testing.assert_close(numbers(found), rssm.recur(s, a), **SAME)
    p = rssm.prior(s.h)
    found = run(world, "prior", [(h,) for h in s.h.tolist()])
    torch.testing.assert_close(numbers(found), p.probs.flatten(1), **SAME)
    q = rssm.latent(rssm.post_params(s.h, e))
    found = run(world, "posterior", zip(s.h.tolist(), e.tolist(), strict=True))
    torch.testing.assert_close(numbers(found), q.probs.flatten(1), **SAME)
    seen = SymlogHead().mean(parts["decoder"](s.h, s.z)["vector"])
    found = run(world, "decode", [(pair,) for pair in pairs])
    torch.testing.assert_close(numbers(found), seen, **SAME)


@torch.no_grad()
def test_the_price_of_looking_is_the_kl_of_the_package(js):
    latent = Categorical(4, 4, 0.01)
    q, p = latent(torch.randn(3, 16)), latent(torch.randn(3, 16))
    flat = [x.probs.flatten(1).tolist() for x in (q, p)]
    torch.testing.assert_close(numbers(js(LAB, "kl", zip(*flat, strict=True))), q.kl(p), **SAME)


def test_a_face_is_drawn_where_the_sum_passes_the_random_number(run):
    probs = [0.1, 0.2, 0.3, 0.4] * 2
    (found,) = run("Fork", "draw", [(probs, [0.05, 0.65])])
    assert found == [1, 0, 0, 0, 0, 0, 0, 1]
    (found,) = run("Fork", "draw", [(probs, [0.11, 1.0])])
    assert found == [0, 1, 0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("world", ROWS)
@torch.no_grad()
def test_the_game_was_seen_by_the_same_model(world, run):
    """The memory along the recorded game, both in one go and tick by tick."""
    row, rssm = ROWS[world], model(world)["rssm"]
    embeds, actions = numbers(row["embeds"])[:, None], numbers(row["actions"])[:, None]
    s, pair = rssm.initial(1), dict(h=[0.0] * rssm.deter, z=[0.0] * rssm.latent.size)
    half = [0.5] * rssm.latent.groups
    for e, a in zip(embeds, actions, strict=True):
        h = rssm.recur(s, a)
        q = rssm.latent(rssm.post_params(h, e)).probs[0]
        z = torch.eye(q.shape[-1])[(q.cumsum(-1) <= 0.5).sum(-1)].flatten()[None]
        s = State(h, z)
        (pair,) = run(world, "advance", [(pair, a[0].tolist(), e[0].tolist(), half)])
        torch.testing.assert_close(numbers(pair["h"]), h[0], **SAME)
        torch.testing.assert_close(numbers(pair["q"]), q.flatten(), **SAME)
        assert pair["z"] == z[0].tolist()


def test_a_wrong_gate_is_noticed(run):
    parts = model("Fork")
    s, a = states(parts, 1), torch.zeros(1, 2)
    (found,) = run("Fork", "recur", [(dict(h=s.h[0].tolist(), z=s.z[0].tolist()), [0.0, 1.0])])
    with torch.no_grad():
        assert not torch.allclose(numbers(found), parts["rssm"].recur(s, a)[0], **SAME)


@pytest.fixture
def lab(browser):
    words = "two films of a game beside bars of prior and posterior"
    with mounted(browser, LAB, {"worlds": ROWS}, words) as tab:
        yield tab


def press(tab, name, times=1):
    """Press a button by keyboard and return what the lab says."""
    for _ in range(times):
        tab.get_by_role("button", name=name, exact=True).press("Enter")
    return tab.locator(".dl-said").inner_text()


def news(words):
    """The KL in a sentence."""
    return float(words.split("KL = ")[1].split(" nats")[0].replace("\u2212", "-"))


def test_the_turn_of_the_fork_is_news_and_nothing_after_it(lab):
    words = [press(lab, "To the start")] + [press(lab, "Observe") for _ in range(13)]
    assert words[0].startswith("Nothing has happened")
    costs = [news(w) for w in words[1:]]
    assert costs[7] > 0.4 and max(costs[2:7] + costs[8:]) < 0.4
    assert "The game is over" in words[-1]


def test_dreams_take_both_ways_and_stay_on_them(lab):
    ends = set()
    press(lab, "Observe", 4)  # to tick 6, the last before the fork
    for _ in range(12):
        press(lab, "Imagine to the end")
        label = lab.get_by_role("img", name="What the model believes").get_attribute("aria-label")
        ends.add(float(label.split("dot at ")[1].rstrip(".")) > 8)
        press(lab, "Back", 6)
    assert ends == {True, False}


def test_arrows_light_up_for_the_boxes_at_work(lab):
    drawing = lab.locator("svg[aria-label^='Which boxes']")
    press(lab, "Observe")
    assert "picture and posterior are used" in drawing.get_attribute("aria-label")
    press(lab, "Imagine")
    assert "picture and posterior are not" in drawing.get_attribute("aria-label")


def test_after_the_last_tick_only_the_way_back_is_open(lab):
    press(lab, "Imagine to the end")
    for name in ("Observe", "Imagine", "Imagine to the end"):
        button = lab.get_by_role("button", name=name, exact=True)
        assert button.get_attribute("aria-disabled") == "true"
    before = lab.locator(".dl-said").inner_text()
    assert press(lab, "Imagine") == before and press(lab, "Back") != before
