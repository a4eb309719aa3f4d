"""Write the table of measured results in README.md from the run ledger.

python tools/results.py            # rewrites the block between the two markers
python tools/results.py --check    # exit status 1 if the block is out of date
"""

import json
import sys
from pathlib import Path

from dreamer_lite.logger import read_metrics

ROOT = Path(__file__).resolve().parent.parent
README, LEDGER = ROOT / "README.md", ROOT / "book/data/runs"
BEGIN, END = "<!-- results -->\n", "<!-- /results -->"
HEAD = "| run | task | agent steps | frames | updates | hours | evaluation |\n" + "|---" * 7 + "|\n"


def evaluation(folder: Path) -> str:
    """The last line of eval.jsonl: what `dreamer-lite eval` printed of the final weights."""
    path = folder / "eval.jsonl"
    if not path.exists():
        return "–"
    last = json.loads(path.read_text().splitlines()[-1])
    return f"{last['mean']:.2f} ± {last['sd']:.2f} ({len(last['episodes'])} episodes)"


def row(folder: Path) -> str:
    """One run as a line of the table."""
    run = json.loads((folder / "run.json").read_text())
    last = read_metrics(folder)[-1]
    task = f"{run['env']}, preset `{run['preset']}`, seed {run['seed']}"
    numbers = [f"{last[k]:,}" for k in ("step", "frame", "update")] + [f"{last['hours']:.2f}"]
    state = "" if run["status"] == "complete" else f" ({run['status']})"
    return " | ".join([f"| {folder.name}{state}", task, *numbers, f"{evaluation(folder)} |\n"])


def table() -> str:
    """All runs of the ledger."""
    folders = sorted(path.parent for path in LEDGER.glob("*/run.json"))
    return HEAD + "".join(map(row, folders))


def updated(text: str) -> str:
    """The README with a fresh table."""
    before, rest = text.split(BEGIN)
    return before + BEGIN + table() + END + rest.split(END)[1]


if __name__ == "__main__":
    old = README.read_text(encoding="utf-8")
    new = updated(old)
    if "--check" in sys.argv:
        sys.exit("README.md: run python tools/results.py" if new != old else 0)
    README.write_text(new, encoding="utf-8")
