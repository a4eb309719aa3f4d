"""The diary of a run: one line of JSON per log step, plus a progress bar and TensorBoard if wanted.

    metrics.jsonl   {"step": 2000, "frame": 8000, "update": 250, "hours": 0.1, "loss/kl": 3.2, ...}

Losses arrive as tensors and stay on their device; only `write` waits for the numbers.
"""

import json
import math
import time
from pathlib import Path

from torch import Tensor
from tqdm.auto import tqdm

from dreamer_lite.distributed import gathered, leads
from dreamer_lite.replay import atomic


class Logger:
    """Averages what is added between two writes.

    steps: agent steps of the whole run, for the time left.  frames_per_step: action repeat.
    """

    def __init__(
        self,
        logdir: Path | str,
        steps: int,
        *,
        frames_per_step: int = 1,
        tensorboard: bool = False,
        progress: bool = True,
    ):
        self.writer_type = summary_writer() if tensorboard else None
        self.path = Path(logdir) / "metrics.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.frames_per_step = frames_per_step
        self.sums: dict[str, Tensor | float] = {}
        self.counts: dict[str, int] = {}
        self.hours_before, self.started = 0.0, time.monotonic()
        self.last_update, self.last_time = None, self.started
        self.bar = tqdm(total=steps, unit="step", disable=not progress, dynamic_ncols=True)
        self.writer = None

    def add(self, name: str, value: Tensor | float) -> None:
        """Count a number, or a tensor [], into the mean of `name`."""
        if isinstance(value, Tensor):
            value = value.detach().float()
        # A new sum each time: a graph's output buffer may be overwritten by its next replay.
        self.sums[name] = self.sums.get(name, 0.0) + value
        self.counts[name] = self.counts.get(name, 0) + 1

    def write(self, step: int, update: int) -> dict:
        """Append one line and forget the sums.  Returns the line's content."""
        state = self.pooled()
        means = {name: x / state["counts"][name] for name, x in sorted(state["sums"].items())}
        self.sums, self.counts = {}, {}
        row = {
            "step": step,
            "frame": step * self.frames_per_step,
            "update": update,
            "hours": round(self.hours, 6),
        }
        if broken := sum(not math.isfinite(x) for x in means.values()):
            row["nonfinite"] = broken  # JSON knows neither NaN nor infinity
        row |= {name: x if math.isfinite(x) else None for name, x in means.items()}
        if leads():
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(row, allow_nan=False) + "\n")
            self._show(step, update, means)
            self._tensorboard(step, means)
        return row

    def _show(self, step: int, update: int, means: dict[str, float]) -> None:
        now = time.monotonic()
        shown = {k: f"{x:.3g}" for k, x in means.items() if "score" in k or k.startswith("loss")}
        if self.last_update is not None:
            rate = (update - self.last_update) / max(now - self.last_time, 1e-9)
            shown["updates/s"] = f"{rate:.3g}"
        self.last_update, self.last_time = update, now
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update(step - self.bar.n)

    def _tensorboard(self, step: int, means: dict[str, float]) -> None:
        if self.writer_type is None:
            return
        if self.writer is None:  # hides what an earlier life of this run wrote from here on
            self.writer = self.writer_type(str(self.path.parent / "tensorboard"), purge_step=step)
        for name, mean in means.items():
            self.writer.add_scalar(name, mean, step)
        self.writer.flush()

    @property
    def hours(self) -> float:
        """Wall-clock time of the run, over all its lives."""
        return self.hours_before + (time.monotonic() - self.started) / 3600

    def state(self) -> dict:
        """What a checkpoint must keep, ready for JSON; sums not yet written included."""
        sums = {name: float(x) for name, x in self.sums.items()}
        return {"hours": self.hours, "sums": sums, "counts": self.counts}

    def pooled(self) -> dict:
        """`state`, with the sums of all processes of the run; each of them calls this."""
        states = gathered(self.state())
        total = {"sums": {}, "counts": {}}
        for part, numbers in total.items():
            for state in states:
                for name, x in state[part].items():
                    numbers[name] = numbers.get(name, 0) + x
        return states[0] | total

    def restore(self, state: dict, step: int) -> None:
        """Go on after the checkpoint of `step`: later lines belong to a life that was lost."""
        self.hours_before, self.started = state["hours"], time.monotonic()
        self.sums, self.counts = dict(state["sums"]), dict(state["counts"])
        rewind(self.path, step)
        self.bar.initial = self.bar.n = self.bar.last_print_n = (
            step  # not part of this life's speed
        )
        self.bar.unpause()

    def close(self) -> None:
        """Finish the progress bar and TensorBoard's file."""
        self.bar.close()
        if self.writer is not None:
            self.writer.close()


def summary_writer() -> type:
    """TensorBoard's writer, asked for before the run rather than an hour into it.

    ValueError where it is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            "tensorboard=True needs the package tensorboard, which is not installed: "
            "pip install -e '.[tensorboard]'"
        ) from error
    return SummaryWriter


def rewind(path: Path, step: int) -> None:
    """Drop lines later than `step` and a last line that was cut off, in one atomic replacement."""
    if not leads() or not path.exists():
        return
    rows = [row for row in read_metrics(path) if row["step"] <= step]
    with atomic(path) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read_metrics(path: Path | str) -> list[dict]:
    """The lines of a metrics.jsonl, or of the one in a run's folder; broken lines are left out.

    ValueError where there is none.
    """
    path = Path(path)
    path = path / "metrics.jsonl" if path.is_dir() else path
    if not path.exists():
        raise ValueError(f"no metrics at {path}; give the folder of a run that has logged")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [row for row in map(parse, lines) if row is not None]


def parse(line: str) -> dict | None:
    """One line, or None if a killed run left half of it."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and "step" in row else None
