"""Experiments with a world model alone: what they train on, and what is kept of them."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import dreamer_lite.toys  # noqa: F401 (registers the environments)
from dreamer_lite import study
from dreamer_lite.presets import PRESETS

CATCH = "dreamer_lite/FlickerCatch-v0"


@pytest.fixture(scope="module")
def data():
    return study.random_play(CATCH, 800, seed=3)


@pytest.fixture(scope="module")
def fitted(data):
    return study.fit(PRESETS["toy"].model, data, 20, batch=4, length=8, every=10)


def test_random_play_has_the_steps_asked_for_and_the_reward_of_random_actions(data):
    assert len(data) == 800
    rows = data.sample(90, 8).sequence
    assert set(rows.reward.unique().tolist()) == {-1.0, 0.0, 1.0}
    assert rows.is_first.any(0).all()  # every stream begins an episode now and then


def test_fitting_lowers_the_reconstruction_error_and_reports_means(fitted):
    first, last = fitted.curve
    assert (first["update"], last["update"]) == (10, 20)
    assert last["loss/obs/image"] < first["loss/obs/image"]


def test_the_same_seed_fits_the_same_model(data):
    def curve(seed):
        data.rng = np.random.default_rng(0)
        return study.fit(PRESETS["toy"].model, data, 4, batch=2, length=4, seed=seed, every=2).curve

    assert curve(0) == curve(0) != curve(1)


def test_dreams_have_a_frame_per_step_sample_and_sequence(fitted, data):
    rows = study.episodes(data, 10)
    assert rows.reward.shape[0] == 10 and not rows.is_first[1:].any()
    frames, reward = study.dream(fitted.model, rows, context=4, samples=3)
    n = rows.reward.shape[1]
    assert frames.shape == (6, 3, n, 16, 16, 1) and reward.shape == (6, 3, n)
    assert 0 <= frames.min() and frames.max() <= 1


def test_an_experiment_is_read_back_and_made_only_in_the_full_profile(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="must be an experiment in .*, got 'x'; .*BOOK_PROFILE"):
        study.recorded("x", lambda: [], tmp_path)
    monkeypatch.setenv("BOOK_PROFILE", "full")
    rows = [{"seed": 0, "kl": 1.5}, {"seed": 1, "kl": 2.5}]
    assert study.recorded("x", lambda: rows, tmp_path) == rows
    monkeypatch.setenv("BOOK_PROFILE", "quick")
    assert study.recorded("x", lambda: 1 / 0, tmp_path) == rows
    record = json.loads((tmp_path / "x.json").read_text())
    assert {"commit", "versions", "hardware", "minutes", "threads"} <= record.keys()


def test_the_loss_weighs_reconstruction_as_the_settings_say():
    losses = {"obs/image": torch.tensor(1.0), "kl": torch.tensor(2.0)}
    assert study.total(losses, replace(PRESETS["toy"].model, obs_scale=16.0)) == 18.0
