"""Many runs on many machines: settings × environments × seeds as tasks on Ray (chapter 13).

    sweep ──Job──> work, on any machine:  fetch ─> train ─> evaluate
                                            ^        |
    <out>/<run>/  <── Store, an actor  <────┴─ push ─┘  what is new in the run folder, every
                      on this machine                   few seconds

No disk is shared. A run lives in a temporary folder of its machine and is copied to `out` while it
grows; full chunks of its replay only once. If the machine is lost, the run goes on elsewhere from
its newest checkpoint in `out`; so does the whole sweep when it is started again. ValueError for
plans that cannot be carried out, and folders of other sweeps.
"""

import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tqdm.auto import tqdm

from dreamer_lite import checkpoint, ledger, scores
from dreamer_lite.guard import between, require
from dreamer_lite.logger import parse
from dreamer_lite.presets import Config, from_dict, to_dict
from dreamer_lite.training import evaluate, train

PIECE = 2**23  # bytes that travel at once
INCOMING = ".incoming"  # files of a run that are not all there yet
Stamps = dict[str, tuple[int, int]]  # path in a run folder -> size, time of the last change


@dataclass(frozen=True)
class Job:
    """One run of a sweep."""

    label: str  # what the settings are called, e.g. by their preset
    config: dict[str, Any]  # the settings, as `presets.to_dict` writes them
    env: str
    seed: int

    @property
    def name(self) -> str:
        """Its folder."""
        return f"{self.label}-{self.env.rpartition('/')[2]}-s{self.seed}"


@dataclass(frozen=True)
class Plan:
    """What all runs of a sweep have in common."""

    steps: int  # agent steps of each run
    episodes: int = 20  # of the evaluation at its end
    cpus: float = 1.0  # processor cores that a run occupies, and threads it has
    gpus: float = 0.0  # GPUs that a run occupies; 0.5: two runs share one; 0: trains on the CPU
    memory: float = 0.0  # GB that a run occupies; 0: not counted
    retries: int = 3  # failures in a row, without getting any further, until a run is given up
    log_every: int = 1000  # agent steps between two lines of metrics
    save_minutes: float = 5.0  # between two checkpoints
    sync_seconds: float = 10.0  # between two copies of what is new

    def __post_init__(self) -> None:
        between(1, float("inf"), "a sweep trains", steps=self.steps, episodes=self.episodes)
        for name in ("cpus", "gpus", "memory", "retries", "save_minutes"):
            between(0, float("inf"), "see Plan", **{name: getattr(self, name)})


def jobs(configs: dict[str, Config], envs: list[str], seeds: list[int]) -> list[Job]:
    """All combinations, seed by seed, so that a sweep cut short has some of everything."""
    made = [
        Job(label, to_dict(cfg), env, seed)
        for seed in seeds
        for label, cfg in configs.items()
        for env in envs
    ]
    twice = sorted({j.name for j in made if [i.name for i in made].count(j.name) > 1})
    require(not twice, "jobs", "runs of different names", ", ".join(twice), "leave one out")
    require(bool(made), "jobs", "at least one", "none", "name settings, environments and seeds")
    return made


# --- where the runs are kept --------------------------------------------------------------------


class Superseded(RuntimeError):
    """A later attempt at the same run has taken over."""


class Store:
    """All run folders of a sweep, on the machine where it was started.

    A file appears under its name only after the whole of a `commit` has arrived.
    """

    def __init__(self, root: str):
        self.root, self.attempts = Path(root), {}

    def claim(self, name: str, attempt: int) -> dict[str, int]:
        """From here on only this attempt may write; answers what is there, {path: bytes}."""
        self.attempts[name] = attempt
        shutil.rmtree(self.root / name / INCOMING, ignore_errors=True)
        return {path: size for path, (size, _) in stamps(self.root / name).items()}

    def read(self, name: str, attempt: int, path: str, start: int) -> bytes:
        """A piece of a file."""
        with open(self.root / name / path, "rb") as file:
            file.seek(start)
            return file.read(PIECE)

    def put(self, name: str, attempt: int, path: str, start: int, data: bytes) -> None:
        """A piece of a file that will be committed."""
        self.check(name, attempt)
        target = self.root / name / INCOMING / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "r+b" if start else "wb") as file:
            file.seek(start)
            file.write(data)

    def commit(self, name: str, attempt: int, paths: list[str]) -> None:
        """What has arrived takes its place, what is not in `paths` goes.

        First all that is new, and last of that the files that vouch for checkpoints: whenever this
        stops, a complete checkpoint is there.
        """
        self.check(name, attempt)
        folder = self.root / name
        incoming = folder / INCOMING
        arrived = [path for path in paths if (incoming / path).exists()]
        for path in sorted(arrived, key=lambda path: path.endswith("state.json")):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            os.replace(incoming / path, folder / path)
        for path in stamps(folder).keys() - set(paths):
            (folder / path).unlink()
        shutil.rmtree(incoming, ignore_errors=True)
        for empty in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
            if not any(empty.iterdir()):
                empty.rmdir()

    def check(self, name: str, attempt: int) -> None:
        """Refuses an attempt that was taken for dead."""
        if attempt != self.attempts[name]:
            raise Superseded(f"attempt {attempt} at {name} was followed by {self.attempts[name]}")


def stamps(folder: Path) -> Stamps:
    """The finished files of a run folder, in the order in which they may be copied.

    Checkpoints are listed first and the diary is read last: all rows and lines that belong to a
    checkpoint are there when it is.
    """
    first = files(folder / "checkpoints", folder)
    others = [path for path in files(folder, folder) if not path.startswith("checkpoints/")]
    others.sort(key=lambda path: path == "metrics.jsonl")
    stats = {path: (folder / path).stat() for path in [*first, *others]}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}


def files(folder: Path, root: Path) -> list[str]:
    """Paths below `root`, without what is hidden because it is not complete."""
    found = [path.relative_to(root) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path.as_posix() for path in found if not any(part[0] == "." for part in path.parts)]


class Mirror:
    """Keeps the copy of one run folder in the store up to date.

    ask: calls a method of the store for this attempt.
    """

    def __init__(self, ask: Callable, folder: Path):
        self.ask, self.folder = ask, folder
        self.known: Stamps = {}

    def fetch(self) -> None:
        """Brings what earlier attempts left."""
        for path, size in self.ask("claim").items():
            target = self.folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "wb") as file:
                while file.tell() < size:
                    file.write(self.ask("read", path, file.tell()))
        self.known = stamps(self.folder)

    def push(self) -> bool:
        """Sends what is new; False if a file vanished meanwhile, so that nothing was changed."""
        try:
            now = stamps(self.folder)
            new = [path for path, stamp in now.items() if self.known.get(path) != stamp]
            for path in new:
                self.send(path)
        except FileNotFoundError:  # a new checkpoint has replaced an old one
            return False
        if new or now.keys() != self.known.keys():
            self.ask("commit", list(now))
        self.known = now
        return True

    def send(self, path: str) -> None:
        """One file, piece by piece."""
        with open(self.folder / path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            for start in range(0, max(1, size), PIECE):  # an empty file is one empty piece
                self.ask("put", path, start, file.read(PIECE))

    @contextmanager
    def pushing(self, seconds: float) -> Iterator[None]:
        """Pushes every few seconds, beside what is done meanwhile."""
        done = threading.Event()

        def again() -> None:
            while not done.wait(seconds):
                try:
                    self.push()
                except Exception as error:  # the next attempt, or the last push, will tell
                    print(f"{self.folder.name} was not copied: {error}", file=sys.stderr)

        thread = threading.Thread(target=again, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


# --- one run, on any machine --------------------------------------------------------------------


def work(job: Job, plan: Plan, attempt: int, store) -> None:
    """The task: a run from its newest checkpoint in the store to its result."""
    import ray

    def ask(method: str, *args):
        return ray.get(getattr(store, method).remote(job.name, attempt, *args))

    with TemporaryDirectory(prefix="dreamer-lite-") as scratch:
        run(job, plan, Mirror(ask, Path(scratch) / job.name))


def run(job: Job, plan: Plan, mirror: Mirror) -> None:
    """Trains and evaluates in the mirror's folder; the result is its last file."""
    torch.set_num_threads(max(1, int(plan.cpus)))
    mirror.fetch()
    with mirror.pushing(plan.sync_seconds):
        agent = train(
            from_dict(job.config),
            job.env,
            plan.steps,
            mirror.folder,
            seed=job.seed,
            device="cuda" if plan.gpus else "cpu",
            log_every=plan.log_every,
            save_minutes=plan.save_minutes,
            progress=False,
        )
        score = evaluate(agent, job.env, plan.episodes)
    result = {"steps": plan.steps, "score": score.mean, **score._asdict()}
    ledger.write(mirror.folder / "result.json", result)
    require(mirror.push(), "folder", "left alone", "a file less", "nothing else may write there")


# --- the sweep ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attempt:
    """A try at a job: its number, the step it begins at, failures since a step was won."""

    job: Job
    number: int = 1
    step: int = 0
    idle: int = 0


class Sweep:
    """Hands out the jobs, and hands out again those whose machine was lost."""

    def __init__(self, ray, plan: Plan, out: Path, progress: bool):
        self.ray, self.plan, self.out = ray, plan, out
        resources = {"num_cpus": plan.cpus, "num_gpus": plan.gpus}
        if plan.memory:
            resources["memory"] = int(plan.memory * 1e9)
        # A process for each run: its memory is free when it ends.
        self.task = ray.remote(max_calls=1, max_retries=0, **resources)(work)
        self.store = store_here(ray, out)
        self.failed: dict[str, str] = {}
        self.progress = progress

    def run(self, todo: list[Job]) -> None:
        """Until every job has a result or has failed."""
        pending = {}
        for job in todo:
            self.submit(Attempt(job, step=self.stored(job.name)), pending)
        total = self.plan.steps * len(todo)
        with tqdm(total=total, unit="step", disable=not self.progress, dynamic_ncols=True) as bar:
            while pending:
                ended, _ = self.ray.wait(list(pending), timeout=min(5.0, self.plan.sync_seconds))
                for ref in ended:
                    self.settle(ref, pending.pop(ref), pending)
                bar.n = sum(last_step(self.out / job.name) for job in todo)
                bar.set_postfix(left=len(pending), failed=len(self.failed))

    def submit(self, attempt: Attempt, pending: dict) -> None:
        """One more task."""
        pending[self.task.remote(attempt.job, self.plan, attempt.number, self.store)] = attempt

    def settle(self, ref, attempt: Attempt, pending: dict) -> None:
        """What became of a task: a result, a mistake that will not go away, or another attempt."""
        name = attempt.job.name
        try:
            self.ray.get(ref)
            self.note(name, attempt, "done")
            return
        except self.ray.exceptions.RayError as error:
            cause, reason = error, explained(error)
        step = self.stored(name)
        idle = 0 if step > attempt.step else attempt.idle + 1
        if isinstance(cause, ValueError) or idle > self.plan.retries:
            self.failed[name] = reason
            self.note(name, attempt, "failed", reason)
        else:
            self.note(name, attempt, f"lost, goes on from step {step}", reason)
            self.submit(Attempt(attempt.job, attempt.number + 1, step, idle), pending)

    def stored(self, name: str) -> int:
        """The step of the newest checkpoint in `out`."""
        found = checkpoint.folders(self.out / name / "checkpoints")
        return checkpoint.step_of(found[0]) if found else 0

    def note(self, name: str, attempt: Attempt, event: str, reason: str = "") -> None:
        """A line of sweep.jsonl, and on the screen."""
        line = {"at": ledger.now(), "run": name, "attempt": attempt.number, "event": event}
        line |= {"began_at": attempt.step, "reason": reason}
        with open(self.out / "sweep.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self.progress:
            tqdm.write(f"{name}: {event}{f' ({reason})' if reason else ''}", file=sys.stderr)


def sweep(
    todo: list[Job],
    plan: Plan,
    out: Path | str,
    *,
    address: str | None = None,
    progress: bool = True,
) -> dict[str, str]:
    """Runs every job that has no result in `out` yet; returns {run: why it failed}.

    address: of a Ray cluster, "auto" for the one this machine belongs to; None: this machine alone.
    The package must be installed on all machines, in the same version.
    """
    out = Path(out).resolve()
    todo = [job for job in todo if not finished(job, plan, out)]
    if not todo:
        return {}
    out.mkdir(parents=True, exist_ok=True)
    with connected(address) as ray:
        sweeping = Sweep(ray, plan, out, progress)
        sweeping.run(todo)
    return sweeping.failed


def finished(job: Job, plan: Plan, out: Path) -> bool:
    """Whether `out` has the result; refuses a folder of the same name with other settings."""
    folder = out / job.name
    if not (folder / "config.json").exists():
        return False
    stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    same = to_dict(from_dict(stored)) == json.loads(json.dumps(job.config))
    remedy = "name them otherwise or choose another folder"
    require(same, "settings", "those of the runs in the folder", f"others in {folder}", remedy)
    result = read_result(folder)
    return bool(result) and result["steps"] >= plan.steps


def read_result(folder: Path) -> dict[str, Any] | None:
    """The result of a run, if it has ended."""
    path = folder / "result.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def last_step(folder: Path) -> int:
    """The step of the newest line of metrics."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return 0
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 2**14))
        rows = [parse(line) for line in file.read().decode(errors="replace").splitlines()]
    return max((row["step"] for row in rows if row), default=0)


def collect(todo: list[Job], plan: Plan, out: Path | str, scale: scores.Scale | None = None) -> str:
    """Writes results.json, results.md and curves.png of all finished runs; returns the table."""
    done = [(job, Path(out) / job.name) for job in todo if finished(job, plan, Path(out))]
    found = [
        scores.Result(job.label, job.env, job.seed, read_result(folder)["score"], folder)
        for job, folder in done
    ]
    return scores.write(found, Path(out), scale)


def explained(error: Exception) -> str:
    """What went wrong, in a line: the end of a task's traceback, the beginning of Ray's advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    return lines[-1] if hasattr(error, "traceback_str") else f"{type(error).__name__}: {lines[0]}"


# --- Ray ----------------------------------------------------------------------------------------


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Ray, connected to a cluster or started here; as it was before afterwards."""
    try:
        import ray
    except ImportError as error:
        raise ValueError(
            "sweep needs the package ray, got none; pip install 'dreamer-lite[ray]'"
        ) from error
    remedy = "start the sweep on a machine of the cluster"
    remote = bool(address) and address.startswith("ray://")
    require(not remote, "address", "of a cluster this machine belongs to", f"{address}", remedy)
    if ray.is_initialized():
        yield ray
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # says nothing to anybody
    options = {} if address else {"include_dashboard": False}
    ray.init(address=address or "local", log_to_driver=False, **options)
    try:
        yield ray
    finally:
        ray.shutdown()


def store_here(ray, out: Path):
    """The store as an actor on this machine, whatever else runs here."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(num_cpus=0)(Store)
    return actor.options(scheduling_strategy=here).remote(str(out))
