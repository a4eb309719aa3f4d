"""Settings: published sizes, one round trip through JSON, and differences by name."""

import json
from dataclasses import replace

import pytest
import tiny
import torch

from dreamer_lite.agent import Dreamer
from dreamer_lite.behavior import CriticConfig
from dreamer_lite.distributions import Categorical, Gaussian, TanhNormal, TruncNormal
from dreamer_lite.heads import (
    NormalHead,
    NormalPixelHead,
    NormalVectorHead,
    SymlogTwoHotHead,
)
from dreamer_lite.networks import (
    GRU,
    LayerNorm,
    NormGRU,
    StrideDecoder,
    StrideEncoder,
    down_stride,
    up_stride,
)
from dreamer_lite.optim import Adam, LaProp
from dreamer_lite.presets import (
    ATARI100K,
    PRESETS,
    SIZES,
    V1,
    V2,
    V2_DMC,
    V3,
    Optimizers,
    ReplayConfig,
    diff,
    from_dict,
    known,
    sized,
    to_dict,
)
from dreamer_lite.spaces import ActionSpec

WALKER = {"orientations": (14,), "height": (1,), "velocity": (9,)}
RGB, GRAY = {"image": (64, 64, 3)}, {"image": (96, 96, 1)}
SMALL_GRAY = {"image": (64, 64, 1)}
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
    kept = {k: part for k, part in parts.items() if part is not None}
    return {k: sum(p.numel() for p in part.parameters()) for k, part in kept.items()}


def with_continue(cfg, layers):
    return replace(cfg, model=replace(cfg.model, cont_scale=10.0, cont_layers=layers))


V1_PARTS = [690_144, 557_920, 3_795_555, 253_201, 578_412, 413_601]


@pytest.mark.parametrize(
    "cfg, obs, action, parts",
    [
        (sized(V3, "1m"), WALKER, SIX_JOINTS, [10112, 364416, 51096, 57663, 41153, 50316, 66111]),
        (ATARI100K, RGB, PONG, [220416, 5979648, 1272003, 721407, 656129, 789510, 853503]),
        (V1, RGB, SIX_JOINTS, V1_PARTS),
        (with_continue(V1, 3), RGB, SIX_JOINTS, [*V1_PARTS[:4], 413_601, *V1_PARTS[4:]]),
        (
            V2,
            SMALL_GRAY,
            PONG,
            [1549776, 5657648, 10497553, 1131601, 1131601, 1133606, 1131601],
        ),
        (V2_DMC, RGB, SIX_JOINTS, [1551312, 1247248, 9886611, 971601, 976012, 971601]),
    ],
    ids=[
        "V3, walker from joints",
        "V3, Pong from pixels",
        "V1, walker",
        "V1 with continue, walker",
        "V2, Pong",
        "V2, walker",
    ],
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


@pytest.mark.parametrize(
    "cfg, obs, action, totals",
    [
        (V1, RGB, SIX_JOINTS, (5_296_820, 578_412, 413_601)),
        (V2, SMALL_GRAY, PONG, (19_968_179, 1_133_606, 1_131_601)),
        (V2, SMALL_GRAY, ALL_BUTTONS, (19_975_379, 1_138_418, 1_131_601)),
        (V2_DMC, RGB, SIX_JOINTS, (13_656_772, 976_012, 971_601)),
    ],
)
def test_model_actor_and_critic_of_v1_and_v2_have_the_authors_sizes(cfg, obs, action, totals):
    with torch.device("meta"):
        agent = Dreamer(cfg, obs, action)
    found = {k: sum(p.numel() for p in o.params.values()) for k, o in agent.optimizers.items()}
    assert tuple(found[k] for k in ("model", "actor", "critic")) == totals


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


def test_the_difference_between_the_papers_reads_like_one():
    found = diff(V1, V2)
    assert found["model.cell"] == ("@GRU", "@NormGRU")
    assert found["model.kl.dyn"] == (1.0, 0.08) and found["model.kl.free"] == (3.0, 0.0)
    assert found["behavior.actor.rho"] == (0.0, 1.0)
    # V1 has no continue predictor and no slow critic, so it has no numbers for them.
    assert found["model.cont_layers"] == ("-", 4)
    assert found["behavior.critic.slow_every"] == ("-", 100)
    assert not {"model.units", "model.style.act", "behavior.lam", "optim.model.clip"} & set(found)
    sections = [path.rpartition(".")[0] for path in found]
    assert sections == sorted(sections, key=sections.index), "one section is torn apart"


def test_idle_fields_are_told_on_request():
    assert diff(V1, V2, idle=True)["behavior.critic.slow_every"] == (1, 100)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda: replace(V1.model, cont_layers=3), "cont_layers .* left at 1.* cont_scale = 0"),
        (lambda: CriticConfig(slow_regularizer=0.0, slow_every=9), "slow_every .* slow_target"),
        (lambda: ReplayConfig(ends=True), "ends must be left at False.* episodes is False"),
        (lambda: replace(V2.behavior.critic, slow_target=False), "slow_every must be left at 1"),
        (lambda: replace(V1.replay, latents=True), "episodes must be False beside latents"),
        (lambda: replace(V3, envs=0), "envs must be at least 1, got 0"),
        (lambda: replace(V3.replay, batch=0), "batch must be at least 1, got 0"),
    ],
)
def test_a_field_that_nothing_would_read_or_a_number_out_of_range_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        change()


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


def first_release_of_v3():
    """The pieces of arXiv v1 (2023) that are switches here; its learned initial state is not."""
    model = replace(
        V3.model,
        cell=NormGRU,
        head=SymlogTwoHotHead,
        kl=replace(V3.model.kl, dyn=0.5, rep=0.1),
        conv=replace(V3.model.conv, down=down_stride, up=up_stride),
        style=replace(V3.model.style, norm=LayerNorm),
    )
    actor = replace(V3.behavior.actor, rho=0.0, out_scale=1.0)  # continuous: through the model
    critic = replace(V3.behavior.critic, replay=0.0)
    optim = Optimizers(
        model=Adam(1e-4, clip=1000.0, eps=1e-8), actor=Adam(3e-5, eps=1e-5), critic=Adam(3e-5)
    )
    return replace(
        V3, model=model, behavior=replace(V3.behavior, actor=actor, critic=critic), optim=optim
    )


def test_the_pieces_of_the_first_release_of_v3_run_together_and_survive_a_file():
    cfg = first_release_of_v3()
    assert from_dict(json.loads(json.dumps(to_dict(cfg)))) == cfg
    agent = Dreamer(tiny.small(cfg), tiny.OBS, tiny.NUMBERS)
    _, metrics = agent.update(tiny.batch(tiny.NUMBERS))
    assert all(x.isfinite() for x in metrics.values()) and list(agent.optimizers) == [
        *("model", "actor", "critic")
    ]


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


def test_the_recipe_of_v1_is_that_of_the_authors():
    model, actor, critic, replay = V1.model, V1.behavior.actor, V1.behavior.critic, V1.replay
    assert (model.latent, model.cell, model.deter, model.hidden) == (Gaussian(30), GRU, 200, 200)
    assert (model.latent.min_std, model.latent.std) == (0.1, torch.nn.functional.softplus)
    assert (model.units, model.reward_layers, model.cont_scale) == (400, 2, 0.0)
    assert (model.head, model.image_head, model.vector_head) == (
        *(NormalHead, NormalPixelHead, NormalVectorHead),
    )
    assert (model.conv.depth, model.conv.mults, model.conv.act) == (32, (1, 2, 4, 8), torch.nn.ReLU)
    assert (model.conv.encoder, model.conv.decoder) == (StrideEncoder, StrideDecoder)
    assert (model.style.norm, model.style.act, model.out_scale) == (None, torch.nn.ELU, 1.0)
    assert (model.gamma, V1.behavior.lam, V1.behavior.horizon) == (0.99, 0.95, 15)
    assert (actor.layers, actor.rho, actor.eta, actor.normalize) == (4, 0.0, 0.0, False)
    assert (actor.continuous, actor.noise) == (TanhNormal(5.0, 1e-4, 5.0), 0.3)
    assert (critic.layers, critic.keeps_slow_copy, critic.replay) == (3, False, 0.0)
    rules = [Adam(lr, 100.0, 0.9, 0.999, 1e-7, 0.0) for lr in (6e-4, 8e-5, 8e-5)]
    assert [V1.optim.model, V1.optim.actor, V1.optim.critic] == rules
    assert (replay.batch, replay.length, replay.ratio, replay.pretrain) == (50, 50, 500.0, 100)
    assert (replay.episodes, replay.ends, replay.prefill, V1.envs) == (True, False, 2500, 1)


@pytest.mark.parametrize(
    "cfg, width, gamma, cont, rho, eta, rates, ratio, prefill, ends",
    [
        (V2, 600, 0.999, 5.0, 1.0, 1e-3, (2e-4, 4e-5, 1e-4), 50.0, 50_000, True),
        (V2_DMC, 200, 0.99, 0.0, 0.0, 1e-4, (3e-4, 8e-5, 8e-5), 160.0, 1000, False),
    ],
    ids=["Atari", "control"],
)
def test_the_recipe_of_v2_is_that_of_the_authors(
    cfg, width, gamma, cont, rho, eta, rates, ratio, prefill, ends
):
    model, actor, critic, replay = cfg.model, cfg.behavior.actor, cfg.behavior.critic, cfg.replay
    assert (model.latent, model.cell) == (Categorical(32, 32, unimix=0.0), NormGRU)
    assert (model.deter, model.hidden, model.gamma, model.cont_scale) == (width, width, gamma, cont)
    assert model.squash is (torch.tanh if cont else V3.model.squash)
    assert (model.units, model.reward_layers, model.vector_layers) == (400, 4, 4)
    assert (model.conv.depth, model.conv.act, model.head) == (48, torch.nn.ELU, NormalHead)
    assert (actor.layers, actor.rho, actor.eta, actor.normalize) == (4, rho, eta, False)
    assert (actor.continuous, actor.noise, actor.unimix) == (TruncNormal(0.1, 0.0), 0.0, 0.0)
    assert (critic.layers, critic.slow_every, critic.slow_mix) == (4, 100, 1.0)
    assert critic.slow_target and not critic.slow_regularizer and not critic.replay
    rules = [Adam(lr, 100.0, 0.9, 0.999, 1e-5, 1e-6) for lr in rates]
    assert [cfg.optim.model, cfg.optim.actor, cfg.optim.critic] == rules
    assert (replay.batch, replay.length, replay.capacity, cfg.envs) == (16, 50, 2_000_000, 1)
    assert (replay.ratio, replay.prefill, replay.ends) == (ratio, prefill, ends)
    assert replay.episodes and not replay.latents and not replay.online


@pytest.mark.parametrize(
    "small, paper", [("toy_v1", "v1"), ("toy_v2", "v2"), ("vector_v2", "v2_dmc")]
)
def test_small_versions_change_sizes_and_pace_and_no_formula(small, paper):
    changed = {path.split(".")[-1] for path in diff(PRESETS[paper], PRESETS[small])}
    formulas = {
        "cell",
        "per_step",
        "head",
        "image_head",
        "vector_head",
        "norm",
        "squash",
        "gamma",
    }
    assert not formulas & changed
    ours, papers = PRESETS[small].model.kl, PRESETS[paper].model.kl
    assert ours.dyn / ours.rep == papers.dyn / papers.rep and ours.free <= papers.free
    actor = {p for p in diff(PRESETS[paper], PRESETS[small]) if p.startswith("behavior.actor")}
    sizes_and_pace = {f"behavior.actor.{name}" for name in ("layers", "eta", "out_scale")}
    assert actor <= sizes_and_pace
