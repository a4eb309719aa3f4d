"""Replay: what goes in comes out, in order, from one stream, and again after a restart."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dreamer_lite import replay as module
from dreamer_lite.envs import Row
from dreamer_lite.presets import LAPTOP, V3, sized
from dreamer_lite.replay import (
    LatentSpec,
    Replay,
    check_memory,
    nbytes,
    pack_rows,
    prune,
    unpack_rows,
)
from dreamer_lite.rssm import State
from dreamer_lite.training import latent_spec

OBS = {"image": (4, 4, 1), "vector": (2,)}
LATENT = LatentSpec(deter=3, groups=2, classes=5)
ACTIONS = 2


def row_of(t, streams, first=()):
    """Every column tells the row's number t and its stream."""
    stream = np.arange(streams)
    image = np.full((streams, 4, 4, 1), t % 256, np.uint8)
    image[:, 0, 0, 0] = stream
    vector = np.stack([np.full(streams, t), stream], -1).astype(np.float32)
    action = np.stack([np.full(streams, t - 0.5), stream], -1).astype(np.float32)
    is_first = np.isin(stream, first)
    reward = (10 * t + stream).astype(np.float32)
    return Row({"image": image, "vector": vector}, action, reward, ~is_first, is_first)


def state_of(t, streams):
    """h tells the row's number, z a class that depends on it."""
    classes = torch.full((streams, LATENT.groups), t % LATENT.classes)
    z = torch.nn.functional.one_hot(classes, LATENT.classes).flatten(1).float()
    return State(torch.full((streams, LATENT.deter), float(t)), z)


def filled(steps, *, capacity=40, streams=2, latent=None, episode=7, **kwargs):
    replay = Replay(capacity, streams, OBS, ACTIONS, latent=latent, **kwargs)
    extend(replay, steps, episode)
    return replay


def extend(replay, steps, episode=7):
    for t in range(replay.total, replay.total + steps):
        first = range(replay.streams) if t % episode == 0 else ()
        state = state_of(t, replay.streams) if replay.latent else None
        replay.add(row_of(t, replay.streams, first), state)


def same(a, b):
    flat_a = [*a.sequence.obs.values(), *a.sequence[1:], *(a.start or ())]
    flat_b = [*b.sequence.obs.values(), *b.sequence[1:], *(b.start or ())]
    return all(torch.equal(x, y) for x, y in zip(flat_a, flat_b, strict=True))


# Windows


@pytest.mark.parametrize("latent", [None, LATENT])
@pytest.mark.parametrize("online", [True, False])
def test_windows_are_consecutive_and_from_one_stream_after_wrap_around(latent, online):
    replay = filled(0, latent=latent, online=online)
    for _ in range(47):  # past the ring's end at 20 rows per stream, twice
        extend(replay, 1)
        if not replay.can_sample(5):
            continue
        seq, start, where = replay.sample(5, 8)
        times, stream = seq.obs["vector"].unbind(-1)
        assert torch.equal(times, times[0] + torch.arange(5.0)[:, None].expand(5, 8))
        assert (stream == stream[0]).all()
        assert times.min() >= replay.oldest and times.max() < replay.total
        assert np.array_equal(where.rows, times.numpy())
        assert np.array_equal(where.stream, stream[0].numpy())
        if latent:
            assert torch.equal(start.h[:, 0], times[0] - 1)


def test_all_columns_of_a_row_stay_together():
    replay = filled(30)
    seq, _, where = replay.sample(6, 16)
    t, stream = torch.from_numpy(where.rows), torch.from_numpy(where.stream).expand(6, 16)
    assert torch.equal(seq.obs["image"][..., 1, 1, 0], t.to(torch.uint8))
    assert torch.equal(seq.obs["image"][..., 0, 0, 0], stream.to(torch.uint8))
    assert torch.equal(seq.prev_action[..., 0], t - 0.5)
    assert torch.equal(seq.reward, (10 * t + stream).float())
    assert torch.equal(seq.cont, t % 7 != 0)
    assert torch.equal(seq.is_first[1:], (t % 7 == 0)[1:])


def test_every_break_between_episodes_is_marked_first_when_streams_differ():
    replay, age = Replay(60, 3, OBS, ACTIONS, latent=LATENT), np.zeros(3, int)
    rng = np.random.default_rng(0)
    for _ in range(45):  # vector[0] counts within the episode, so a break is a jump
        row = row_of(0, 3)
        row.obs["vector"][:, 0] = age
        replay.add(row._replace(is_first=age == 0), state_of(0, 3))
        age = np.where(rng.random(3) < 0.2, 0, age + 1)
    seq = replay.sample(8, 200).sequence
    count, stream = seq.obs["vector"].unbind(-1)
    assert torch.equal(seq.is_first[1:], count[1:] != count[:-1] + 1)
    assert torch.equal(stream, stream[:1].expand(8, 200))


def test_without_latents_the_first_row_reads_as_a_reset_but_memory_is_untouched():
    replay = filled(20, episode=1000)
    seq, start, _ = replay.sample(4, 32)
    assert start is None
    assert seq.is_first[0].all() and not seq.is_first[1:].any()
    assert replay.rows["is_first"].sum() == replay.streams


def test_with_latents_the_first_row_is_not_forced():
    replay = filled(20, latent=LATENT, episode=1000)
    assert not replay.sample(4, 32).sequence.is_first.any()


def test_short_episodes_produce_batches():
    seq = filled(20, episode=2).sample(15, 4).sequence
    assert seq.is_first.sum() >= 7 * 4


@pytest.mark.parametrize(("latent", "starts"), [(None, 16), (LATENT, 15)])
def test_starts_are_uniform_over_rows_and_streams(latent, starts):
    replay = filled(33, latent=latent, online=False)
    draws = 400 * starts * 2
    where = replay.sample(5, draws).where
    first = where.rows[0] - replay.oldest - replay.context
    counts = np.bincount(first * 2 + where.stream, minlength=2 * starts)
    assert len(counts) == 2 * starts  # the last start is drawn too
    chi2, freedom = ((counts - 400) ** 2 / 400).sum(), 2 * starts - 1
    assert abs(chi2 - freedom) < 4 * np.sqrt(2 * freedom)


# Windows inside one episode (V1, V2)


INSIDE = {"online": False, "episodes": True}


def test_windows_inside_an_episode_cross_no_end_even_after_wrap_around():
    replay = filled(0, **INSIDE)
    for _ in range(47):
        extend(replay, 1)
        if not replay.can_sample(4):
            continue
        seq, start, where = replay.sample(4, 32)
        assert start is None and seq.is_first[0].all() and not seq.is_first[1:].any()
        times = torch.from_numpy(where.rows)
        assert torch.equal(seq.obs["vector"][..., 0], times.float())
        assert torch.equal(times, times[0] + torch.arange(4)[:, None].expand(4, 32))
        assert (times // 7 == times[0] // 7).all()  # an episode has seven rows
        assert times.min() >= replay.oldest and times.max() < replay.total


def test_episodes_are_drawn_alike_however_long_they_are_and_starts_alike_inside():
    replay = Replay(200, 1, OBS, ACTIONS, seed=1, **INSIDE)
    for t in range(60):  # episodes of 10 and 50 rows, windows of 8: 3 and 43 starts
        replay.add(row_of(t, 1, [0] if t in (0, 10) else []))
    first = replay.sample(8, 60_000).where.rows[0]
    counts = np.bincount(first, minlength=60)
    expected = np.zeros(60)
    expected[:3], expected[10:53] = 30_000 / 3, 30_000 / 43
    assert (counts[expected == 0] == 0).all()
    chi2 = ((counts - expected) ** 2 / np.maximum(expected, 1))[expected > 0].sum()
    assert chi2 < 85  # 45 degrees of freedom, one in two thousand


def test_the_last_window_of_an_episode_is_drawn_more_often_on_request():
    replay = Replay(400, 1, OBS, ACTIONS, ends=True, **INSIDE)
    for t in range(201):  # one episode of 200 steps
        replay.add(row_of(t, 1, [0] if t == 0 else []))
    first = replay.sample(50, 100_000).where.rows[0]
    assert (first == 151).mean() == pytest.approx(51 / 202, abs=0.005)
    assert (first == 0).mean() == pytest.approx(1 / 202, abs=0.001)


def test_short_episodes_are_never_seen_and_the_running_one_counts():
    replay = filled(14, episode=7, streams=1, **INSIDE)
    assert replay.can_sample(7) and not replay.can_sample(8)
    with pytest.raises(ValueError, match="length 8 but the longest episode has 7 steps"):
        replay.sample(8, 1)
    replay = filled(10, episode=50, streams=1, **INSIDE)
    assert replay.can_sample(10) and not replay.can_sample(11)


def test_windows_inside_episodes_do_not_go_with_latents_or_the_queue():
    for kwargs in ({"online": True}, {"online": False, "latent": LATENT}):
        with pytest.raises(ValueError, match="episodes=True needs online=False and latent=None"):
            Replay(40, 2, OBS, ACTIONS, episodes=True, **kwargs)


def test_same_seed_gives_the_same_windows_and_another_seed_does_not():
    a, b, c = (filled(20, seed=seed, online=False) for seed in (1, 1, 2))
    draws = [x.sample(4, 16).where.rows for x in (a, b, c)]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


# Online queue


@pytest.mark.parametrize("latent", [None, LATENT])
def test_online_windows_come_first_and_cover_every_row_once(latent):
    replay = filled(20, latent=latent)
    context = replay.context
    whole = (20 - context) // 4
    where = replay.sample(4, 2 * whole).where
    for stream in range(2):
        rows = np.sort(where.rows[:, where.stream == stream].ravel())
        assert rows.tolist() == list(range(context, context + 4 * whole))


def test_online_queue_is_oldest_first_and_a_window_waits_until_it_is_complete():
    replay = filled(4, latent=LATENT)
    assert replay._queued(4, 8) == []
    extend(replay, 1)
    assert replay._queued(4, 8) == [(0, 0), (0, 1)]
    extend(replay, 8)
    assert replay._queued(4, 3) == [(4, 0), (4, 1), (8, 0)]
    assert replay._queued(4, 3) == [(8, 1)]


def test_online_queue_drops_what_the_ring_has_overwritten():
    replay = filled(75)
    where = replay.sample(5, 8).where
    assert sorted(where.rows[0]) == [55, 55, 60, 60, 65, 65, 70, 70]


def test_reports_leave_the_online_queue_alone():
    replay = filled(20)
    before = replay.fresh.copy()
    replay.sample(4, 8, fresh=False)
    assert np.array_equal(replay.fresh, before)
    replay.sample(4, 8)
    assert not np.array_equal(replay.fresh, before)


# Latents


def test_start_is_the_latent_of_the_context_row_and_write_back_spares_that_row():
    replay = filled(10, streams=1, capacity=20, latent=LATENT, online=False)
    while True:
        _, start, where = replay.sample(4, 1)
        if where.rows[0, 0] == 4:
            break
    assert torch.equal(start.h, torch.full((1, 3), 3.0))
    assert torch.equal(start.z.unflatten(-1, (2, 5)).argmax(-1), torch.full((1, 2), 3))
    assert torch.equal(start.z.unflatten(-1, (2, 5)).sum(-1), torch.ones(1, 2))

    z = torch.nn.functional.one_hot(torch.full((4, 1, 2), 1), 5).flatten(-2).float()
    replay.write_back(where, State(torch.full((4, 1, 3), 99.0, requires_grad=True), z))
    h, z = replay.latents["h"][:, 0, 0], replay.latents["z"][:, 0, 0]
    assert h[:10].tolist() == [0, 1, 2, 3, 99, 99, 99, 99, 8, 9]
    assert z[:10].tolist() == [0, 1, 2, 3, 1, 1, 1, 1, 3, 4]


def test_write_back_reaches_the_stream_it_came_from():
    replay = filled(10, latent=LATENT)
    for stream in (0, 1):  # the online queue takes turns
        where = replay.sample(3, 1).where
        assert where.stream == [stream]
        mark = -1.0 - stream
        replay.write_back(where, State(torch.full((3, 1, 3), mark), torch.zeros(3, 1, 10)))
        changed = replay.latents["h"][..., 0] == mark
        assert changed[1:4, stream].all() and changed.sum() == 3


def test_write_back_ignores_rows_evicted_in_the_meantime():
    replay = filled(20, latent=LATENT)
    where = replay.sample(4, 2).where  # rows 1..4 of both streams
    extend(replay, 3)  # rows 0..2 are gone, their places belong to rows 20..22
    replay.write_back(where, State(torch.full((4, 2, 3), -1.0), torch.zeros(4, 2, 10)))
    h = replay.latents["h"][:, 0, 0]
    assert h[:5].tolist() == [20, 21, 22, -1, -1]
    extend(replay, 30)
    before = replay.latents["h"].copy()
    replay.write_back(where, State(torch.full((4, 2, 3), -1.0), torch.zeros(4, 2, 10)))
    assert np.array_equal(replay.latents["h"], before)


def test_write_back_without_latents_does_nothing():
    replay = filled(10)
    replay.write_back(replay.sample(3, 2).where, State(torch.zeros(1), torch.zeros(1)))


# What is kept


def test_bytes_and_floats_come_back_exactly():
    rng, replay = np.random.default_rng(0), Replay(16, 2, OBS, ACTIONS, online=False)
    kept = []
    for t in range(8):
        image = rng.integers(0, 256, (2, 4, 4, 1), np.uint8)
        vector = rng.normal(size=(2, 2)).astype(np.float32)
        kept.append((image, vector))
        replay.add(row_of(t, 2)._replace(obs={"image": image, "vector": vector}))
    seq, _, where = replay.sample(8, 1)
    assert seq.obs["image"].dtype == torch.uint8 and seq.obs["vector"].dtype == torch.float32
    for t, (image, vector) in enumerate(kept):
        n = where.stream[0]
        assert np.array_equal(seq.obs["image"][t, 0].numpy(), image[n])
        assert np.array_equal(seq.obs["vector"][t, 0].numpy(), vector[n])


def test_a_sample_is_a_copy():
    replay = filled(20)
    seq = replay.sample(20, 2).sequence
    seq.reward.zero_()
    assert replay.rows["reward"].any()


def test_memory_is_what_the_arithmetic_says():
    per_step = 64 * 64 * 3 + 4 * 6 + 4 + 1 + 1
    assert nbytes(1000, {"image": (64, 64, 3)}, 6) == 1000 * per_step
    latent = LatentSpec(512, 32, 32)
    assert nbytes(10, {"image": (64, 64, 3)}, 6, latent) == 10 * (per_step + 2 * 512 + 32)
    replay = filled(0, latent=LATENT)
    held = sum(x.nbytes for x in [*replay.rows.values(), *replay.latents.values()])
    assert held == nbytes(40, OBS, ACTIONS, LATENT)


def test_a_hundred_thousand_gray_frames_and_their_latents_fit_where_the_book_says():
    frames, actions = {"image": (64, 64, 1)}, 18
    rows = nbytes(100_000, frames, actions)
    for cfg in (LAPTOP, sized(V3, "1m")):
        latent = latent_spec(cfg)
        assert rows <= 420e6 and nbytes(100_000, frames, actions, latent) - rows <= 110e6


def test_too_little_memory_is_refused_with_both_numbers():
    check_memory(10, available=10)
    check_memory(1)
    with pytest.raises(ValueError, match="2.00 GB.*1.50 GB.*lower the replay capacity"):
        check_memory(2 * 10**9, available=15 * 10**8)


def test_length_counts_the_steps_of_all_streams():
    replay = filled(5)
    assert len(replay) == 10
    extend(replay, 50)
    assert len(replay) == 40


# Errors


def test_asking_for_more_than_there_is_names_the_remedy():
    replay = filled(12, capacity=200)
    assert replay.can_sample(12) and not replay.can_sample(13)
    with pytest.raises(ValueError, match="length 64 but the longest stream has 12 steps; lower"):
        replay.sample(64, 2)
    replay = filled(12, capacity=200, latent=LATENT)
    assert replay.can_sample(11) and not replay.can_sample(12)
    with pytest.raises(ValueError, match=r"length 12 \+ 1 context row"):
        replay.sample(12, 2)
    with pytest.raises(ValueError, match="at least 1"):
        replay.sample(0, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward": np.zeros(2)}, "reward must be float32"),
        ({"reward": np.zeros((2, 1), np.float32)}, r"got float32 \[2, 1\]"),
        ({"is_first": np.zeros(2, np.float32)}, "is_first must be bool"),
        ({"obs": {"image": np.zeros((2, 4, 4, 1), np.uint8)}}, "row must have"),
        ({"prev_action": np.zeros((3, 2), np.float32)}, "prev_action"),
    ],
)
def test_a_row_of_another_shape_or_type_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        filled(0).add(row_of(0, 2)._replace(**change))


def test_a_row_with_a_number_missing_is_refused():
    replay, row = filled(3), row_of(3, 2)
    row.reward[1] = np.nan
    with pytest.raises(ValueError, match="row reward must be without NaN, got 1 of 2; the env"):
        replay.add(row)
    assert replay.total == 3


def test_latents_are_checked():
    replay = filled(0, latent=LATENT)
    with pytest.raises(ValueError, match="got None"):
        replay.add(row_of(0, 2))
    with pytest.raises(ValueError, match="state must have"):
        replay.add(row_of(0, 2), State(torch.zeros(2, 4), torch.zeros(2, 10)))
    with pytest.raises(ValueError, match="1..256"):
        filled(0, latent=LatentSpec(3, 2, 257))
    with pytest.raises(ValueError, match="capacity"):
        filled(0, capacity=3)
    assert replay.total == 0


# Persistence


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 8)


@pytest.mark.parametrize("latent", [None, LATENT])
@pytest.mark.parametrize("steps", [0, 3, 8, 17, 29, 61])
def test_sampling_goes_on_bit_for_bit_after_a_restart(small_chunks, tmp_path, steps, latent):
    replay = filled(steps, latent=latent)
    for _ in range(3 * replay.can_sample(4)):
        sample = replay.sample(4, 3)
        replay.write_back(sample.where, State(torch.rand(4, 3, 3), torch.rand(4, 3, 10)))
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    replay.save(tmp_path / "replay", folder)
    other = filled(0, latent=latent, seed=5)
    other.load(tmp_path / "replay", folder)
    assert len(other) == len(replay)
    extend(replay, 6)
    extend(other, 6)
    for _ in range(6):
        assert same(replay.sample(4, 3), other.sample(4, 3))


def test_a_full_chunk_is_written_once(small_chunks, tmp_path):
    replay = filled(17)
    replay.save(tmp_path, tmp_path)
    times = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("chunk-*")}
    assert list(sorted(times)) == ["chunk-000000.safetensors", "chunk-000001.safetensors"]
    extend(replay, 8)
    replay.save(tmp_path, tmp_path)
    again = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("chunk-*")}
    assert len(again) == 3 and all(again[name] == times[name] for name in times)


def test_prune_keeps_exactly_what_the_checkpoints_need(small_chunks, tmp_path):
    replay, folders = filled(0), []
    for k in range(4):
        extend(replay, 16)
        folders.append(tmp_path / str(k))
        folders[-1].mkdir()
        replay.save(tmp_path / "replay", folders[-1])
    (tmp_path / "replay/.tmp-chunk-000009.safetensors").write_text("half")
    assert len(list((tmp_path / "replay").iterdir())) == 9
    prune(tmp_path / "replay", folders[2:])  # oldest row 28: chunk 3; newest row 63: chunk 7
    kept = sorted(p.name for p in (tmp_path / "replay").iterdir())
    assert kept == [f"chunk-{k:06d}.safetensors" for k in range(3, 8)]
    for folder in folders[2:]:
        filled(0).load(tmp_path / "replay", folder)


def test_a_chunk_of_an_abandoned_future_is_written_anew(small_chunks, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    replay = filled(9)
    replay.save(tmp_path, tmp_path / "a")
    extend(replay, 8)
    replay.save(tmp_path, tmp_path / "b")
    back = filled(0)
    back.load(tmp_path, tmp_path / "a")
    extend(back, 8, episode=3)  # lives on differently
    back.save(tmp_path, tmp_path / "a")
    other = filled(0)
    other.load(tmp_path, tmp_path / "a")
    assert np.array_equal(other.rows["is_first"], back.rows["is_first"])
    with pytest.raises(ValueError, match="chunk-000001.safetensors is missing or damaged"):
        filled(0).load(tmp_path, tmp_path / "b")


def test_damaged_missing_or_foreign_files_are_named(small_chunks, tmp_path):
    replay = filled(17)
    replay.save(tmp_path, tmp_path)
    with pytest.raises(ValueError, match="replay.json holds another replay"):
        filled(0, capacity=60).load(tmp_path, tmp_path)
    chunk = tmp_path / "chunk-000001.safetensors"
    data = chunk.read_bytes()
    chunk.write_bytes(data[:-1])
    with pytest.raises(ValueError, match="chunk-000001.safetensors is missing or damaged"):
        filled(0).load(tmp_path, tmp_path)
    chunk.write_bytes(data)
    tail = tmp_path / "replay.safetensors"
    tail.write_bytes(tail.read_bytes()[:-1])
    with pytest.raises(ValueError, match="replay.safetensors cannot be read"):
        filled(0).load(tmp_path, tmp_path)
    with pytest.raises(ValueError, match="replay.json cannot be read"):
        filled(0).load(tmp_path, tmp_path / "nowhere")


def test_a_save_that_fails_leaves_no_half_file(small_chunks, tmp_path, monkeypatch):
    replay = filled(9)

    def killed(*_):
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "replace", killed)
        with pytest.raises(OSError, match="killed"):
            replay.save(tmp_path, tmp_path)
    assert list(tmp_path.iterdir()) == [] and replay.chunks == {}
    replay.save(tmp_path, tmp_path)
    filled(0).load(tmp_path, tmp_path)


# Packing


@pytest.mark.parametrize("steps", [0, 1, 33])
def test_packed_rows_come_back_exactly(tmp_path, steps):
    replay = filled(steps)
    pack_rows(replay, tmp_path / "rows.npz")
    other = unpack_rows(tmp_path / "rows.npz")
    held = replay.total - replay.oldest
    assert other.total == held and other.latent is None
    order = np.arange(replay.oldest, replay.total) % replay.size
    for name, column in replay.rows.items():
        assert np.array_equal(other.rows[name][:held], column[order])
        assert other.rows[name].dtype == column.dtype


def test_still_images_pack_to_almost_nothing(tmp_path):
    replay = Replay(512, 1, {"image": (16, 16, 1)}, 1)
    image = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 1), np.uint8)
    zero, no = np.zeros(1, np.float32), np.zeros(1, bool)
    for _ in range(512):
        replay.add(Row({"image": image}, np.zeros((1, 1), np.float32), zero, ~no, no))
    pack_rows(replay, tmp_path / "rows.npz")
    assert (tmp_path / "rows.npz").stat().st_size < 512 * 256 / 20


@pytest.mark.parametrize(("limit", "expected"), [("3000", 2200), ("max", None), (None, None)])
def test_a_container_may_allow_less_than_the_machine_has(tmp_path, monkeypatch, limit, expected):
    monkeypatch.setattr(module.psutil, "virtual_memory", lambda: SimpleNamespace(available=5000))
    if limit:  # of 1000 bytes used 200 are a cache that goes when it must
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text("1000\n")
        (tmp_path / "memory.stat").write_text("anon 800\ninactive_file 200\n")
    assert module.free_memory(tmp_path) == (expected or 5000)
