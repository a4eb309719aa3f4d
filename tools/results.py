"""Write the table of measured results in README.md from the run ledger.

python tools/results.py            # rewrites the block between the two markers
python tools/results.py --check    # exit status 1 if the block is out of date
"""

import json
import sys
from pathlib import Path

from dreamer_lite.logger import read_metrics
from dreamer_lite.presets import PRESETS, diff, from_dict

ROOT = Path(__file__).resolve().parent.parent
README, LEDGER = ROOT / "README.md", ROOT / "book/data/runs"
BEGIN, END = "<!-- results -->\n", "<!-- /results -->"
HEAD = "| run | task | agent steps | frames | updates | time | evaluation |\n" + "|---" * 7 + "|\n"


def evaluation(folder: Path) -> str:
    """What `dreamer-lite eval` printed of the final weights: drawn and likeliest actions."""
    path = folder / "eval.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    found = {e["mode"]: e for e in map(json.loads, lines)}
    words = [
        f"{found[mode]['mean']:.2f} ± {found[mode]['sd']:.2f} {name}"
        for mode, name in {"sample": "drawn", "mode": "likeliest"}.items()
        if mode in found
    ]
    return f"{', '.join(words)} ({len(found.popitem()[1]['episodes'])} episodes)" if words else "–"


def row(folder: Path) -> str:
    """One run as a line of the table."""
    run = json.loads((folder / "run.json").read_text())
    last = read_metrics(folder)[-1]
    cfg = from_dict(json.loads((folder / "config.json").read_text()))
    changed = [f"`{name}` {new}" for name, (_, new) in diff(PRESETS[run["preset"]], cfg).items()]
    task = ", ".join([run["env"], f"preset `{run['preset']}`", *changed, f"seed {run['seed']}"])
    hours = last["hours"]
    time = f"{hours:.2f} h" if hours >= 1 else f"{60 * hours:.1f} min"
    numbers = [f"{last[k]:,}" for k in ("step", "frame", "update")] + [time]
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
