"""The life of an agent: act, remember, learn, and survive being killed (chapters 12 and 13).

    envs.VectorEnv --row--> replay.Replay --sample--> agent.Dreamer.update
          ^                                                  |
          └────────────── action ── agent.Dreamer.act <──────┘
"""

import json
import platform
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dreamer_lite import checkpoint, envs, fast
from dreamer_lite.agent import Dreamer
from dreamer_lite.distributions import Categorical
from dreamer_lite.logger import Logger
from dreamer_lite.presets import Config, from_dict, to_dict
from dreamer_lite.replay import LatentSpec, Replay, check_memory, nbytes, prune
from dreamer_lite.rssm import State


MILESTONES = (0.01, 0.1, 0.3, 1.0)  # shares of the run at which weights are kept


def train(
    cfg: Config,
    env_id: str,
    steps: int,
    logdir: Path | str,
    *,
    seed: int = 0,
    device: str = "auto",
    log_every: int = 1000,
    save_minutes: float = 5.0,
    tensorboard: bool = False,
    progress: bool = True,
) -> Dreamer:
    """Trains an agent for `steps` agent steps over all streams; resumes what `logdir` holds.

    SIGINT and SIGTERM save and raise `Interrupted`. On CPU a resumed run continues bit for bit.
    """
    run = Run(cfg, env_id, steps, Path(logdir), seed, device, tensorboard, progress)
    with saving_on_signal() as stop:
        while run.step < steps and not stop:
            run.tick()
            for _ in range(run.pace.due()):
                run.learn()
            run.log(log_every)
            run.keep(MILESTONES)
            run.save_after(60 * save_minutes)
        run.finish("complete" if run.step >= steps else "interrupted")
    if stop:
        raise Interrupted(stop[0])
    return run.agent


class Run:
    """Everything a checkpoint holds, and the steps of the loop."""

    def __init__(self, cfg, env_id, steps, logdir, seed, device, tensorboard, progress):
        torch.manual_seed(seed)
        fast.keep_freed_memory()
        self.cfg, self.steps, self.logdir, self.device = cfg, steps, logdir, pick_device(device)
        self.envs = make_envs(cfg, env_id, cfg.envs, seed)
        obs, action = self.envs.obs_spec, self.envs.action_spec
        self.agent = fast.accelerate(Dreamer(cfg, obs, action)).to(self.device)
        self.replay = make_replay(cfg, obs, action.size, seed, self.device)
        self.pace = Pace(cfg.replay.ratio, cfg.replay.batch * cfg.replay.length)
        self.logger = Logger(
            logdir, steps, frames_per_step=self.envs.repeat,
            tensorboard=tensorboard, progress=progress,
        )  # fmt: skip
        self.description = describe(cfg, env_id, steps, seed, self.device)
        self.step, self.logged, self.saved = 0, 0, time.monotonic()
        self.begin()

    def begin(self) -> None:
        """Continues the newest checkpoint of the run folder, or starts from nothing."""
        self.logdir.mkdir(parents=True, exist_ok=True)
        if any((self.logdir / "checkpoints").glob("*/state.json")):
            return self.resume()
        if (self.logdir / "metrics.jsonl").exists():  # killed before the first checkpoint
            (self.logdir / "metrics.jsonl").unlink()
        write_json(self.logdir / "config.json", to_dict(self.cfg))
        write_json(self.logdir / "run.json", self.description | {"status": "running"})
        self.row, self.state = self.envs.reset(), self.agent.initial(self.cfg.envs)
        self.logger.write(0, 0)

    # The loop

    def tick(self) -> None:
        """One step of every stream: act on the newest row, remember it, see what comes."""
        action, self.state = self.agent.act(self.row, self.state)
        if self.step < self.cfg.replay.prefill:
            action = self.envs.sample()
        self.replay.add(self.row, self.state if self.cfg.replay.latents else None)
        self.row = self.envs.step(action)
        self.step += self.cfg.envs
        for episode in self.envs.finished:
            self.logger.add("episode/score", episode.score)
            self.logger.add("episode/length", episode.length)
        ready = self.step >= max(self.cfg.replay.warmup, self.cfg.replay.prefill)
        if ready and self.replay.can_sample(self.cfg.replay.length):
            self.pace.earn(self.cfg.envs)

    def learn(self) -> None:
        """One update, whose fresh latents replace the stored ones."""
        sample = self.replay.sample(self.cfg.replay.length, self.cfg.replay.batch)
        states, metrics = self.agent.update(sample.sequence, sample.start)
        if self.cfg.replay.latents:
            self.replay.write_back(sample.where, states)
        for name, value in metrics.items():
            self.logger.add(name, value)

    def log(self, every: int) -> None:
        """A line of metrics.jsonl per `every` steps."""
        if self.step - self.logged >= every:
            self.logged = self.step
            self.logger.write(self.step, self.agent.updates)

    def keep(self, milestones: tuple[float, ...]) -> None:
        """The weights at some shares of the run, in half precision: how the dream grew."""
        for share in milestones:
            if self.step - self.cfg.envs < share * self.steps <= self.step:
                folder = self.logdir / "milestones" / f"{self.step:010d}"
                config = {"config": to_dict(self.cfg), "run": self.description, "step": self.step}
                checkpoint.save_weights(folder, self.agent.state_dict(), config)

    # Checkpoints

    def save_after(self, seconds: float) -> None:
        """A checkpoint if the last one is older than that."""
        if time.monotonic() - self.saved >= seconds:
            self.save()

    def save(self) -> None:
        """Weights, moments, counters, random states, replay and the running episodes."""
        episodes, arrays = self.envs.state()
        tensors = agent_tensors(self.agent) | checkpoint.rng_tensors()
        tensors |= {"acting/h": self.state.h, "acting/z": self.state.z}
        tensors |= {f"envs/{k}": torch.as_tensor(x) for k, x in arrays.items()}
        meta = {
            "config": to_dict(self.cfg),
            "run": self.description,
            "step": self.step,
            "logged": self.logged,
            "updates": self.agent.updates,
            "optimizers": {k: o.count for k, o in self.agent.optimizers.items()},
            "pace": self.pace.debt,
            "envs": episodes,
            "logger": self.logger.state(),
        }
        chunks = self.logdir / "replay"
        checkpoint.save(
            self.logdir, self.step, tensors, meta, lambda path: self.replay.save(chunks, path)
        )
        prune(chunks, checkpoint.folders(self.logdir / "checkpoints"))
        self.saved = time.monotonic()

    def resume(self) -> None:
        """The inverse of `save`; the environments replay the actions of their running episodes."""
        tensors, meta, folder = checkpoint.load(self.logdir)
        checkpoint.compare_config(meta["config"], to_dict(self.cfg))
        same = ("env", "seed")
        checkpoint.compare_config(*({k: d[k] for k in same} for d in (meta["run"], self.description)))
        load_agent(self.agent, tensors, meta)
        self.step, self.logged, self.pace.debt = meta["step"], meta["logged"], meta["pace"]
        self.state = State(*(tensors[f"acting/{k}"].to(self.device) for k in "hz"))
        arrays = {k[5:]: x.numpy() for k, x in tensors.items() if k.startswith("envs/")}
        self.row = self.envs.restore(meta["envs"], arrays)
        self.replay.load(self.logdir / "replay", folder)
        self.logger.restore(meta["logger"], self.step)
        checkpoint.restore_rng(tensors)

    def finish(self, status: str) -> None:
        """The last line, the last checkpoint, and how it ended."""
        if self.step > self.logged:
            self.log(0)
        self.save()
        self.logger.close()
        hours = {"status": status, "step": self.step, "hours": round(self.logger.hours, 4)}
        write_json(self.logdir / "run.json", self.description | hours)


class Pace:
    """How many updates are due: `ratio` replayed steps per agent step, `size` per update."""

    def __init__(self, ratio: float, size: int):
        self.ratio, self.size, self.debt = ratio, size, 0.0

    def earn(self, steps: int) -> None:
        self.debt += steps * self.ratio

    def due(self) -> int:
        updates, self.debt = divmod(self.debt, self.size)
        return int(updates)


# --- building ------------------------------------------------------------------------------------


def pick_device(name: str) -> torch.device:
    """auto: a CUDA GPU if there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda", "mps"):
        raise ValueError(f"device must be auto, cpu, cuda or mps, got {name!r}")
    return torch.device(name)


def make_envs(cfg: Config, env_id: str, streams: int, seed: int) -> envs.VectorEnv:
    """Streams of `env_id`; Atari games under the protocol of the settings."""
    protocol = cfg.protocol if env_id.startswith("ALE/") else None
    return envs.make(env_id, streams, seed, protocol)


def make_replay(cfg: Config, obs, action: int, seed: int, device) -> Replay:
    """The memory the settings ask for, refused if it would not fit."""
    r, m = cfg.replay, cfg.model
    latent = None
    if r.latents:
        if not isinstance(m.latent, Categorical):
            raise ValueError("replay.latents needs categorical latents; set replay.latents=False")
        latent = LatentSpec(m.deter, m.latent.groups, m.latent.classes)
    needed = nbytes(r.capacity, obs, action, latent)
    check_memory(needed)
    return Replay(
        r.capacity, cfg.envs, obs, action, latent=latent, seed=seed, device=device, online=r.online
    )


def agent_tensors(agent: Dreamer) -> dict[str, Tensor]:
    """Weights under agent/, moments under moment1/ and moment2/."""
    tensors = {f"agent/{k}": x for k, x in agent.state_dict().items()}
    for o in agent.optimizers.values():
        tensors |= {f"moment1/{k}": x for k, x in o.first.items()}
        tensors |= {f"moment2/{k}": x for k, x in o.second.items()}
    return tensors


def load_agent(agent: Dreamer, tensors: dict[str, Tensor], meta: dict) -> None:
    """The inverse of `agent_tensors`, in place, on whatever device the agent is."""
    agent.load_state_dict({k[6:]: x for k, x in tensors.items() if k.startswith("agent/")})
    agent.updates = meta["updates"]
    for part, o in agent.optimizers.items():
        o.count = meta["optimizers"][part]
        for name in o.params:
            o.first[name].copy_(tensors[f"moment1/{name}"])
            o.second[name].copy_(tensors[f"moment2/{name}"])


def describe(cfg: Config, env_id: str, steps: int, seed: int, device: torch.device) -> dict:
    """What must stand beside every number this run produces."""
    return {
        "env": env_id,
        "protocol": cfg.protocol if env_id.startswith("ALE/") else None,
        "steps": steps,
        "seed": seed,
        "commit": commit(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            name: version(name) for name in ("dreamer-lite", "torch", "numpy", "gymnasium")
        }
        | {"python": platform.python_version()},
        "hardware": hardware(device),
        "threads": torch.get_num_threads(),
    }


def commit() -> str | None:
    """The git commit of the code, with + if it was changed since; None outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
        dirty = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True)
    except OSError:
        return None
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "") or None


def hardware(device: torch.device) -> str:
    """The processor, or the GPU if that is what computes."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    names = [x.split(":")[1].strip() for x in info.read_text().splitlines() if "model name" in x] if info.exists() else []
    return f"{names[0] if names else platform.processor() or platform.machine()}, {len(names) or 'unknown'} cores"


def write_json(path: Path, data: dict) -> None:
    """Readable and complete: the file is replaced in one step."""
    with checkpoint.atomic(path) as temporary:
        temporary.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


# --- stopping ------------------------------------------------------------------------------------


class Interrupted(SystemExit):
    """The run was asked to stop and has saved itself: exit status 128 + signal."""

    def __init__(self, number: int):
        super().__init__(128 + number)


@contextmanager
def saving_on_signal() -> Iterator[list[int]]:
    """A list that receives SIGINT or SIGTERM instead of the process; a second one is not caught."""
    received: list[int] = []
    before = {}

    def note(number, _frame):
        received.append(number)
        signal.signal(number, before[number])

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --- evaluation ----------------------------------------------------------------------------------


class Score(NamedTuple):
    """Returns of finished evaluation episodes, in the units of the reward."""

    mean: float
    sd: float
    episodes: list[float]
    lengths: list[int]


def evaluate(
    agent: Dreamer, env_id: str, episodes: int, *, seed: int = 1_000_000, mode: bool = False
) -> Score:
    """Plays `episodes` whole episodes without learning; mode: the most likely action.

    The first `episodes` episodes *started* count, so that short ones are not preferred.
    """
    streams = min(episodes, 8)
    world = make_envs(agent.cfg, env_id, streams, seed)
    device = next(agent.parameters()).device
    row, state = world.reset(), agent.initial(streams).map(lambda x: x.to(device))
    quota = [episodes // streams + (i < episodes % streams) for i in range(streams)]
    done: list[list[envs.Episode]] = [[] for _ in range(streams)]
    while any(len(d) < q for d, q in zip(done, quota, strict=True)):
        action, state = agent.act(row, state, mode)
        row = world.step(action)
        for e in world.finished:
            if len(done[e.stream]) < quota[e.stream]:
                done[e.stream].append(e)
    world.close()
    ended = [e for d in done for e in d]
    scores = [e.score for e in ended]
    sd = float(np.std(scores, ddof=1)) if len(scores) > 1 else 0.0
    return Score(float(np.mean(scores)), sd, scores, [e.length for e in ended])


def load_run(path: Path | str, device: str = "cpu") -> tuple[Dreamer, dict]:
    """A trained agent from a run folder or one of its checkpoints, and the run's description."""
    tensors, meta, _ = checkpoint.load(path)
    cfg = from_dict(meta["config"])
    world = make_envs(cfg, meta["run"]["env"], 1, 0)
    agent = fast.accelerate(Dreamer(cfg, world.obs_spec, world.action_spec)).to(pick_device(device))
    world.close()
    load_agent(agent, tensors, meta)
    return agent, meta["run"]
