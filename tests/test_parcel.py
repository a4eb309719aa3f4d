"""Parcel: a run arrives as it left, and what is not one of ours leaves no trace."""

import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from dreamer_lite import checkpoint, parcel, parts
from dreamer_lite.distributions import Categorical
from dreamer_lite.logger import read_metrics
from dreamer_lite.presets import TOY
from dreamer_lite.training import load_run, train

ENV = "dreamer_lite/MiniPong-v0"
SMALL = replace(
    TOY,
    envs=2,
    model=replace(TOY.model, deter=16, hidden=8, units=8, latent=Categorical(2, 3, unimix=0.01)),
    behavior=replace(TOY.behavior, horizon=3),
    replay=replace(TOY.replay, length=8, batch=4, warmup=64, ratio=4.0, capacity=240),
)


def go(logdir, steps, cfg=SMALL):
    return train(cfg, ENV, steps, logdir, device="cpu", log_every=100, progress=False)


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """A run whose replay has begun to forget, before and after the journey, and the parcel."""
    root = tmp_path_factory.mktemp("parcel")
    go(root / "here", 300)
    parcel.pack(root / "here", root / "run.zip")
    parcel.unpack(root / "run.zip", root / "there")
    return root


def both(root):
    return [checkpoint.load(root / name) for name in ("here", "there")]


def test_weights_moments_counters_and_random_states_arrive(moved):
    (tensors, meta, _), (arrived, new, _) = both(moved)
    assert tensors.keys() == arrived.keys()
    assert all(torch.equal(x, arrived[name]) for name, x in tensors.items())
    assert new["run"].pop("unpacked_at") == 300
    assert new == meta


def replays(root):
    return [parts.whole(root / d, checkpoint.load(root / d)[2]) for d in ("here", "there")]


def test_the_rows_that_were_left_arrive_in_order(moved):
    here, there = replays(moved)
    assert (here.total, here.size, there.total) == (150, 120, 120), "30 rows had been overwritten"
    order = np.arange(30, 150) % 120
    for name, column in here.rows.items():
        assert np.array_equal(column[order], there.rows[name]), name


def test_the_queue_of_unseen_rows_and_the_random_state_arrive(moved):
    here, there = replays(moved)
    assert there.fresh.tolist() == [max(0, first - 30) for first in here.fresh]
    assert there.rng.bit_generator.state == here.rng.bit_generator.state


def test_latents_are_what_the_world_model_sees_in_the_rows(moved):
    _, there = replays(moved)
    agent, _ = load_run(moved / "there")
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        rows = parcel.window(there, np.arange(120))
        states, _ = agent.world_model.observe(rows, None)
    assert np.array_equal(there.latents["h"][:120], states.h.half().numpy())
    classes = states.z.unflatten(-1, (2, 3)).argmax(-1)
    assert np.array_equal(there.latents["z"][:120], classes.numpy())


def test_the_diary_and_the_milestones_arrive(moved):
    here, there = moved / "here", moved / "there"
    assert read_metrics(here) == read_metrics(there)
    files = sorted(p.relative_to(here) for p in here.glob("milestones/*/*"))
    assert files and all((here / f).read_bytes() == (there / f).read_bytes() for f in files)
    assert json.loads((there / "run.json").read_text())["unpacked_at"] == 300


def test_training_goes_on_where_it_stopped(moved):
    go(moved / "there", 340)
    record = json.loads((moved / "there" / "run.json").read_text())
    assert (record["status"], record["step"], record["unpacked_at"]) == ("complete", 340, 300)
    assert load_run(moved / "there")[1]["step"] == 340


def test_a_run_without_latents_travels_too(tmp_path):
    cfg = replace(SMALL, replay=replace(SMALL.replay, latents=False))
    go(tmp_path / "here", 100, cfg)
    parcel.pack(tmp_path / "here", tmp_path / "run.zip")
    assert parcel.unpack(tmp_path / "run.zip", tmp_path / "there") == 100
    assert parts.whole(tmp_path / "there", *both(tmp_path)[1][2:]).latents == {}


def test_a_folder_that_is_not_empty_is_left_alone(moved, tmp_path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(ValueError, match="not empty"):
        parcel.unpack(moved / "run.zip", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_an_empty_folder_is_used(moved, tmp_path):
    (tmp_path / "run").mkdir()
    parcel.unpack(moved / "run.zip", tmp_path / "run")
    assert (tmp_path / "run" / "run.json").exists()


def changed(source, target, **contents):
    """A copy of a zip file with some of its entries replaced or added."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, contents.pop(name, old.read(name)))
        for name, content in contents.items():
            new.writestr(name, content)


def test_what_is_not_ours_leaves_no_trace(moved, tmp_path):
    (tmp_path / "text.zip").write_text("not a zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
        other.writestr("readme", "a zip, but no parcel")
    newer = json.dumps({"format": parcel.FORMAT, "version": 99})
    changed(moved / "run.zip", tmp_path / "newer.zip", **{"parcel.json": newer})
    changed(moved / "run.zip", tmp_path / "broken.zip", **{"rows.npz": b"no rows"})
    names = sorted(path.name for path in tmp_path.iterdir())
    for name in names:
        with pytest.raises(ValueError):
            parcel.unpack(tmp_path / name, tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_a_damaged_parcel_is_found(moved, tmp_path):
    data = bytearray((moved / "run.zip").read_bytes())
    with zipfile.ZipFile(moved / "run.zip") as zipped:
        data[zipped.getinfo("tensors.safetensors").header_offset + 5000] ^= 255
    (tmp_path / "run.zip").write_bytes(data)
    with pytest.raises(ValueError, match="tensors.safetensors in .* is damaged"):
        parcel.unpack(tmp_path / "run.zip", tmp_path / "run")


def test_a_parcel_writes_nothing_beside_its_run_folder(moved, tmp_path):
    evil = {"../evil": "x", "milestones/../../evil": "x", "milestones/7/../../evil": "x"}
    changed(moved / "run.zip", tmp_path / "run.zip", **evil)
    parcel.unpack(tmp_path / "run.zip", tmp_path / "sub" / "run")
    assert not list(tmp_path.rglob("*evil*"))


def test_a_parcel_that_cannot_be_written_leaves_the_old_one(moved, tmp_path, monkeypatch):
    path = tmp_path / "run.zip"
    path.write_text("the parcel of yesterday")

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(parcel, "pack_rows", full)
    with pytest.raises(OSError, match="no space"):
        parcel.pack(moved / "here", path)
    assert path.read_text() == "the parcel of yesterday"
    assert [p.name for p in tmp_path.iterdir()] == ["run.zip"]
