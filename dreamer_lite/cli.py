"""The command line: one verb per thing to do with an agent (chapter 12).

    dreamer-lite train <preset> ...  ->  a run folder  ->  eval, dream, pack (and unpack elsewhere)

Every number of a preset is an option: `dreamer-lite train laptop --help` lists them. Exit status: 0
if what was asked is done, 1 if a run failed or lost a process, 2 if it cannot be done as asked,
128 + signal if it was interrupted. A ValueError, whoever raises it, is said in one line.
"""

import argparse
import errno
import json
import math
import sys
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from tyro.conf import AvoidSubcommands, Positional, SuppressFixed, arg, subcommand

from dreamer_lite import bench, doctor, parcel, report, sweep, training
from dreamer_lite.distributed import LostRank
from dreamer_lite.distributions import Categorical
from dreamer_lite.guard import between
from dreamer_lite.presets import PRESETS, SIZES, Config, sized

# What `train --help` and `bench --help` say of each preset
ABOUT = {
    "v1": "DreamerV1 as published: control from 64x64 pixels, one stream",
    "v2": "DreamerV2 as published for Atari (discrete actions)",
    "v2_dmc": "DreamerV2 as published for control (continuous actions)",
    "v3": "DreamerV3 as published: 200M parameters, Atari at 200M frames (protocol atari200m; "
    "needs a large GPU)",
    "atari100k": "the Atari 100k benchmark at 12M parameters, 100,000 agent steps (protocol "
    "atari100k)",
    "laptop": "small enough for two processor cores: a few hours for a game (protocol "
    "atari_laptop)",
    "toy": "16x16 pixels: minutes",
    "toy_v1": "DreamerV1 at the size of toy",
    "toy_v2": "DreamerV2 at the size of toy",
    "vector": "observations that are a few numbers, such as CartPole or joint angles",
    "vector_v1": "DreamerV1 at the size of vector",
    "vector_v2": "DreamerV2 at the size of vector",
}
Device = Literal["auto", "cpu", "cuda", "mps"]  # where to compute
Size = Literal[tuple(SIZES)]  # a row of `presets.SIZES`
Settings = Annotated[Config, arg(name="")]  # --replay.ratio rather than --config.replay.ratio


@dataclass(frozen=True)
class Train:
    """Train an agent, or go on with a run that was stopped."""

    config: Settings
    env: str  # Gymnasium id, e.g. ALE/Boxing-v5 or dreamer_lite/MiniPong-v0
    steps: int  # agent steps in all, over all streams; a finished run goes on if this is raised
    logdir: Path  # the run's folder; a run that it holds is continued
    size: Size | None = None  # another row of the table of model sizes
    seed: int = 0  # of weights, environments and replay
    device: Device = "auto"  # auto: a CUDA GPU if there is one, else the CPU
    threads: int | None = None  # of the processor; by default as many as PyTorch finds
    log_every: int = 1000  # agent steps between two lines of metrics.jsonl
    eval_every: int = 0  # agent steps between two evaluations (eval/score); 0: none
    eval_episodes: int = 10  # of each evaluation
    save_minutes: float = 5.0  # between two checkpoints
    tensorboard: bool = False  # write the metrics for TensorBoard too

    def run(self) -> None:
        """Trains, as `training.train` does."""
        check_size(self.config, self.size)
        use_threads(self.threads)
        training.train(
            self.config,
            self.env,
            self.steps,
            self.logdir,
            seed=self.seed,
            device=self.device,
            log_every=self.log_every,
            eval_every=self.eval_every,
            eval_episodes=self.eval_episodes,
            save_minutes=self.save_minutes,
            tensorboard=self.tensorboard,
        )


@dataclass(frozen=True)
class Eval:
    """Play whole episodes without learning; prints mean, spread and a line of JSON."""

    path: Annotated[Positional[Path], arg(metavar="RUN")]  # a run, checkpoint or milestone
    episodes: int = 10  # how many
    mode: Literal["paper", "sample", "mode"] = "paper"  # V1, V2: likeliest action, V3: a draw
    seed: int = training.EVALUATION_SEED  # of environments and policy; far from those of training
    device: Device = "auto"  # auto: a CUDA GPU if there is one, else the CPU
    threads: int | None = None  # of the processor; by default as many as PyTorch finds

    def run(self) -> None:
        """Plays and prints."""
        use_threads(self.threads)
        agent, run = training.load_run(self.path, self.device)
        greedy = agent.cfg.behavior.actor.greedy if self.mode == "paper" else self.mode == "mode"
        mode = "mode" if greedy else "sample"
        score = training.evaluate(agent, run["env"], self.episodes, seed=self.seed, mode=greedy)
        print(f"{run['env']} at step {run['step']}: {score.mean:.2f} ± {score.sd:.2f} ", end="")
        print(f"(mean and standard deviation of {self.episodes} episodes, {mode})")
        if score.cut:
            print(f"{score.cut} episodes were not over and count as far as they went")
        asked = {"env": run["env"], "step": run["step"], "mode": mode, "seed": self.seed}
        print(json.dumps(asked | score._asdict()))


@dataclass(frozen=True)
class Dream:
    """Show what the model expects: recorded frames, its dream of them, and dreams of its own.

    Writes dream.webp (or .gif), dream.png, imagined.png and dream.json.
    """

    path: Annotated[Positional[Path], arg(metavar="RUN")]  # a run, checkpoint or milestone
    out: Path = Path("dreams")  # folder of the pictures
    format: Literal["webp", "gif"] = "webp"  # of the video
    steps: int = 400  # rows to record in each of the streams
    clips: int = 3  # rows of the video, from different moments
    frames: tuple[int, ...] = ()  # recorded rows from which its own dreams start; by default two
    context: int = 5  # frames the model sees before it dreams
    length: int | None = None  # frames of a clip; by default up to 50, as episodes allow
    horizon: int = 15  # steps of the model's own dreams
    samples: int = 3  # dreams of its own from each frame
    seed: int = 0  # of environments and dreams
    device: Device = "auto"  # auto: a CUDA GPU if there is one, else the CPU
    threads: int | None = None  # of the processor; by default as many as PyTorch finds

    def run(self) -> None:
        """Draws and prints."""
        use_threads(self.threads)
        counts = {k: getattr(self, k) for k in ("steps", "clips", "context", "horizon", "samples")}
        between(1, math.inf, "choose more", **counts)
        for frame in self.frames:
            between(0, self.steps - 1, "rows are counted from 0, see --steps", frames=frame)
        agent, run = training.load_run(self.path, self.device)
        report.image_key(agent)  # an agent without images is refused before it plays
        played = report.record(agent, run["env"], self.steps, self.seed, streams=2)
        rows, start = report.clips(agent, played, self.length, self.clips)
        self.out.mkdir(parents=True, exist_ok=True)
        with report.seeded(self.seed):
            self.show(report.open_loop(agent, rows, self.context, start))
            self.imagine(agent, self.started(agent, played, rows, start))
        print(f"Pictures are in {self.out}.")

    def show(self, loop: report.OpenLoop) -> None:
        """Truth, dream and error: video, strip, numbers and a caption."""
        report.save_video(report.film(loop), self.out / f"dream.{self.format}")
        report.save_figure(report.strip(loop), self.out / "dream.png")
        caption = report.describe(loop)
        numbers = {
            "caption": caption,
            "context": loop.context,
            "psnr": report.psnr(loop.truth, loop.model).mean(1).round(3).tolist(),
        }
        (self.out / "dream.json").write_text(json.dumps(numbers) + "\n", encoding="utf-8")
        print(caption)

    def started(self, agent, played, rows, start):
        """States that the policy's own dreams start from: after chosen rows of the first stream.

        By default after the last seen frame of the first and of the last clip.
        """
        if self.frames:
            after = torch.tensor(self.frames) + 1
            return report.memory(agent, played, after, torch.zeros_like(after))
        clips = sorted({0, self.clips - 1})
        return report.watch(agent, rows, self.context, start).map(lambda x: x[clips])

    def imagine(self, agent, state) -> None:
        """The policy's own dreams."""
        dream = report.imagine(agent, state, self.horizon, samples=self.samples)
        figure = report.storyboard(dream, agent.cfg.model.gamma)
        report.save_figure(figure, self.out / "imagined.png")


@dataclass(frozen=True)
class Pack:
    """Put a run into one file, to go on with it on another machine."""

    logdir: Positional[Path]  # the run's folder
    out: Path  # the file to write, e.g. run.zip

    def run(self) -> None:
        """Packs, as `parcel.pack` does."""
        step = parcel.pack(self.logdir, self.out)
        print(f"{self.out}: step {step}, {self.out.stat().st_size / 1e6:.1f} MB")


@dataclass(frozen=True)
class Unpack:
    """Make a run folder from a packed file; `train` with the same settings continues it."""

    path: Annotated[Positional[Path], arg(metavar="FILE")]  # a file that `pack` wrote
    logdir: Path  # the folder to make

    def run(self) -> None:
        """Unpacks, as `parcel.unpack` does."""
        step = parcel.unpack(self.path, self.logdir)
        print(f"{self.logdir}: step {step}; continue it with `dreamer-lite train`")


@dataclass(frozen=True)
class Bench:
    """Time every part of training. Must run alone: other programs falsify it."""

    config: Settings
    env: str = "ALE/Boxing-v5"  # Gymnasium id, e.g. dreamer_lite/MiniPong-v0
    size: Size | None = None  # another row of the table of model sizes
    repeats: int = 5  # measurements of which the median counts
    device: Device = "auto"  # auto: a CUDA GPU if there is one, else the CPU
    threads: int | None = None  # of the processor; by default as many as PyTorch finds
    out: Path | None = None  # also write the numbers as JSON

    def run(self) -> None:
        """Measures and prints, as `bench.measure` does."""
        check_size(self.config, self.size)
        use_threads(self.threads)
        result = bench.measure(self.config, self.env, device=self.device, repeats=self.repeats)
        print(bench.table(result))
        if self.out:
            self.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Sweep:
    """Train every preset on every environment with every seed, on one machine or on many.

    Runs whose machine is lost go on elsewhere from their newest checkpoint, and so does the sweep
    when it is started again. Writes results.md, results.json and curves.png.
    """

    plan: Annotated[sweep.Plan, arg(name="")]
    presets: tuple[Literal[tuple(PRESETS)], ...]  # one or several
    envs: tuple[str, ...]  # Gymnasium ids
    out: Path  # the folder of all runs
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)  # of weights, environments and replay
    size: Size | None = None  # another row of the table of model sizes, for all presets
    address: str | None = None  # of a Ray cluster, or auto; by default this machine alone
    scale: Path | None = None  # JSON {environment: [score that counts as 0, as 1]}, for a mean

    def run(self) -> None:
        """Runs the sweep and leaves with its exit status."""
        for name in self.presets:
            check_size(PRESETS[name], self.size)
        configs = {name: resized(PRESETS[name], self.size) for name in self.presets}
        todo = sweep.jobs(configs, list(self.envs), list(self.seeds))
        scale = json.loads(self.scale.read_text(encoding="utf-8")) if self.scale else None
        failed = sweep.sweep(todo, self.plan, self.out, address=self.address)
        print(sweep.collect(todo, self.plan, self.out, scale))
        for name, reason in failed.items():
            print(f"dreamer-lite: {name} failed: {reason}", file=sys.stderr)
        sys.exit(1 if failed else 0)


@dataclass(frozen=True)
class Doctor:
    """Can this machine run the book? One line per question."""

    def run(self) -> None:
        """Asks all questions and leaves with their exit status."""
        sys.exit(doctor.main())


def resized(cfg: Config, size: str | None) -> Config:
    """The settings in another size; those that no size fits stay as they are."""
    return sized(cfg, size) if size and isinstance(cfg.model.latent, Categorical) else cfg


def check_size(cfg: Config, size: str | None) -> None:
    """Refuse what `resized` had to leave alone."""
    if size and not isinstance(cfg.model.latent, Categorical):
        raise ValueError(
            f"size {size} says how many classes a Categorical latent has, but this preset has "
            f"{cfg.model.latent}; set --model.deter, --model.hidden and --model.units instead"
        )


def use_threads(count: int | None) -> None:
    """How many processor threads PyTorch may use; None leaves it to PyTorch."""
    if count is not None and count < 1:
        raise ValueError(f"threads must be at least 1, got {count}")
    if count:
        torch.set_num_threads(count)


# --- parsing -------------------------------------------------------------------------------------


def commands(size: str | None):
    """Everything that can be typed, as a type; the presets in this size give the defaults."""
    presets = {name: resized(cfg, size) for name, cfg in PRESETS.items()}
    missing = tyro.MISSING
    train = {k: Train(v, env=missing, steps=missing, logdir=missing) for k, v in presets.items()}
    verbs = {
        "train": chosen(train, Train.__doc__),
        "eval": Eval,
        "dream": Dream,
        "pack": Pack,
        "unpack": Unpack,
        "sweep": Sweep,
        "bench": chosen({k: Bench(v) for k, v in presets.items()}, Bench.__doc__),
        "doctor": Doctor,
    }
    return reduce(or_, (Annotated[kind, subcommand(verb)] for verb, kind in verbs.items()))


def chosen(defaults: dict, about: str):
    """A command whose next word is a preset; everything after it overrides the preset."""
    kinds = [
        Annotated[type(x), subcommand(name, default=x, description=ABOUT.get(name, name))]
        for name, x in defaults.items()
    ]

    @dataclass(frozen=True)
    class Chosen:
        command: Annotated[reduce(or_, kinds), arg(name="")]

        def run(self) -> None:
            self.command.run()

    Chosen.__doc__ = about
    return Chosen


def size_in(args: list[str]) -> str | None:
    """The value of --size, which is read first because other options' defaults depend on it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--size", nargs="?")
    size = parser.parse_known_args(args)[0].size
    return size if size in SIZES else None  # the full parser complains about others


def parse(args: list[str]):
    """The command that was typed; its `run` does it.  Exits with status 2 if it makes no sense."""
    options = AvoidSubcommands, SuppressFixed  # nothing to type for classes and functions
    return tyro.cli(commands(size_in(args)), prog="dreamer-lite", args=args, config=options)


def main(args: list[str] | None = None) -> None:
    """Do what was typed; mistakes are answered in a line, not in a traceback."""
    command = parse(sys.argv[1:] if args is None else args)
    try:
        command.run()
    except ValueError as error:
        print(f"dreamer-lite: {error}", file=sys.stderr)
        sys.exit(2)
    except LostRank as error:
        print(f"dreamer-lite: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:  # a disk or a file that failed
        full = error.errno == errno.ENOSPC
        advice = "; free some space: a run goes on from its newest checkpoint" if full else ""
        print(f"dreamer-lite: {error}{advice}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:  # training saves itself and answers; the rest has nothing to save
        sys.exit(130)


if __name__ == "__main__":
    main()
