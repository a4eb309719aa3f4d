"""The table of results in the README is what the ledger says."""

import json
from dataclasses import replace

import numpy as np
import pytest
import results

from dreamer_lite.logger import read_metrics
from dreamer_lite.presets import TOY, to_dict


def test_the_readme_shows_what_the_ledger_holds():
    text = results.README.read_text(encoding="utf-8")
    assert results.updated(text) == text, "run python tools/results.py"


RUNS = sorted(path.parent for path in results.LEDGER.glob("*/run.json"))


@pytest.mark.parametrize("folder", RUNS, ids=lambda folder: folder.name)
def test_the_last_line_of_a_published_run_says_what_its_evaluations_found(folder):
    last = read_metrics(folder)[-1]
    lines = map(json.loads, (folder / "eval.jsonl").read_text().splitlines())
    newest = {line["mode"]: line for line in lines}
    assert set(newest) == {"sample", "mode"}
    for mode, line in newest.items():
        assert last[f"eval/{mode}"] == line["mean"] == pytest.approx(np.mean(line["episodes"]))
        assert last[f"eval/{mode}_sd"] == line["sd"] and line["step"] == last["step"]


def test_a_changed_ledger_changes_the_table(tmp_path, monkeypatch):
    folder = tmp_path / "catch-s0"
    folder.mkdir()
    run = {
        "env": "Catch-v0",
        "preset": "toy",
        "seed": 0,
        "status": "complete",
    }
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "config.json").write_text(json.dumps(to_dict(replace(TOY, envs=2))))
    line = {"step": 1000, "frame": 4000, "update": 250, "hours": 0.5}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    drawn = {"mode": "sample", "mean": 0.91, "sd": 0.05, "episodes": [1.0, 0.82]}
    likeliest = drawn | {"mode": "mode", "mean": 0.95}
    lines = map(json.dumps, [likeliest, drawn | {"mean": 0.1}, drawn])  # the newest counts
    (folder / "eval.jsonl").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(results, "LEDGER", tmp_path)
    assert (
        "| catch-s0 | Catch-v0, preset `toy`, `envs` 2, seed 0 | 1,000 | 4,000 | 250 | 30.0 min "
        "| 0.91 ± 0.05 drawn, 0.95 ± 0.05 likeliest (2 episodes) |\n" in results.table()
    )
