"""Checkpoints: complete or absent; the last good one survives whatever happens to the next."""

import errno
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from dreamer_lite import checkpoint, replay
from dreamer_lite.checkpoint import (
    compare_config,
    load,
    load_weights,
    restore_rng,
    rng_tensors,
    save,
    save_weights,
)


def tensors_of(step):
    return {
        "w": torch.full((3, 4), float(step)),
        "half": torch.tensor([1.5, float("inf")], dtype=torch.bfloat16),
        "count": torch.tensor(step),
        "mask": np.array([True, False]),
    }


def names(logdir):
    return sorted(path.name for path in (logdir / "checkpoints").iterdir())


def fails_with(error):
    def call(*_args, **_kwargs):
        raise error

    return call


def test_tensors_and_meta_come_back_exactly(tmp_path):
    meta = {"step": 7, "big": 2**100, "text": "λ", "x": 0.1, "numpy": np.float32(0.5), "none": None}
    folder = save(tmp_path, 7, tensors_of(7), meta)
    tensors, got, where = load(tmp_path)
    assert where == folder == tmp_path / "checkpoints/0000000007"
    assert got == meta
    for name, value in tensors_of(7).items():
        assert torch.equal(tensors[name], torch.as_tensor(value))
        assert tensors[name].dtype == torch.as_tensor(value).dtype


def test_tied_transposed_and_trained_tensors_can_be_saved(tmp_path):
    w = torch.arange(6.0).reshape(2, 3).requires_grad_()
    save(tmp_path, 1, {"a": w, "b": w, "c": w.T, "d": w[0]}, {})
    tensors = load(tmp_path)[0]
    assert torch.equal(tensors["c"], w.T) and torch.equal(tensors["b"], w)


def test_the_last_two_are_kept(tmp_path):
    for step in (10, 20, 30, 1_000):
        save(tmp_path, step, tensors_of(step), {})
    assert names(tmp_path) == ["0000000030", "0000001000"]
    assert load(tmp_path)[0]["count"] == 1000
    assert load(tmp_path, step=30)[0]["count"] == 30
    assert load(tmp_path / "checkpoints/0000000030")[0]["count"] == 30


def test_later_checkpoints_of_an_abandoned_future_go(tmp_path):
    for step in (10, 20):
        save(tmp_path, step, tensors_of(step), {})
    save(tmp_path, 15, tensors_of(15), {})
    assert names(tmp_path) == ["0000000010", "0000000015"]


def test_the_same_step_can_be_saved_again(tmp_path):
    save(tmp_path, 5, tensors_of(1), {})
    save(tmp_path, 5, tensors_of(2), {})
    assert names(tmp_path) == ["0000000005"]
    assert load(tmp_path)[0]["count"] == 2


def test_no_moment_of_a_second_save_of_a_step_is_without_a_checkpoint(tmp_path, monkeypatch):
    save(tmp_path, 5, tensors_of(1), {})
    real = checkpoint.os.replace

    def killed(source, target):
        if source.name == ".tmp-0000000005":
            raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 5, tensors_of(2), {})
    assert load(tmp_path)[0]["count"] == 1
    save(tmp_path, 6, tensors_of(3), {})
    assert load(tmp_path)[0]["count"] == 3


def test_extra_files_are_part_of_the_checkpoint(tmp_path):
    folder = save(tmp_path, 1, {}, {}, lambda tmp: (tmp / "more.txt").write_text("hello"))
    assert (folder / "more.txt").read_text() == "hello"
    (folder / "more.txt").write_text("hullo")
    with pytest.raises(ValueError, match="more.txt has changed"):
        load(folder)


# Killed in the middle


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()])
def test_an_exception_while_saving_leaves_the_last_good_one(tmp_path, error):
    save(tmp_path, 10, tensors_of(10), {})
    with pytest.raises(type(error)):
        save(tmp_path, 20, tensors_of(20), {}, fails_with(error))
    assert names(tmp_path) == ["0000000010"]
    assert load(tmp_path)[0]["count"] == 10


def test_a_kill_before_the_rename_leaves_the_last_good_one(tmp_path, monkeypatch):
    save(tmp_path, 10, tensors_of(10), {})
    with monkeypatch.context() as patch:  # a killed process cleans nothing up
        patch.setattr(checkpoint, "publish", fails_with(KeyboardInterrupt()))
        patch.setattr(checkpoint, "remove", lambda paths: None)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 20, tensors_of(20), {})
    assert names(tmp_path) == [".tmp-0000000020", "0000000010"]
    assert load(tmp_path)[0]["count"] == 10
    save(tmp_path, 20, tensors_of(21), {})
    assert names(tmp_path) == ["0000000010", "0000000020"]
    assert load(tmp_path)[0]["count"] == 21


def test_a_full_disk_is_said_and_harms_nothing(tmp_path, monkeypatch):
    save(tmp_path, 10, tensors_of(10), {})
    full = SafetensorError("Error while serializing: I/O error: No space left (os error 28)")
    with monkeypatch.context() as patch:
        patch.setattr(replay, "save_file", fails_with(full))
        with pytest.raises(OSError, match="no space left to save step 20.*intact") as caught:
            save(tmp_path, 20, tensors_of(20), {})
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(OSError, match="no space left"):
        save(tmp_path, 20, {}, {}, fails_with(OSError(errno.ENOSPC, "full")))
    with pytest.raises(PermissionError):
        save(tmp_path, 20, {}, {}, fails_with(PermissionError(errno.EACCES, "no")))
    assert names(tmp_path) == ["0000000010"]
    assert load(tmp_path)[0]["count"] == 10


# Damaged or foreign


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("harm", "name", "message"),
    [
        (cut, "tensors.safetensors", "bytes instead of"),
        (flip, "tensors.safetensors", "has changed"),
        (cut, "state.json", "cannot be read"),
        (lambda path: path.unlink(), "state.json", "cannot be read"),
        (lambda path: path.unlink(), "tensors.safetensors", "None bytes"),
    ],
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, harm, name, message):
    save(tmp_path, 10, tensors_of(10), {})
    harm(save(tmp_path, 20, tensors_of(20), {}) / name)
    with pytest.warns(UserWarning, match=f"0000000020/{name}.*{message}"):
        assert load(tmp_path)[0]["count"] == 10
    harm(tmp_path / "checkpoints/0000000010" / name)
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="no complete checkpoint in"):
        load(tmp_path)


def test_an_empty_folder_and_a_missing_step_are_named(tmp_path):
    with pytest.raises(ValueError, match="no checkpoint in"):
        load(tmp_path)
    save(tmp_path, 1, {}, {})
    with pytest.raises(ValueError, match="no checkpoint of step 2 in"):
        load(tmp_path, step=2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"format": "other"}, "state.json is not a dreamer_lite checkpoint"),
        ([1], "state.json is not a dreamer_lite checkpoint"),
        ({"format": checkpoint.FORMAT, "version": 99}, "version 99.*install the version"),
        ({"format": checkpoint.FORMAT}, "version None"),
    ],
)
def test_a_foreign_checkpoint_is_refused_not_passed_over(tmp_path, content, message):
    save(tmp_path, 1, {}, {})
    folder = save(tmp_path, 2, {}, {})
    (folder / "state.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_loading_changes_nothing_on_disk(tmp_path):
    save(tmp_path, 1, {}, {})
    (tmp_path / "checkpoints/.tmp-0000000002").mkdir()  # of a run that saves right now
    load(tmp_path)
    assert names(tmp_path) == [".tmp-0000000002", "0000000001"]


def test_meta_that_json_cannot_hold_is_refused(tmp_path):
    with pytest.raises(TypeError, match="meta must hold"):
        save(tmp_path, 1, {}, {"x": object()})
    assert names(tmp_path) == []


# Settings and random numbers


def test_changed_settings_are_listed_by_their_dotted_names():
    stored = {"seed": 1, "kl": {"dyn": 1.0, "free": 1.0}, "shape": [1, 2], "old": 3, "empty": {}}
    compare_config(stored, stored | {"shape": (1, 2)})
    now = {"seed": 1, "kl": {"dyn": 0.5, "free": 1.0}, "shape": (1, 3), "new": True, "empty": {}}
    with pytest.raises(ValueError) as caught:
        compare_config(stored, now)
    lines = str(caught.value).splitlines()
    assert lines[1:-1] == [
        "  kl.dyn: 1.0 -> 0.5",
        "  new: absent -> True",
        "  old: 3 -> absent",
        "  shape: [1, 2] -> [1, 3]",
    ]
    assert "choose a new logdir" in lines[-1]


def test_random_numbers_go_on_after_a_restart(tmp_path):
    torch.manual_seed(3)
    save(tmp_path, 1, rng_tensors(), {})
    expected = torch.rand(4)
    torch.manual_seed(9)
    restore_rng(load(tmp_path)[0])
    assert torch.equal(torch.rand(4), expected)


# Sharing


def test_shared_weights_are_half_precision_on_disk_and_float32_when_read(tmp_path):
    torch.manual_seed(0)
    weights = {"a": torch.randn(64, 64), "bins": torch.tensor([4.85e8]), "n": torch.tensor(3)}
    (file,) = save_weights(tmp_path, weights, {"size": "1m"})
    assert file.name == "agent.safetensors" and file.stat().st_size < 64 * 64 * 2 + 1000
    for path in (tmp_path, file):
        tensors, config = load_weights(path)
        assert config == {"size": "1m"}
        assert torch.equal(tensors["a"], weights["a"].half().float())
        assert torch.equal(tensors["bins"], weights["bins"])  # would overflow half precision
        assert tensors["n"].dtype == torch.int64 and tensors["a"].dtype == torch.float32
    save_weights(tmp_path, weights, {}, dtype=None)
    assert torch.equal(load_weights(tmp_path)[0]["a"], weights["a"])


def test_large_agents_are_split_below_the_limit(tmp_path):
    weights = {f"w{i}": torch.full((100, 100), float(i)) for i in range(20)}
    files = save_weights(tmp_path, weights, {"k": 1}, limit=150_000)
    assert [file.name for file in files] == [
        f"agent-0000{i}-of-00005.safetensors" for i in range(1, 6)
    ]
    assert all(file.stat().st_size < 150_000 for file in files)
    for path in (tmp_path, tmp_path / "index.json"):
        tensors, config = load_weights(path)
        assert config == {"k": 1} and tensors.keys() == weights.keys()
        assert all(torch.equal(tensors[name], weights[name]) for name in weights)
    files[2].unlink()
    with pytest.raises(ValueError, match="agent-00003-of-00005.safetensors cannot be read"):
        load_weights(tmp_path)
    save_weights(tmp_path, {"w": torch.ones(2)}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["agent.safetensors"]


def test_a_tensor_larger_than_a_shard_is_refused(tmp_path):
    with pytest.raises(ValueError, match="tensor w has 20000 bytes"):
        save_weights(tmp_path, {"w": torch.zeros(100, 100)}, {}, limit=80_000)


def test_a_file_that_is_no_agent_is_refused(tmp_path):
    folder = save(tmp_path, 1, tensors_of(1), {})
    shutil.copy(folder / "tensors.safetensors", tmp_path / "agent.safetensors")
    with pytest.raises(ValueError, match="not a dreamer_lite agent"):
        load_weights(tmp_path)
    with pytest.raises(ValueError, match="cannot be read"):
        load_weights(tmp_path / "nowhere")
