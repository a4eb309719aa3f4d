"""Copy a run into the ledger: its record, its metrics, and its newest weights in half precision.

    python tools/publish_run.py runs/boxing-laptop-s0 --episodes 20

The entry is book/data/runs/<name>/. Weights of an earlier publication are replaced; milestones come
along. Two evaluations of the newest weights are added to eval.jsonl, of drawn and of likeliest
actions, episode by episode, the one that the paper's protocol asks for last; their means stand in
the last line of metrics.jsonl too. A run that is still going, or was interrupted, is published as
what it is.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch

from dreamer_lite import checkpoint, training
from dreamer_lite.logger import read_metrics

LEDGER = Path(__file__).resolve().parent.parent / "book/data/runs"


def publish(run: Path, episodes: int) -> Path:
    """Writes the entry and returns its folder."""
    entry = LEDGER / run.resolve().name
    shutil.rmtree(entry / "checkpoints", ignore_errors=True)
    entry.mkdir(parents=True, exist_ok=True)
    if started(entry) != started(run):  # another run had this name
        (entry / "eval.jsonl").unlink(missing_ok=True)
    weights(run, entry)
    record(run, entry)
    if episodes:
        evaluate(run, entry, episodes)
        summarize(entry)
    return entry


def started(folder: Path) -> str | None:
    """When a run began, which tells runs of one name apart."""
    path = folder / "run.json"
    return json.loads(path.read_text())["started"] if path.exists() else None


def weights(run: Path, entry: Path) -> None:
    """Milestones, and the newest checkpoint without what only training needs."""
    for milestone in sorted((run / "milestones").glob("*")):
        shutil.copytree(milestone, entry / "checkpoints" / milestone.name)
    tensors, meta, _ = checkpoint.load(run)
    agent = {k[6:]: x for k, x in tensors.items() if k.startswith("agent/")}
    config = {name: meta[name] for name in ("config", "run", "step")}
    checkpoint.save_weights(entry / "checkpoints" / f"{meta['step']:010d}", agent, config)


def record(run: Path, entry: Path) -> None:
    """The settings and all metrics."""
    for name in ("run.json", "config.json"):
        shutil.copyfile(run / name, entry / name)
    lines = [json.dumps(row) for row in read_metrics(run)]  # whole lines: it may be writing one
    (entry / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def evaluate(run: Path, entry: Path, episodes: int) -> None:
    """Two more lines of eval.jsonl, for the newest weights; the paper's protocol comes last."""
    agent, about = training.load_run(run)
    paper = agent.cfg.behavior.actor.greedy
    with open(entry / "eval.jsonl", "a", encoding="utf-8") as file:
        for mode in (not paper, paper):
            with torch.random.fork_rng():
                torch.manual_seed(training.EVALUATION_SEED)
                score = training.evaluate(agent, about["env"], episodes, mode=mode)
            name = "mode" if mode else "sample"
            line = {"step": about["step"], "mode": name, **score._asdict()}
            file.write(json.dumps(line) + "\n")


def summarize(entry: Path) -> None:
    """Means and deviations of the newest evaluations in the last line of the metrics, as eval/*."""
    *rows, last = read_metrics(entry)
    for line in map(json.loads, (entry / "eval.jsonl").read_text().splitlines()):
        last |= {f"eval/{line['mode']}": line["mean"], f"eval/{line['mode']}_sd": line["sd"]}
    lines = "".join(json.dumps(row) + "\n" for row in [*rows, last])
    (entry / "metrics.jsonl").write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--episodes", type=int, default=20, help="of the evaluation; 0: none")
    args = parser.parse_args()
    print(publish(args.run, args.episodes))
