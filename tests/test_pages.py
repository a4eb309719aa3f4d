"""What the first pages rely on: the runs that come with the book can be read by today's package."""

import json

import pytest
import run_book

from dreamer_lite import checkpoint, training
from dreamer_lite.logger import read_metrics
from dreamer_lite.presets import from_dict

RUNS = sorted((run_book.BOOK / "data/runs").iterdir())
SHARED = [run for run in RUNS if (run / "checkpoints").exists()]  # with weights


def newest(run):
    """The weights that the pages load."""
    return max((run / "checkpoints").iterdir())


@pytest.mark.parametrize("run", SHARED, ids=lambda run: run.name)
def test_a_published_agent_can_be_loaded(run):
    if run.name.startswith("dmc-"):
        pytest.importorskip("dm_control")
    agent, record = training.load_run(newest(run))
    assert record["step"] == int(newest(run).name)
    assert {"env", "seed", "protocol", "hardware", "threads"} <= record.keys()
    assert agent.obs


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_a_published_run_is_of_one_piece(run):
    stored, record = (json.loads((run / f"{name}.json").read_text()) for name in ("config", "run"))
    steps = [row["step"] for row in read_metrics(run)]
    assert steps[0] == 0 and steps == sorted(steps)
    assert record["step"] <= record["steps"] and from_dict(stored)
    if run in SHARED:
        _, meta = checkpoint.load_weights(newest(run))
        assert from_dict(stored) == from_dict(meta["config"])
        same = ("env", "seed", "started")
        assert [record[key] for key in same] == [meta["run"][key] for key in same]
        assert meta["step"] <= record["step"]


NO_ROOM = {  # the limit of all weights leaves none
    *("dmc/cartpole-swingup", "dmc/walker-walk"),
    *("dreamer_lite/MiniPong-v0", "dreamer_lite/Reach-v0"),
}


def test_every_task_has_weights_to_look_at():
    tasks = [
        {json.loads((run / "run.json").read_text())["env"] for run in r} for r in (RUNS, SHARED)
    ]
    assert tasks[0] == tasks[1] | NO_ROOM and not tasks[1] & NO_ROOM


def test_every_published_run_is_shown():
    pages = [run_book.ROOT / "README.md", *run_book.BOOK.glob("*.md")]
    for run in RUNS:
        assert any(run.name in page.read_text(encoding="utf-8") for page in pages), run.name
