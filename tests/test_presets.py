"""Settings: published sizes, one round trip through JSON, and differences by name."""

import json
from dataclasses import replace

import pytest
import tiny
import torch

from dreamer_lite.agent import Dreamer
from dreamer_lite.optim import LaProp
from dreamer_lite.presets import (
    ATARI100K,
    PRESETS,
    SIZES,
    V3,
    diff,
    from_dict,
    known,
    sized,
    to_dict,
)
from dreamer_lite.spaces import ActionSpec

WALKER = {"orientations": (14,), "height": (1,), "velocity": (9,)}
RGB, GRAY = {"image": (64, 64, 3)}, {"image": (96, 96, 1)}
PONG, ALL_BUTTONS, CRAFTER = (ActionSpec(discrete=(n,)) for n in (6, 18, 17))
SIX_JOINTS = ActionSpec(continuous=6)


def sizes_of(cfg, obs, action):
    """Parameters per part, without the slow critic; nothing is allocated."""
    with torch.device("meta"):
        agent = Dreamer(cfg, obs, action)
    model, behavior = agent.world_model, agent.behavior
    parts = {
        "enc": model.encoder,
        "dyn": model.rssm,
        "dec": model.decoder,
        "rew": model.reward_net,
        "con": model.cont_net,
        "pol": behavior.policy,
        "val": behavior.critic,
    }
    return {k: sum(p.numel() for p in part.parameters()) for k, part in parts.items()}


@pytest.mark.parametrize(
    "cfg, obs, action, parts",
    [
        (sized(V3, "1m"), WALKER, SIX_JOINTS, [10112, 364416, 51096, 57663, 41153, 50316, 66111]),
        (ATARI100K, RGB, PONG, [220416, 5979648, 1272003, 721407, 656129, 789510, 853503]),
    ],
    ids=["walker from joints", "Pong from pixels"],
)
def test_every_part_has_the_size_of_the_authors_part(cfg, obs, action, parts):
    found = sizes_of(cfg, obs, action)
    assert list(found.values()) == parts, found


@pytest.mark.parametrize(
    "size, obs, action, total",
    [
        ("1m", WALKER, SIX_JOINTS, 640_867),
        ("1m", RGB, PONG, 686_456),
        ("1m", RGB, SIX_JOINTS, 686_846),
        ("12m", RGB, PONG, 10_492_616),
        ("12m", RGB, CRAFTER, 10_498_259),
        ("12m", RGB, SIX_JOINTS, 10_494_158),
        ("25m", RGB, PONG, 23_487_016),
        ("50m", RGB, PONG, 41_646_984),
        ("100m", RGB, PONG, 93_463_624),
        ("200m", RGB, PONG, 165_942_536),
        ("200m", GRAY, ALL_BUTTONS, 186_936_082),
        ("400m", RGB, PONG, 372_887_176),
    ],
)
def test_sizes_are_those_of_the_authors(size, obs, action, total):
    assert sum(sizes_of(sized(V3, size), obs, action).values()) == total


def test_the_default_is_the_size_200m():
    assert sized(V3, "200m") == V3


def test_a_size_changes_widths_and_nothing_else():
    names = {"deter", "hidden", "units", "latent.classes", "conv.depth"}
    assert set(diff(V3, sized(V3, "12m"))) == {f"model.{name}" for name in names}


def test_unknown_sizes_are_refused_with_the_list():
    with pytest.raises(ValueError, match="size must be one of tiny, 1m, .*, got 'huge'"):
        sized(V3, "huge")


@pytest.mark.parametrize("name", PRESETS)
def test_settings_survive_a_json_file(name):
    text = json.dumps(to_dict(PRESETS[name]))
    assert from_dict(json.loads(text)) == PRESETS[name]


@pytest.mark.parametrize("size", SIZES)
def test_every_size_survives_a_json_file(size):
    assert from_dict(json.loads(json.dumps(to_dict(sized(V3, size))))) == sized(V3, size)


def test_an_unknown_field_is_refused_by_name():
    data = to_dict(V3)
    data["model"]["kl"]["forward"] = True
    with pytest.raises(ValueError, match="KL has no field forward; .* another version"):
        from_dict(data)


def test_a_field_younger_than_the_file_takes_its_default():
    data = to_dict(V3)
    del data["model"]["obs_scale"]
    assert from_dict(data) == V3


@pytest.mark.parametrize("value", [{"type": "system"}, "@system", {"no type": 1}])
def test_a_settings_file_may_name_only_what_is_listed(value):
    with pytest.raises(ValueError, match="expected one of .*BlockGRU.*"):
        from_dict(value)


def test_functions_and_classes_go_by_name():
    assert to_dict(V3)["model"]["cell"] == "@BlockGRU"
    assert known("BlockGRU") is V3.model.cell


def test_equal_settings_do_not_differ():
    assert diff(V3, replace(V3)) == {}


def test_differences_are_told_with_their_path_and_both_values():
    other = replace(V3, optim=replace(V3.optim, model=LaProp(lr=1e-3)), envs=1)
    assert diff(V3, other) == {"optim.model.lr": (4e-5, 1e-3), "envs": (16, 1)}


def test_a_piece_of_another_kind_differs_in_its_fields():
    other = replace(V3, optim=replace(V3.optim, actor=LaProp()))
    assert diff(V3, other)["optim.actor.lr"] == ("-", 4e-5)


@pytest.mark.parametrize("spec", tiny.ACTIONS.values(), ids=tiny.ACTIONS)
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_learns_from_a_batch(name, spec):
    cfg = PRESETS[name]
    cfg = replace(cfg, behavior=replace(cfg.behavior, horizon=2))
    small = replace(cfg.model, deter=32, hidden=8, units=8, conv=replace(cfg.model.conv, depth=2))
    agent = Dreamer(replace(cfg, model=small), tiny.OBS, spec)
    for _ in range(2):
        states, metrics = agent.update(tiny.batch(spec, time=3, size=2))
    assert all(x.isfinite() for x in metrics.values()) and states.feat.isfinite().all()


def test_the_recipe_of_v3_is_that_of_the_authors():
    actor, critic, replay = V3.behavior.actor, V3.behavior.critic, V3.replay
    assert (actor.layers, actor.rho, actor.eta, actor.normalize) == (3, 1.0, 3e-4, True)
    assert actor.unimix == 0.01  # published; the authors' current code has lost it
    assert (critic.layers, critic.replay, critic.slow_regularizer) == (3, 0.3, 1.0)
    assert (critic.slow_mix, critic.slow_every, critic.slow_target) == (0.02, 1, False)
    assert (V3.behavior.horizon, V3.behavior.lam) == (15, 0.95)
    assert V3.optim.model == LaProp(4e-5, 0.3, 0.9, 0.999, 1e-20, 1000)
    assert V3.optim.actor is None and V3.optim.critic is None  # one optimizer moves everything
    assert (replay.batch, replay.length, replay.ratio, replay.capacity) == (16, 64, 32.0, 5_000_000)
