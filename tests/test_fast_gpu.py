"""What runs on a GPU computes the same, and asks the device for nothing on the way.

No GPU is needed: tensors on the device "meta" have shapes but no numbers, so whoever asks for one
fails; recordings are calls on a CPU; and the device of a replay may be the CPU itself.
"""

from copy import deepcopy

import numpy as np
import pytest
import tiny
import torch
from test_replay import ACTIONS, LATENT, OBS, extend, same
from test_sweep import SMALL

from dreamer_lite import distributed, fast, fast_gpu, parts, training
from dreamer_lite.agent import Dreamer
from dreamer_lite.fast_gpu import DeviceReplay, FastDreamer, Graph, HalfDreamer, mapped, record
from dreamer_lite.logger import read_metrics
from dreamer_lite.replay import Replay
from dreamer_lite.rssm import State

CATCH = "dreamer_lite/FlickerCatch-v0"
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")


def spec(paper):
    return tiny.NUMBERS if paper == "V2 control" else tiny.ONE_CHOICE


def on_meta(tree):
    return mapped(lambda x: x.to("meta"), tree)


# Nothing waits


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("paper", tiny.PAPERS)
def test_an_update_and_an_action_ask_the_device_for_no_number(paper, swapped):
    agent = tiny.agent(spec(paper), cfg=tiny.PAPERS[paper])
    agent = (fast.accelerate(agent) if swapped else agent).to("meta")
    agent.build_optimizers()
    batch = on_meta(tiny.batch(spec(paper)))
    if agent.behavior.slow:
        agent.behavior.slow.module.to("meta")
    states, metrics = agent.update(batch)
    assert states.h.device.type == "meta" and metrics["grad_norm/model"].shape == ()
    obs = {name: x[0] for name, x in batch.obs.items()}
    action, _ = agent.decide(
        obs, batch.prev_action[0], batch.is_first[0], states.map(lambda x: x[0]), False
    )
    assert action.shape == batch.prev_action[0].shape


def test_whoever_asks_for_a_number_would_be_noticed(monkeypatch):
    agent = tiny.agent().to("meta")
    batch = on_meta(tiny.batch())
    plain = type(agent.behavior.scale).value
    monkeypatch.setattr(
        type(agent.behavior.scale), "value", lambda self: plain(self) + float(self.range[0])
    )
    with pytest.raises(RuntimeError, match="meta"):
        agent.losses(batch, None)


# Graphs


def test_a_graph_answers_as_its_function_in_tensors_of_its_own():
    module = torch.nn.Linear(3, 2)
    graph = Graph(
        lambda x, more: {"y": module(x), "n": (more["a"] + 1,)},
        (torch.ones(4, 3), {"a": torch.zeros(1)}),
        module,
    )
    x, a = torch.randn(4, 3), torch.ones(1)
    first = graph(x, {"a": a})
    kept = first["y"].clone()
    second = graph(x + 1, {"a": a})
    torch.testing.assert_close(first["y"], module(x))
    torch.testing.assert_close(first["y"], kept)
    torch.testing.assert_close(second["y"], module(x + 1))
    assert second["n"][0].item() == 2


def test_what_is_tried_before_a_recording_leaves_no_trace():
    module = torch.nn.BatchNorm1d(3)
    before, random = deepcopy(module.state_dict()), torch.get_rng_state()
    with fast_gpu.untouched(module, torch.device("cpu")):
        module(torch.randn(5, 3))
        assert not torch.equal(module.running_mean, before["running_mean"])
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(x, before[k]) for k, x in module.state_dict().items())


def test_batches_of_another_shape_get_a_recording_of_their_own():
    agent = record(tiny.agent())
    agent.update(tiny.batch())
    agent.update(tiny.batch())
    agent.update(tiny.batch(time=5))
    assert len(agent.graphs) == 2 and agent.updates == 3


# Half precision


@pytest.mark.parametrize("paper", tiny.PAPERS)
def test_half_precision_changes_losses_and_gradients_little(paper):
    plain = tiny.agent(spec(paper), cfg=tiny.PAPERS[paper])
    quick = record(deepcopy(plain))
    assert type(quick) is FastDreamer
    batch = tiny.batch(spec(paper), time=16, size=8)
    quick.build_optimizers()
    results = []
    for agent in (plain, quick):
        torch.manual_seed(0)
        results.append(agent.differentiate(batch, None))
    (grads, _, exact), (halved, states, close) = results
    assert states.h.dtype == states.z.dtype == torch.float32
    assert all(x.dtype == torch.float32 for part in halved.values() for x in part)
    for name in exact:
        if name.startswith("loss/obs") or name in ("loss/reward", "loss/kl"):
            assert close[name].item() == pytest.approx(exact[name].item(), rel=0.02), name
    a, b = (torch.cat([x.flatten() for x in g["model"]]) for g in (grads, halved))
    assert torch.cosine_similarity(a, b, dim=0) > 0.98
    assert not torch.equal(a, b)  # it was really computed in half precision


@pytest.fixture
def among_two(monkeypatch):
    """What a call answers in one of two processes, which are never met."""

    def call(function, *args):
        with monkeypatch.context() as m:
            m.setattr(distributed, "size", lambda: 2)
            return function(*args)

    return call


def test_one_of_several_processes_computes_the_same_without_recording(among_two):
    alone = tiny.agent()
    shared = among_two(record, deepcopy(alone))
    record(alone)
    results, batch = [], tiny.batch()
    for agent in (alone, shared):
        torch.manual_seed(0)
        results.append(agent.differentiate(batch, None)[0]["model"])
    assert all(map(torch.equal, *results))
    assert alone.graphs and not hasattr(shared, "graphs")
    shared.update(batch)
    assert shared.updates == 1


def test_only_a_gpu_computes_in_half_precision_and_only_a_run_alone_records(among_two, monkeypatch):
    monkeypatch.setattr(Dreamer, "to", lambda self, device: self)
    make = lambda kind: type(  # noqa: E731
        training.make_agent(tiny.config(), tiny.OBS, tiny.ONE_CHOICE, torch.device(kind))
    )
    assert make("cuda") is FastDreamer and among_two(make, "cuda") is HalfDreamer
    assert make("cpu") is among_two(make, "cpu") is Dreamer


# The replay


def pair(steps, latent=LATENT):
    """Two replays of the same seed that have lived through the same: a plain and a mirrored one."""
    made = [kind(40, 2, OBS, ACTIONS, latent=latent, seed=3) for kind in (Replay, DeviceReplay)]
    for replay in made:
        extend(replay, steps)
    return made


def fresh(*lead):
    """New latents for rows [*lead], which no row had before."""
    z = torch.randint(LATENT.classes, (*lead, LATENT.groups))
    z = torch.nn.functional.one_hot(z, LATENT.classes).flatten(-2).float()
    return State(torch.randn(*lead, LATENT.deter), z)


@pytest.mark.parametrize("latent", [None, LATENT])
def test_a_mirror_is_sampled_like_the_original(latent):
    plain, mirrored = pair(15, latent)
    for _ in range(5):
        assert same(plain.sample(4, 3), mirrored.sample(4, 3))


def test_fresh_latents_are_written_to_the_mirror_except_over_younger_rows():
    replays, states = pair(20), fresh(6, 4)
    samples = [replay.sample(6, 4) for replay in replays]
    for replay, sample in zip(replays, samples, strict=True):
        extend(replay, 13)  # of 20 rows a stream, the youngest 7 are still the same
        replay.write_back(sample.where, states)
    for _ in range(10):
        assert same(*(replay.sample(4, 3) for replay in replays))
    fields = {k: x.numpy() for k, x in replays[1].mirror.items()}
    assert all(np.array_equal(fields[k], x) for k, x in replays[0].latents.items())


def test_a_mirror_is_saved_and_read_like_the_original(tmp_path):
    replays, states = pair(20), fresh(6, 4)
    for replay, name in zip(replays, "ab", strict=True):
        replay.write_back(replay.sample(6, 4).where, states)
        (tmp_path / name).mkdir()
        replay.save(tmp_path / f"{name}-chunks", tmp_path / name)
    files = [(tmp_path / name / "replay.safetensors").read_bytes() for name in "ab"]
    assert files[0] == files[1]
    again = pair(0)[1]
    again.load(tmp_path / "b-chunks", tmp_path / "b")
    for _ in range(3):
        assert same(again.sample(4, 3), replays[1].sample(4, 3))


def test_streams_that_are_copied_from_another_run_arrive_in_the_mirror():
    source, (plain, mirrored) = pair(15)[0], pair(0)
    for target in (plain, mirrored):
        parts.copy_streams(source, np.arange(2), target)
    for _ in range(3):
        assert same(plain.sample(4, 3), mirrored.sample(4, 3))
    drawn = mirrored.sample(4, 3)
    assert drawn.sequence.obs["vector"].any() and drawn.start.h.any()


def test_only_a_gpu_has_a_mirror():
    assert not fast_gpu.fits(1, torch.device("cpu"))


# All together


def test_a_run_with_all_of_it_learns_and_resumes(tmp_path, monkeypatch):
    monkeypatch.setattr(fast_gpu, "fits", lambda needed, device: True)
    plain = training.make_agent
    monkeypatch.setattr(training, "make_agent", lambda *args: record(plain(*args)))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    training.train(SMALL, CATCH, 200, whole, progress=False, log_every=40)
    training.train(SMALL, CATCH, 120, parts, progress=False, log_every=40)
    agent = training.train(SMALL, CATCH, 200, parts, progress=False, log_every=40)
    assert type(agent) is FastDreamer and agent.updates > 10
    ends = [read_metrics(folder)[-1] | {"hours": 0} for folder in (whole, parts)]
    assert ends[0] == ends[1]


@CUDA
@pytest.mark.parametrize("paper", tiny.PAPERS)
def test_a_recording_computes_what_the_calls_compute(paper):
    agent = fast.accelerate(tiny.agent(spec(paper), cfg=tiny.PAPERS[paper])).cuda()
    agent.build_optimizers()
    agent = record(agent)
    batch = mapped(lambda x: x.cuda(), tiny.batch(spec(paper)))
    call = agent.halved(super(HalfDreamer, agent).differentiate)
    results = []
    for function in (call, lambda *args: agent.differentiate(*args)):
        agent.behavior.scale.range.zero_()
        agent.differentiate(batch, None)
        agent.behavior.scale.range.zero_()
        torch.cuda.manual_seed(0)
        results.append(function(batch, None))
    a, b = (torch.cat([x.flatten() for x in r[0]["model"]]) for r in results)
    assert torch.cosine_similarity(a, b, dim=0) > 0.99
