"""The life of an agent: act, remember, learn, and survive being killed (chapters 12 and 13).

    envs.VectorEnv --row--> replay.Replay --sample--> agent.Dreamer.update
          ^                                                  |
          └────────────── action ── agent.Dreamer.act <──────┘

    <logdir>/config.json  run.json  metrics.jsonl  checkpoints/  replay/  milestones/

A step is one action of one stream. Frames are steps times the environment's action repeat. Several
processes (`distributed`) share the streams, the batch and the replay of a run and step together.
ValueError for numbers out of range, settings that do not fit together, and folders of other runs.
"""

import hashlib
import math
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from dreamer_lite import checkpoint, distributed, envs, fast, fast_gpu, ledger, parts
from dreamer_lite.agent import Dreamer
from dreamer_lite.distributions import Categorical
from dreamer_lite.guard import between, instances, require, whole
from dreamer_lite.logger import Logger, rewind
from dreamer_lite.presets import Config, from_dict, to_dict
from dreamer_lite.replay import LatentSpec, Replay, check_memory, nbytes
from dreamer_lite.rssm import State
from dreamer_lite.spaces import ActionSpec, ObsSpec

MILESTONES = (0.01, 0.1, 0.3, 1.0)  # shares of the run at which weights are kept
EVALUATION_SEED = 1_000_000  # far from the seeds that runs are started with


def train(
    cfg: Config,
    env_id: str,
    steps: int,
    logdir: Path | str,
    *,
    seed: int = 0,
    device: str = "auto",
    log_every: int = 1000,
    eval_every: int = 0,
    eval_episodes: int = 10,
    save_minutes: float = 5.0,
    tensorboard: bool = False,
    progress: bool = True,
) -> Dreamer:
    """Trains an agent for `steps` agent steps over all streams; resumes what `logdir` holds.

    A resumed run may ask for more steps; task, seed and settings must be those it began with. On
    CPU it continues bit for bit, wherever it was killed. SIGINT and SIGTERM save, then raise
    `Interrupted`.
    log_every, eval_every: steps; eval_every = 0 never evaluates. Started by torchrun, every process
    takes its share of the same run; another number of them may resume it, not bit for bit.
    ValueError for numbers below 1, and a folder that holds another run, or in which one is going.
    """
    instances(Config, "presets.TOY is a small one", cfg=cfg)
    whole(1, "agent steps over all streams; a toy needs 50,000", steps=steps)
    between(0, math.inf, "5 is usual", save_minutes=save_minutes)
    place, folder = pick_device(device), Path(logdir)
    with distributed.group(place), alone(folder), saving_on_signal() as signals:
        watch = Watch(log_every, eval_every, eval_episodes)
        run = Run(cfg, env_id, steps, logdir, seed, device, watch, tensorboard, progress)
        while run.step < steps and not stopped(signals):
            action = run.act()
            for _ in range(run.pace.due()):
                run.learn()
            run.move(action)  # the environments step while a GPU still learns
            run.evaluate()
            run.log()
            run.keep(MILESTONES)
            run.save_after(60 * save_minutes)
        run.finish()
        if run.step < steps:
            raise Interrupted(stopped(signals))
    return run.agent


@contextmanager
def alone(logdir: Path) -> Iterator[None]:
    """Refuses a folder in which another process trains: each would delete what the other saves.

    The lock holds on this machine and dies with its process. Windows has none.
    """
    if os.name != "posix" or not distributed.leads():
        yield
        return
    import fcntl

    name = hashlib.sha256(f"{os.getuid()} {logdir.resolve()}".encode()).hexdigest()[:16]
    with open(Path(tempfile.gettempdir()) / f"dreamer-lite-{name}.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            more = "stop it, or choose another folder"
            require(False, "logdir", "a folder in which nobody trains", f"{logdir}", more)
        yield


def stopped(signals: list[int]) -> int:
    """The signal that any process of the run has received; 0 if none has."""
    return int(distributed.largest(max(signals, default=0)))


@dataclass(frozen=True)
class Watch:
    """What is measured on the way. Learning does not depend on it."""

    log_every: int = 1000  # steps between two lines of metrics
    eval_every: int = 0  # steps between two evaluations; 0: none
    eval_episodes: int = 10

    def __post_init__(self) -> None:
        remedy = "the defaults are 1000, 0 (never) and 10"
        whole(1, remedy, log_every=self.log_every, eval_episodes=self.eval_episodes)
        whole(0, remedy, eval_every=self.eval_every)

    def changed(self) -> dict[str, int]:
        """What differs from the defaults."""
        found = {f.name: (getattr(self, f.name), f.default) for f in fields(self)}
        return {name: value for name, (value, default) in found.items() if value != default}


class Run:
    """Everything a checkpoint holds, and the steps of the loop."""

    def __init__(
        self,
        cfg: Config,
        env_id: str,
        steps: int,
        logdir: Path | str,
        seed: int = 0,
        device: str = "auto",
        watch: Watch = Watch(),  # noqa: B008 (immutable)
        tensorboard: bool = False,
        progress: bool = True,
    ):
        torch.manual_seed(seed)  # the first weights are those of all processes
        fast.keep_freed_memory()
        self.cfg, self.env_id, self.steps, self.seed = cfg, env_id, steps, seed
        self.logdir, self.device, self.watch = Path(logdir), pick_device(device), watch
        self.own, own_seed = share(cfg), parts.seed(seed)  # of this process
        progress = progress and distributed.leads()
        self.envs = make_envs(cfg, env_id, self.own.envs, own_seed)
        obs, action = self.envs.obs_spec, self.envs.action_spec
        self.replay = make_replay(self.own, obs, action.size, own_seed, self.device, progress)
        self.agent = make_agent(cfg, obs, action, self.device)
        if distributed.rank():
            torch.manual_seed(own_seed)
        self.pace = Pace(cfg.replay.ratio, cfg.replay.batch * cfg.replay.length)
        self.logger = Logger(
            logdir, steps, frames_per_step=self.envs.repeat,
            tensorboard=tensorboard, progress=progress,
        )  # fmt: skip
        name = self.logdir.resolve().name
        options = {"env": env_id, "steps": steps, "seed": seed} | watch.changed()
        self.record = ledger.describe(cfg, name, options, self.device)
        self.step = 0
        self.logged = 0  # step of the latest regular line of metrics
        self.begin()
        self.saved = time.monotonic()

    def begin(self) -> None:
        """Continues the newest checkpoint of the run folder, or starts from nothing."""
        resuming = bool(checkpoint.folders(self.logdir / "checkpoints"))
        self.refuse_unlike(resuming)
        if resuming:
            self.resume()
        elif distributed.leads():
            ledger.clear(self.logdir)
        self.note("running")  # before any metrics: it marks the folder as ours
        distributed.meet()  # it is on the disk
        self.refuse_unlike(ledger.read(self.logdir).get("started"))
        if not resuming:
            self.row, self.state = self.envs.reset(), self.agent.initial(self.own.envs)
            self.logger.write(0, 0)

    def refuse_unlike(self, seen) -> None:
        """Refuses a run folder in which not all processes see the same."""
        remedy = "put it on a disk that all machines share"
        same = len(set(distributed.gathered(seen))) == 1
        require(same, "logdir", "one folder for all processes", f"{self.logdir} on each", remedy)

    # The loop

    def act(self) -> np.ndarray:
        """What every stream does on its newest row, which is remembered.  [N,A]."""
        action, self.state = self.agent.act(self.row, self.state)
        if self.step < self.cfg.replay.prefill:
            action = self.envs.sample()
        else:
            action = self.agent.explore(action)
        self.replay.add(self.row, self.state if self.cfg.replay.latents else None)
        self.step += self.cfg.envs
        if self.ready():
            if not self.agent.updates and not self.pace.debt:
                self.pace.debt = self.cfg.replay.pretrain * self.pace.size
            self.pace.earn(self.cfg.envs)
        return action

    def move(self, action: np.ndarray) -> None:
        """One step of every environment.  action [N,A]."""
        self.row = self.envs.step(action)
        for episode in self.envs.finished:
            self.logger.add("episode/score", episode.score)
            self.logger.add("episode/length", episode.length)

    def ready(self) -> bool:
        """Whether there is enough experience to learn from; refuses to wait for ever."""
        r = self.cfg.replay
        begin = max(r.warmup, r.prefill)
        if self.step < begin or self.agent.updates:
            return self.step >= begin  # what was enough once need not be counted at every step
        found = not distributed.largest(not self.replay.can_sample(r.length))
        if not found and self.step > begin + 20 * r.length * self.cfg.envs:
            what = "episode has" if r.episodes else "stream keeps"
            more = "set replay.episodes=False" if r.episodes else "raise replay.capacity"
            raise ValueError(
                f"no {what} replay.length = {r.length} rows after {self.step} steps; lower "
                f"replay.length or {more}"
            )
        return found

    def learn(self) -> None:
        """One update, whose fresh latents replace the stored ones."""
        sample = self.replay.sample(self.own.replay.length, self.own.replay.batch)
        states, metrics = self.agent.update(sample.sequence, sample.start)
        if self.cfg.replay.latents:
            self.replay.write_back(sample.where, states)
        for name, value in metrics.items():
            self.logger.add(name, value)

    def evaluate(self) -> None:
        """Mean and spread of the score, without a trace in the random numbers of training."""
        every, episodes = self.watch.eval_every, self.watch.eval_episodes
        seed = EVALUATION_SEED + self.seed
        if every and distributed.leads() and self.passed(every * (self.step // every)):
            score = evaluate(self.agent, self.env_id, episodes, seed=seed)
            self.logger.add("eval/score", score.mean)
            self.logger.add("eval/sd", score.sd)

    def log(self) -> None:
        """A line of metrics.jsonl per interval."""
        if self.step - self.logged >= self.watch.log_every:
            self.logged = self.step
            self.logger.write(self.step, self.agent.updates)

    def keep(self, shares: tuple[float, ...]) -> None:
        """The weights at some shares of the run, in half precision: how the dream grew."""
        if distributed.leads() and any(self.passed(share * self.steps) for share in shares):
            folder = self.logdir / "milestones" / f"{self.step:010d}"
            config = {"config": to_dict(self.cfg), "run": self.record, "step": self.step}
            checkpoint.save_weights(folder, self.agent.state_dict(), config)

    def passed(self, mark: float) -> bool:
        """Whether the latest tick arrived at or went past step `mark`."""
        return self.step - self.cfg.envs < mark <= self.step

    def finish(self) -> None:
        """The last checkpoint, the last line of metrics, and how it ended.

        The line comes after the checkpoint, which keeps its sums: a run that is resumed or extended
        writes it anew where it belongs, as if it had never stopped.
        """
        self.save()
        if self.step > self.logged:
            self.logger.write(self.step, self.agent.updates)
        self.logger.close()
        self.envs.close()
        self.note("complete" if self.step >= self.steps else "interrupted", ended=ledger.now())

    # Checkpoints

    def save_after(self, seconds: float) -> None:
        """A checkpoint if the last one is older than that."""
        if distributed.largest(time.monotonic() - self.saved >= seconds):
            self.save()
            self.note("running")

    def save(self) -> None:
        """Weights, moments, counters, random states, replay and the running episodes."""
        episodes, arrays = self.envs.state()
        tensors = {"acting/h": self.state.h, "acting/z": self.state.z}
        tensors |= {f"envs/{name}": torch.as_tensor(x) for name, x in arrays.items()}
        meta = {"envs": episodes, "logger": self.logger.state()}
        part = parts.Part(tensors | checkpoint.rng_tensors(), meta)
        agent, counters = agent_tensors(self.agent), self.counters()
        parts.save(self.logdir, self.step, agent, part, counters, self.replay)
        self.saved = time.monotonic()

    def counters(self) -> dict:
        """What a checkpoint holds besides arrays, ready for JSON."""
        return {
            "config": to_dict(self.cfg),
            "run": self.record,
            "step": self.step,
            "logged": self.logged,
            "updates": self.agent.updates,
            "optimizers": {part: o.count for part, o in self.agent.optimizers.items()},
            "pace": self.pace.debt,
            "logger": self.logger.pooled(),
        }

    def resume(self) -> None:
        """The inverse of `save`; other processes than those that saved begin new episodes."""
        tensors, meta, folder = checkpoint.load(self.logdir, check=self.adopt)
        load_agent(self.agent, tensors, meta)
        self.step, self.logged, self.pace.debt = meta["step"], meta["logged"], meta["pace"]
        if part := parts.read(folder, tensors, meta):
            self.go_on(part)
            self.logger.restore(part.meta["logger"], self.step)
        else:
            self.set_out()
            nothing = {} if distributed.leads() else {"sums": {}, "counts": {}}
            self.logger.restore(meta["logger"] | nothing, self.step)
        rewind(self.logger.path, self.logged)  # the last line of an interrupted run goes, too
        stored = meta["run"] | ledger.read(self.logdir)
        self.record = ledger.resumed(stored, self.record, self.step)

    def go_on(self, part: parts.Part) -> None:
        """Every stream continues; the environments replay the actions of their running episodes."""
        tensors = part.tensors
        self.state = State(*(tensors[f"acting/{k}"].to(self.device) for k in "hz"))
        arrays = {k[5:]: x.numpy() for k, x in tensors.items() if k.startswith("envs/")}
        self.row = self.envs.restore(part.meta["envs"], arrays)
        checkpoint.restore_rng(tensors)  # nothing may draw between here and the loop

    def set_out(self) -> None:
        """Every stream begins a new episode, with random numbers that were not used before."""
        seed = self.envs.seed = parts.seed(self.seed, self.step)
        torch.manual_seed(seed)
        self.replay.rng = np.random.Generator(np.random.PCG64(seed))
        self.row, self.state = self.envs.reset(), self.agent.initial(self.own.envs)

    def adopt(self, meta: dict, folder: Path) -> None:
        """Takes over the replay of a checkpoint, if it belongs to this run."""
        asked = {"env": self.env_id, "seed": self.seed}
        stored = {name: meta["run"][name] for name in asked}
        settings = to_dict(from_dict(meta["config"]))  # fields younger than the file: defaults
        checkpoint.compare_config(stored | settings, asked | to_dict(self.cfg))
        parts.load(self.replay, self.logdir, folder)

    def note(self, status: str, **more: str) -> None:
        """Writes config.json and run.json: the record, and how far the run has come."""
        if not distributed.leads():
            return
        progress = {
            "status": status,
            "step": self.step,
            "frames": self.step * self.envs.repeat,
            "updates": self.agent.updates,
            "hours": round(self.logger.hours, 4),
            "memory_gb": round(ledger.peak_memory() / 1e9, 2),
        }
        ledger.write(self.logdir / "config.json", to_dict(self.cfg))
        ledger.write(self.logdir / "run.json", self.record | progress | more)


class Pace:
    """How many updates are due: `ratio` replayed steps per agent step, `size` per update.

    Source: counted from the authors' code of V3. ValueError for a ratio below 0 or no size.
    """

    def __init__(self, ratio: float, size: int):
        between(0, math.inf, "V3 has 32", ratio=ratio)
        whole(1, "batch times length", size=size)
        self.ratio, self.size, self.debt = ratio, size, 0.0

    def earn(self, steps: int) -> None:
        """Counts steps of the agent, over all streams."""
        self.debt += steps * self.ratio

    def due(self) -> int:
        """Whole updates to do now; the rest is kept for later."""
        updates, self.debt = divmod(self.debt, self.size)
        return int(updates)


# --- building ------------------------------------------------------------------------------------


def pick_device(name: str) -> torch.device:
    """auto: a CUDA GPU if there is one, else the CPU.  ValueError for other names."""
    there = {
        "cuda": torch.cuda.is_available(),
        "cpu": True,
        "mps": torch.backends.mps.is_available(),
    }
    if name == "auto":
        name = "cuda" if there["cuda"] else "cpu"
    if name not in there:
        raise ValueError(f"device must be auto, cpu, cuda or mps, got {name!r}; auto chooses")
    found = f"{name!r}, which this PyTorch cannot use here"
    require(there[name], "device", "one that is there", found, "auto chooses; see the doctor")
    return torch.device(name)


def share(cfg: Config) -> Config:
    """What one of several processes has of a run: its streams, sequences and memory."""
    count = distributed.size()
    for name, total in {"envs": cfg.envs, "replay.batch": cfg.replay.batch}.items():
        remedy = f"each takes as many; choose --{name} or --nproc-per-node so that it fits"
        expected = f"a multiple of the {count} processes"
        require(total % count == 0, name, expected, f"{total}", remedy)
    replay = replace(
        cfg.replay, batch=cfg.replay.batch // count, capacity=cfg.replay.capacity // count
    )
    return replace(cfg, envs=cfg.envs // count, replay=replay)


def make_envs(cfg: Config, env_id: str, streams: int, seed: int) -> envs.VectorEnv:
    """Streams of `env_id`; Atari games under the protocol of the settings."""
    protocol = cfg.protocol if env_id.startswith("ALE/") else None
    return envs.make(env_id, streams, seed, protocol)


def make_agent(cfg: Config, obs: ObsSpec, action: ActionSpec, device: torch.device) -> Dreamer:
    """An agent with fast layers on its device; its first weights are the same on every device."""
    agent = fast.accelerate(Dreamer(cfg, obs, action)).to(device)
    agent.build_optimizers()  # anew: the moments live where the parameters do
    return fast_gpu.record(agent) if device.type == "cuda" else agent


def make_replay(
    cfg: Config,
    obs: ObsSpec,
    action: int,
    seed: int,
    device: torch.device,
    progress: bool = False,
) -> Replay:
    """The memory the settings ask for, refused if it would not fit; progress: says its size."""
    r, latent = cfg.replay, latent_spec(cfg)
    needed = nbytes(r.capacity, obs, action, latent)
    if progress:
        rows = nbytes(r.capacity, obs, action)
        tqdm.write(
            f"The replay takes {needed / 1e9:.2f} GB of memory when full: {rows / 1e9:.2f} GB "
            f"experience, {(needed - rows) / 1e9:.2f} GB latents.",
            file=sys.stderr,
        )
    check_memory(needed * distributed.local_size())
    kind = {"online": r.online, "episodes": r.episodes, "ends": r.ends}
    replay = fast_gpu.DeviceReplay if fast_gpu.fits(needed, device) else Replay
    return replay(
        r.capacity, cfg.envs, obs, action, latent=latent, seed=seed, device=device, **kind
    )


def latent_spec(cfg: Config) -> LatentSpec | None:
    """What the replay keeps of the agent's states; None where it keeps nothing."""
    if not cfg.replay.latents:
        return None
    if not isinstance(cfg.model.latent, Categorical):
        raise ValueError(
            f"replay.latents needs a Categorical latent, got {cfg.model.latent}; "
            "set replay.latents=False"
        )
    return LatentSpec(cfg.model.deter, cfg.model.latent.groups, cfg.model.latent.classes)


def agent_tensors(agent: Dreamer) -> dict[str, Tensor]:
    """Weights under agent/, moments under moment1/ and moment2/, of any shape."""
    tensors = {f"agent/{k}": x for k, x in agent.state_dict().items()}
    for o in agent.optimizers.values():
        tensors |= {f"moment1/{k}": x for k, x in o.first.items()}
        tensors |= {f"moment2/{k}": x for k, x in o.second.items()}
    return tensors


def load_agent(agent: Dreamer, tensors: dict[str, Tensor], meta: dict) -> None:
    """The inverse of `agent_tensors` (any shape), in place, on whatever device the agent is."""
    agent.load_state_dict({k[6:]: x for k, x in tensors.items() if k.startswith("agent/")})
    agent.updates = meta["updates"]
    for part, o in agent.optimizers.items():
        o.count = meta["optimizers"][part]
        for name in o.params:
            o.first[name].copy_(tensors[f"moment1/{name}"])
            o.second[name].copy_(tensors[f"moment2/{name}"])


# --- stopping ------------------------------------------------------------------------------------


class Interrupted(SystemExit):
    """The run was asked to stop and has saved itself: exit status 128 + signal."""

    def __init__(self, number: int):
        super().__init__(128 + number)


@contextmanager
def saving_on_signal() -> Iterator[list[int]]:
    """A list that receives SIGINT or SIGTERM instead of the process; a second one is not caught.

    Outside the main thread, where Python allows no handlers, the list stays empty.
    """
    received: list[int] = []
    before: dict[int, object] = {}

    def note(number, _frame):
        received.append(number)
        signal.signal(number, before[number])

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.getsignal(number)
            signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --- evaluating ----------------------------------------------------------------------------------


class Score(NamedTuple):
    """Returns of evaluation episodes, in the units of the reward, and their lengths in steps."""

    mean: float
    sd: float  # of the episodes, with n - 1; 0 for a single one
    episodes: list[float]
    lengths: list[int]
    cut: int = 0  # episodes that were not over after `limit` steps


def evaluate(
    agent: Dreamer,
    env_id: str,
    episodes: int,
    *,
    seed: int = EVALUATION_SEED,
    mode: bool | None = None,
    limit: int = 27_000,
) -> Score:
    """Plays `episodes` whole episodes without learning; the same seed plays the same episodes.

    mode: the most likely action; None: what the papers do (V1 and V2 take it, V3 samples). limit:
    steps after which an episode counts as it stands (Atari's own limit of 108,000 frames). The
    first episodes *started* count: the first ones to end would be the short ones. Torch's random
    numbers are as before afterwards. ValueError for fewer episodes or steps than one.
    """
    whole(1, "10 episodes and a limit of 27000 are usual", episodes=episodes, limit=limit)
    device = next(agent.parameters()).device
    mode = agent.cfg.behavior.actor.greedy if mode is None else mode
    world = make_envs(agent.cfg, env_id, min(episodes, 8), seed)
    played: list[Outcome] = []
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        while len(played) < episodes:
            played += play(agent, world, mode, limit)
    world.close()
    return summarize(played[:episodes])


class Outcome(NamedTuple):
    """One evaluation episode; over: it ended by itself."""

    score: float
    length: int
    over: bool


def play(agent: Dreamer, world: envs.VectorEnv, mode: bool, limit: int) -> list[Outcome]:
    """The next episode of every stream, at most `limit` steps of it."""
    row, state = world.reset(), agent.initial(world.num_envs)
    score, length = np.zeros(world.num_envs), np.zeros(world.num_envs, int)
    running = np.ones(world.num_envs, bool)
    for _ in range(limit):
        action, state = agent.act(row, state, mode)
        row = world.step(action)
        score += running * row.reward
        length += running
        running[[episode.stream for episode in world.finished]] = False
        if not running.any():
            break
    return [
        Outcome(float(s), int(n), not r) for s, n, r in zip(score, length, running, strict=True)
    ]


def summarize(played: list[Outcome]) -> Score:
    """Mean and standard deviation.  ValueError for no episode at all."""
    require(bool(played), "played", "at least one episode", "none", "see `play`")
    scores = [one.score for one in played]
    sd = float(np.std(scores, ddof=1)) if len(scores) > 1 else 0.0
    cut = sum(not one.over for one in played)
    return Score(float(np.mean(scores)), sd, scores, [one.length for one in played], cut)


def load_run(path: Path | str, device: str = "cpu") -> tuple[Dreamer, dict]:
    """A trained agent and what is known of its run, "step" included.

    path: a run folder, one of its checkpoints or milestones, a file agent.safetensors, or a run of
    the ledger, whose newest weights are taken. Only checkpoints bring the optimizers' state.
    """
    path = newest_weights(Path(path))
    if shared := path.is_file() or any(path.glob("agent*.safetensors")):
        tensors, meta = checkpoint.load_weights(path)
    else:
        tensors, meta, _ = checkpoint.load(path)
    cfg = from_dict(meta["config"])
    world = make_envs(cfg, meta["run"]["env"], 1, 0)
    agent = make_agent(cfg, world.obs_spec, world.action_spec, pick_device(device))
    world.close()
    if shared:
        agent.load_state_dict(tensors)
    else:
        load_agent(agent, tensors, meta)
    return agent, meta["run"] | {"step": meta["step"]}


def newest_weights(path: Path) -> Path:
    """The latest published weights of a run of the ledger; any other path stays as it is."""
    published = sorted(path.glob("checkpoints/*/agent*.safetensors"))
    return published[-1].parent if published else path
