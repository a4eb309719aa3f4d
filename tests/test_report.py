"""Report: dreams are aligned with what was recorded, pictures say what they show."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from dreamer_lite import report
from dreamer_lite.agent import Dreamer
from dreamer_lite.presets import TOY
from dreamer_lite.replay import Sequence
from dreamer_lite.rssm import State
from dreamer_lite.spaces import ActionSpec


def small_agent(obs=None):
    torch.manual_seed(0)
    return Dreamer(TOY, obs or {"image": (16, 16, 1)}, ActionSpec(discrete=(3,)))


class Adding(torch.nn.Module):
    """A world whose pixel is the sum of all actions, and a model that knows it exactly.

    Any dream that meets an action too early, too late or not at all shows another pixel.
    """

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.obs, self.action = {"image": (8, 8, 1)}, ActionSpec(continuous=1)
        self.cfg = SimpleNamespace(model=SimpleNamespace(gamma=0.5))
        self.world_model, self.behavior = self, SimpleNamespace(value=lambda feat: feat[..., 0] + 3)
        self.rssm = self

    def observe(self, batch, start):
        pixel = batch.obs["image"][..., 0, 0, :].float()
        return State(pixel, pixel * 0), None

    def follow(self, s, actions):
        h = s.h + actions.cumsum(0)
        return State(h, h * 0)

    def reconstruct(self, s):
        return {"image": (s.h[..., None, None, :] / 255).expand(*s.h.shape[:-1], 8, 8, 1)}

    def reward(self, feat):
        return feat[..., 0] + 1

    def discount(self, feat):
        return feat[..., 0] * 0 + 0.25


def adding_sequence(length=6, streams=2):
    """prev_action[t] = t + stream; the pixel is their sum so far."""
    action = torch.arange(length)[:, None] + torch.arange(streams).float()
    action[0] = 0
    pixel = action.cumsum(0).byte()[..., None, None, None].expand(-1, -1, 8, 8, 1)
    first = torch.zeros(length, streams, dtype=torch.bool)
    first[0] = True
    return Sequence({"image": pixel}, action[..., None], action * 0, ~first | True, first)


def test_a_dream_meets_every_recorded_action_at_its_time():
    loop = report.open_loop(Adding(), adding_sequence(), context=2)
    assert loop.truth.shape == loop.model.shape == loop.error.shape == (6, 2, 8, 8, 1)
    assert {loop.truth.dtype, loop.model.dtype, loop.error.dtype} == {np.dtype("uint8")}
    assert loop.truth[5, 1, 0, 0, 0] == 1 + 2 + 3 + 4 + 5 + 5
    assert (loop.model == loop.truth).all() and (loop.error == 128).all()


def test_predictions_belong_to_the_frames_beside_them():
    loop = report.open_loop(Adding(), adding_sequence(), context=2)
    pixel = loop.truth[:, :, 0, 0, 0].astype(np.float32)
    np.testing.assert_allclose(loop.reward, pixel + 1)
    np.testing.assert_allclose(loop.value, pixel + 3)
    np.testing.assert_allclose(loop.cont, 0.5)  # discount 0.25 / γ 0.5


def test_after_the_context_frames_are_not_looked_at():
    hidden = adding_sequence()
    hidden.obs["image"] = hidden.obs["image"].clone()
    hidden.obs["image"][2:] = 200
    loop = report.open_loop(Adding(), hidden, context=2)
    assert (loop.model == report.open_loop(Adding(), adding_sequence(), 2).truth).all()
    assert (loop.error[2:] < 128).all(), "the model is darker than the false truth"


def test_seen_frames_are_reconstructed_from_the_posterior():
    agent, rows = small_agent(), noise(5, 2)
    torch.manual_seed(1)
    loop = report.open_loop(agent, rows, 3)
    torch.manual_seed(1)
    with torch.no_grad():
        states, _ = agent.world_model.observe(report.at(rows, slice(3)), None)
        frames = agent.world_model.reconstruct(states)["image"]
    assert (loop.model[:3] == (frames * 255).round().byte().numpy()).all()


def noise(length, streams, seed=0):
    """Random 16x16 rows of one episode."""
    torch.manual_seed(seed)
    image = torch.randint(256, (length, streams, 16, 16, 1), dtype=torch.uint8)
    action = torch.nn.functional.one_hot(torch.randint(3, (length, streams)), 3).float()
    first = torch.zeros(length, streams, dtype=torch.bool)
    first[0] = True
    return Sequence({"image": image}, action, torch.randn(length, streams), ~first | True, first)


def test_a_dream_across_a_reset_is_refused():
    rows = adding_sequence()
    rows.is_first[3, 1] = True
    with pytest.raises(ValueError, match="one episode"):
        report.open_loop(Adding(), rows, 2)


@pytest.mark.parametrize("context", [0, 6])
def test_a_dream_needs_something_seen_and_something_to_dream(context):
    with pytest.raises(ValueError, match="context must be 1 to 5"):
        report.open_loop(Adding(), adding_sequence(), context)


def test_an_agent_without_images_has_no_pictures():
    with pytest.raises(ValueError, match="image"):
        report.image_key(small_agent({"vector": (3,)}))
    with pytest.raises(ValueError, match=r"\['image'\], got 'camera'"):
        report.image_key(small_agent(), "camera")


# Imagination


def test_dreams_of_one_state_stand_side_by_side():
    states = State(torch.tensor([[10.0], [20.0]]), torch.zeros(2, 1))
    actions = torch.tensor([[1.0], [2.0]])
    dream = report.imagine(Adding(), states, 2, actions, samples=3)
    assert dream.frames.shape == (3, 6, 8, 8, 1)
    assert dream.frames[:, :, 0, 0, 0].tolist() == [[10] * 3 + [20] * 3, [11] * 3 + [21] * 3] + [
        [13] * 3 + [23] * 3
    ]
    assert dream.discount.tolist() == [[0.25] * 6] * 3
    np.testing.assert_allclose(dream.reward[2], [14] * 3 + [24] * 3)


def test_actions_may_differ_between_dreams():
    states = State(torch.zeros(2, 1), torch.zeros(2, 1))
    actions = torch.tensor([[[1.0], [5.0]]])
    assert report.imagine(Adding(), states, 1, actions).frames[1, :, 0, 0, 0].tolist() == [1, 5]


def test_actions_of_another_shape_are_refused():
    states = State(torch.zeros(2, 1), torch.zeros(2, 1))
    with pytest.raises(ValueError, match=r"\(3, 2, 1\), got \[2, 2, 1\]"):
        report.imagine(Adding(), states, 3, torch.zeros(2, 1))


def test_without_actions_the_policy_dreams():
    agent = small_agent()
    dream = report.imagine(agent, agent.initial(1), 4, samples=2)
    assert dream.actions.shape == (4, 2, 3) and (dream.actions.sum(-1) == 1).all()
    assert (dream.frames[0, 0] == dream.frames[0, 1]).all(), "both begin in the same state"
    assert (dream.frames[4, 0] != dream.frames[4, 1]).any(), "and go on differently"


# Recording and cutting


def test_a_window_contains_no_reset_after_its_first_row():
    first = torch.tensor([[1, 1], [0, 0], [0, 1], [1, 0], [0, 0]]).bool()
    assert report.starts(first, 3) == [(0, 0), (2, 1)]
    assert report.starts(first, 2) == [(0, 0), (1, 0), (3, 0), (0, 1), (2, 1), (3, 1)]


def test_windows_longer_than_the_recording_start_nowhere():
    is_first = torch.zeros(5, 2, dtype=torch.bool)
    assert [len(report.starts(is_first, n)) for n in (5, 6, 7, 8)] == [2, 0, 0, 0]


def test_clips_are_rows_of_the_recording_as_long_as_episodes_allow():
    agent, rows = small_agent(), noise(9, 2)
    rows.is_first[4, 0] = rows.is_first[7, 1] = True  # pieces of 4, 5, 7 and 2 rows
    clips, start = report.clips(agent, rows, count=3)
    assert clips.reward.shape == (7, 3) and start.h.shape == (3, TOY.model.deter)
    assert (clips.reward == rows.reward[:7, 1:]).all()
    with pytest.raises(ValueError, match="length must be .*, got 8; no recorded episode"):
        report.clips(agent, rows, 8)


def test_a_clip_starts_from_the_memory_of_the_rows_before_it():
    agent, rows = small_agent(), noise(6, 2)
    torch.manual_seed(3)
    memory = report.memory(agent, rows, torch.tensor([0, 4]), torch.tensor([1, 0]))
    torch.manual_seed(3)
    with torch.no_grad():
        states, _ = agent.world_model.observe(rows, None)
    assert (memory.h[0] == 0).all() and (memory.z[0] == 0).all()
    assert (memory.h[1] == states.h[3, 0]).all() and (memory.z[1] == states.z[3, 0]).all()


def test_a_recording_depends_on_its_seed_alone_and_disturbs_nobody():
    agent = small_agent()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = report.record(agent, "dreamer_lite/NoisyCatch-v0", 13, seed=7, streams=2)
    assert (torch.rand(3) == expected).all()
    two = report.record(agent, "dreamer_lite/NoisyCatch-v0", 13, seed=7, streams=2)
    assert all(torch.equal(a, b) for a, b in zip(one[1:], two[1:], strict=True))
    assert torch.equal(one.obs["image"], two.obs["image"])
    other = report.record(agent, "dreamer_lite/NoisyCatch-v0", 13, seed=8, streams=2)
    assert not torch.equal(one.obs["image"], other.obs["image"])
    assert one.is_first.nonzero().tolist() == [[0, 0], [0, 1], [11, 0], [11, 1]]


# Numbers


def test_psnr_of_known_differences():
    black, one = np.zeros((2, 4, 4, 1), np.uint8), np.ones((2, 4, 4, 1), np.uint8)
    np.testing.assert_allclose(report.psnr(black, one * 255), 0.0)
    np.testing.assert_allclose(report.psnr(black, one), 20 * np.log10(255))
    np.testing.assert_allclose(report.psnr(one, one), 58.92, atol=0.01)


def test_the_error_is_gray_where_model_and_truth_agree():
    values = np.array([0, 100, 255], np.uint8).reshape(3, 1, 1, 1)
    assert report.error(values, values).ravel().tolist() == [128, 128, 128]
    assert report.error(values[[2]], values[[0]]).item() == 0
    assert report.error(values[[0]], values[[2]]).item() == 255


def test_errors_are_blue_if_too_dark_and_red_if_too_bright():
    frames = np.array([0, 128, 255], np.uint8).reshape(3, 1, 1, 1)
    dark, same, bright = report.error_rgb(frames).reshape(3, 3).astype(int)
    assert dark[2] > dark[0] + 50 and bright[0] > bright[2] + 50 and (same > 240).all()


# Pictures


def labels(figure):
    axes = [ax for ax in figure.axes if ax.get_visible()]
    return (
        [a.get_title() for a in axes],
        [a.get_ylabel() for a in axes],
        [a.get_xlabel() for a in axes],
    )


def test_a_strip_says_what_was_seen_how_far_the_dream_is_and_what_it_predicts(tmp_path):
    loop = report.open_loop(Adding(), adding_sequence(), context=2)
    figure = report.strip(loop, stream=1, columns=5)
    titles, rows, numbers = labels(figure)
    assert [t for t in titles if t] == ["seen", "seen", "+1", "+3", "+4"]
    assert [r for r in rows if r] == ["truth", "model", "error"]
    assert [n for n in numbers if n][-1] == "r 21.00\nc 0.50\nv 23.00"
    assert figure.get_facecolor() == (1, 1, 1, 1), "legible on a dark page"
    for name in "ab":
        report.save_figure(report.strip(loop), tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_storyboard_has_a_row_per_dream_with_predictions_under_each_frame():
    states = State(torch.tensor([[10.0]]), torch.zeros(1, 1))
    dream = report.imagine(Adding(), states, 3, torch.ones(3, 1), samples=2)
    titles, rows, numbers = labels(report.storyboard(dream, gamma=0.5, columns=3))
    assert [t for t in titles if t] == ["start", "+2", "+3"]
    assert [r for r in rows if r] == ["dream 1", "dream 2"]
    assert numbers == ["r 11.00\nc 0.50\nv 13.00", "r 13.00\nc 0.50\nv 15.00"] + [
        "r 14.00\nc 0.50\nv 16.00",
        "r 11.00\nc 0.50\nv 13.00",
        "r 13.00\nc 0.50\nv 15.00",
        "r 14.00\nc 0.50\nv 16.00",
    ]


def test_no_prediction_reads_minus_zero():
    assert report.legend(-0.001, 1.0, -0.0) == "r 0.00\nc 1.00\nv 0.00"


def test_the_caption_counts_and_measures():
    text = report.describe(report.open_loop(Adding(), adding_sequence(), context=2))
    assert "sees 2 frames" in text and "for 4 steps" in text and text.count("58.9 dB") == 3


def test_a_film_shows_truth_dream_and_error_as_sharp_squares():
    loop = report.open_loop(Adding(), adding_sequence(), context=2)
    frames = report.film(loop, width=32)
    assert frames.shape == (6, 20 + 2 * (8 + 1) * 4, (3 * 8 + 2) * 4, 3)
    first = frames[5, 20 : 20 + 32]
    assert (first[:, :32] == 15).all() and (first[:, 36:68] == 15).all()
    assert (first[:, 32:36] == 255).all(), "a white line between the panels"
    assert (frames[1, :20] != frames[2, :20]).any(), "the heading says when the dream begins"


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_a_video_keeps_every_frame_and_is_endless(tmp_path, suffix):
    frames = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1) * 60 + np.zeros((8, 8, 1), np.uint8)
    path = report.save_video(frames, tmp_path / f"video{suffix}", fps=20, scale=3)
    with Image.open(path) as video:
        assert (video.n_frames, video.size, video.info["loop"]) == (4, (24, 24), 0)
        video.seek(2)
        assert (np.asarray(video.convert("RGB")) == 120).all()
        assert video.info["duration"] == 50  # milliseconds


def test_a_video_of_unknown_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match="gif or .webp, got 'video.mp4'"):
        report.save_video(np.zeros((2, 8, 8, 1), np.uint8), tmp_path / "video.mp4")


# Learning curves


def write_run(folder, frames, scores):
    folder.mkdir()
    rows = [{"step": f // 4, "frame": f, "update": 0, "hours": 0.1} for f in frames]
    rows = [r | {"episode/score": s} for r, s in zip(rows, scores, strict=True)]
    lines = [{"step": 0, "frame": 0, "update": 0, "hours": 0}, *rows]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in lines))
    return folder


def test_a_curve_is_the_mean_of_the_seeds_where_all_have_numbers(tmp_path):
    a = write_run(tmp_path / "a", [0, 100, 200], [0.0, 10.0, 20.0])
    b = write_run(tmp_path / "b", [100, 300], [20.0, 40.0])
    c = report.summarize([a, b], "frame", "episode/score", points=3)
    assert c.seeds == 2 and c.x.tolist() == [100, 150, 200]
    assert c.mean.tolist() == [15.0, 20.0, 25.0]
    assert c.low.tolist() == [10.0, 15.0, 20.0] and c.high.tolist() == [20.0, 25.0, 30.0]


def test_a_figure_of_curves_names_axes_groups_and_seeds(tmp_path):
    a = write_run(tmp_path / "a", [0, 100], [0.0, 10.0])
    b = write_run(tmp_path / "b", [0, 100], [20.0, 40.0])
    ax = report.curve({"small": [a, b], "large": [b]}, x="step").axes[0]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("agent steps", "score of training episodes")
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [
        "small, 2 seeds",
        "large, 1 seed",
    ]
    assert len({line.get_linestyle() for line in ax.lines}) == 2, "never color alone"
    assert report.curve([a]).axes[0].get_xlabel() == "frames"


def test_a_curve_that_cannot_be_drawn_says_why(tmp_path):
    a = write_run(tmp_path / "a", [0, 100], [0.0, 10.0])
    b = write_run(tmp_path / "b", [200, 300], [0.0, 10.0])
    with pytest.raises(ValueError, match="no numbers of 'loss'; it has episode/score, frame"):
        report.curve([a], metric="loss")
    with pytest.raises(ValueError, match="no frame in common"):
        report.curve([a, b])
    with pytest.raises(ValueError, match="x must be one of frame, step, update, hours, got 'day'"):
        report.curve([a], x="day")
