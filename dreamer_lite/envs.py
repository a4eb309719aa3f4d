"""Streams of experience: any Gymnasium environment as rows that say what an agent knows.

A row is written on *arriving* somewhere, so an episode of n steps has n + 1 rows:

    obs            x_0   x_1   x_2   x_3 | x_0'     the final observation x_3 is kept
    prev_action     0    a_0   a_1   a_2 |  0       the action that led to obs
    reward          0    r_1   r_2   r_3 |  0       received on arriving at obs
    cont            1     1     1     0  |  1       0 iff terminated; a truncation keeps 1
    is_first        1     0     0     0  |  1       a finished stream answers with its reset row

Every episode has its own seed, so a running episode is stored as its seed and its actions.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import cv2
import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import DependencyNotInstalled
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorObservationWrapper
from gymnasium.wrappers import AddRenderObservation

from .control import Control
from .guard import between, instances, pixels, require, whole
from .spaces import ActionSpec, ObsSpec

log = logging.getLogger(__name__)  # says when something is resized or flattened

IMAGE_SIZES = (16, 32, 64, 96)  # squares that halve to 4 or 6 pixels; others become DEFAULT_SIZE
DEFAULT_SIZE = 64  # pixels a side
PIXELS = "/pixels"  # an id that ends in it is observed through its own pictures


class Row(NamedTuple):
    """One tick of N streams; axis 0 is the stream. The module docstring draws the columns."""

    obs: dict[str, np.ndarray]  # image uint8 [N,H,W,C], vector float32 [N,n]
    prev_action: np.ndarray  # float32 [N,A], zeros on reset rows
    reward: np.ndarray  # float32 [N], 0 on reset rows
    cont: np.ndarray  # bool [N], False iff terminated
    is_first: np.ndarray  # bool [N]


class Episode(NamedTuple):
    """A finished episode: raw sum of rewards, and its length in agent steps (rows minus one)."""

    stream: int
    score: float
    length: int
    seed: int


@dataclass(frozen=True)
class AtariProtocol:
    """How Atari frames, actions and ends reach the agent. Defaults: the 100k benchmark.

    ValueError for numbers out of range.
    """

    size: int = 64  # height and width in pixels
    gray: bool = False
    sticky: float = 0.0  # probability that the console repeats the previous action
    all_actions: bool = False  # all 18, or the minimal set of the game
    noop: int = 30  # a reset is followed by 0 to noop - 1 idle frames
    repeat: int = 4  # raw frames per agent step; the last two are max-pooled
    max_frames: int = 108_000  # raw frames until truncation (30 minutes of play)

    def __post_init__(self) -> None:
        if self.size not in IMAGE_SIZES:
            raise ValueError(f"size must be one of {IMAGE_SIZES}, got {self.size}; 64 is usual")
        remedy = "see envs.PROTOCOLS"
        between(0, 1, remedy, sticky=self.sticky)
        whole(0, remedy, noop=self.noop)
        whole(1, remedy, size=self.size, repeat=self.repeat, max_frames=self.max_frames)
        instances(bool, remedy, gray=self.gray, all_actions=self.all_actions)


# How the papers and this package present Atari games
PROTOCOLS = {
    "atari100k": AtariProtocol(),
    "atari200m": AtariProtocol(size=96, gray=True, sticky=0.25, all_actions=True),
    "atari_laptop": AtariProtocol(gray=True),
    "atari_v1": AtariProtocol(sticky=0.25),
    "atari_v2": AtariProtocol(gray=True, sticky=0.25),
}


def make(
    env_id: str,
    num_envs: int = 1,
    seed: int = 0,
    protocol: str | AtariProtocol | None = None,
    **kwargs: Any,
) -> "VectorEnv":
    """Build `num_envs` streams of an id.

    "ALE/<Game>-v5" runs in ale-py's threaded C++ pipeline under `protocol` (default "atari100k"),
    whose fields `kwargs` replace. "dmc/<domain>-<task>" is `control.Control` with `kwargs`, any
    other id `gymnasium.make(env_id, **kwargs)`; both run in process. If one of these ends in
    "/pixels", what it draws takes the place of its observation: "Pendulum-v1/pixels".
    ValueError for unknown ids, protocols and options.
    """
    instances(str, "such as 'CartPole-v1'", env_id=env_id)
    whole(1, "one stream is the least", num_envs=num_envs)
    whole(0, "0 is as good as any", seed=seed)
    if env_id.startswith("ALE/"):
        chosen = _changed(_protocol(protocol), kwargs)
        return VectorEnv(_atari(env_id, num_envs, chosen), seed, repeat=chosen.repeat)
    if protocol is not None:
        raise ValueError(
            f"protocol={protocol!r} describes Atari, but {env_id!r} does not start with 'ALE/'; "
            "leave protocol=None"
        )
    raw = _gymnasium(env_id, num_envs, kwargs)
    return VectorEnv(raw, seed, repeat=_frames_per_step(raw.envs[0].unwrapped))


def episode_seed(run_seed: int, stream: int, episode: int) -> int:
    """One independent 31-bit seed per (run, stream, episode); ale-py reads 32-bit signed seeds.

    ValueError for numbers below 0.
    """
    whole(0, "count from 0", run_seed=run_seed, stream=stream, episode=episode)
    words = np.random.SeedSequence((run_seed, stream, episode)).generate_state(1)
    return int(words[0] & 0x7FFFFFFF)


class VectorEnv:
    """N streams of rows over a Gymnasium vector environment `raw` with next-step autoreset.

    A finished stream ignores its next action and answers with its reset row, whose episode has
    seed `episode_seed(seed, stream, episode)`. `finished` lists the episodes that the latest
    step ended. `repeat` is the number of environment frames per agent step. ValueError for spaces
    that no agent can see or act in, actions of other shapes, and stored episodes that do not fit.
    """

    def __init__(self, raw: gymnasium.vector.VectorEnv, seed: int = 0, repeat: int = 1):
        instances(gymnasium.vector.VectorEnv, "`make` builds one", raw=raw)
        mode = raw.metadata.get("autoreset_mode")
        if mode != AutoresetMode.NEXT_STEP:
            raise ValueError(
                f"raw must have autoreset_mode NEXT_STEP, got {mode}; say so where it is made"
            )
        self.raw, self.seed, self.repeat, self.num_envs = raw, seed, repeat, raw.num_envs
        self._readers = _readers(raw.single_observation_space)
        self.obs_spec: ObsSpec = {key: reader.shape for key, reader in self._readers.items()}
        self.action_spec = action_spec(raw.single_action_space)
        self.finished: list[Episode] = []
        # for sample(); num_envs is no stream's index, so no episode has this seed
        self._rng = np.random.default_rng(np.random.SeedSequence((seed, self.num_envs)))
        self._episode = np.full(self.num_envs, -1)  # number of the running episode
        self._seeds = np.zeros(self.num_envs, np.int64)  # its seed
        self._score = np.zeros(self.num_envs)  # its rewards so far
        self._actions: list[list[np.ndarray]] = [[] for _ in range(self.num_envs)]
        self._row: Row | None = None
        self._ended = np.ones(self.num_envs, bool)  # the latest row was a final one

    def reset(self) -> Row:
        """Abandon the running episodes and start the next one of every stream.  [N,...]."""
        everyone = np.ones(self.num_envs, bool)
        self.finished = []
        self._row = self._pack(self._begin(everyone), self._zeros(), 0.0, False, everyone)
        return self._row

    def step(self, action: np.ndarray) -> Row:
        """Act [N,A] and return what the agent meets. One-hots are argmaxed, numbers clipped."""
        if self._row is None:
            raise ValueError("step() needs a running episode; call reset() or restore() first")
        self._refuse_rows(action)
        first = self._ended
        action = np.where(first[:, None], np.float32(0), clean_action(self.action_spec, action))
        obs, reward, terminated, truncated = self._raw_step(action)
        if first.any():
            obs = self._begin(first)
        reward, terminated = np.where(first, 0, reward), terminated & ~first
        self._row = self._pack(obs, action, reward, terminated, first)
        self._record(first, terminated | (truncated & ~first))
        return self._row

    def _refuse_rows(self, action: np.ndarray) -> None:
        """An action for one stream would otherwise be carried out by all."""
        action = _finite(action, self.action_spec.size, self.action_spec)
        expected = f"[{self.num_envs}, {self.action_spec.size}]"
        require(len(action) == self.num_envs, "action", expected, action, "a row for each stream")

    def sample(self) -> np.ndarray:
        """Random actions [N,A]: uniform one-hots, or uniform numbers in [-1, 1]."""
        action = self._rng.uniform(-1, 1, (self.num_envs, self.action_spec.size))
        return clean_action(self.action_spec, action)

    def close(self) -> None:
        """Free the threads and windows of the environments."""
        self.raw.close()

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """To continue: seeds and actions [n,A] of the running episodes, the latest row [N,...]."""
        if self._row is None:
            raise ValueError("there is nothing to store before the first reset()")
        meta = {
            "spec": self._spec(),
            "seed": self.seed,
            "episode": self._episode.tolist(),
            "seeds": self._seeds.tolist(),
            "score": self._score.tolist(),
            "ended": self._ended.tolist(),
            "rng": self._rng.bit_generator.state,
        }
        arrays = {f"actions.{i}": self._stack(a) for i, a in enumerate(self._actions)}
        arrays |= {f"obs.{key}": value for key, value in self._row.obs.items()}
        arrays |= {name: getattr(self._row, name) for name in Row._fields if name != "obs"}
        return meta, arrays

    def restore(self, meta: dict[str, Any], arrays: dict[str, np.ndarray]) -> Row:
        """Replay the running episodes of `state()` and return its latest row [N,...].

        Raises ValueError if the replay arrives at another observation: then the environment
        draws from something else than its seed, and a run on it cannot be continued exactly.
        """
        missing = sorted({"spec", "seed", "episode", "seeds", "score", "ended", "rng"} - {*meta})
        require(not missing, "meta", "what `state()` gave", f"none of {missing}", "store all of it")
        if meta["spec"] != self._spec():
            raise ValueError(
                f"the state is of {meta['spec']}, this environment has {self._spec()}; make it "
                "with the id, num_envs, protocol and options of the stored run"
            )
        self.seed, self.finished = meta["seed"], []
        self._episode, self._seeds = np.array(meta["episode"]), np.array(meta["seeds"])
        self._score, self._ended = np.array(meta["score"]), np.array(meta["ended"])
        self._rng.bit_generator.state = meta["rng"]
        self._actions = [list(arrays[f"actions.{i}"]) for i in range(self.num_envs)]
        obs = {key: arrays[f"obs.{key}"] for key in self.obs_spec}
        _require_same(self._replay(), obs)
        self._row = Row(obs, *(np.array(arrays[name]) for name in Row._fields[1:]))
        return self._row

    def _replay(self) -> dict[str, np.ndarray]:
        """Repeat the stored actions so that all streams arrive together at the latest tick.

        All streams step in lockstep; one with n actions idles until n ticks are left and is
        reset only then.
        """
        length = np.array([len(actions) for actions in self._actions])
        obs = self._raw_reset(np.ones(self.num_envs, bool))
        for left in range(length.max(), -1, -1):
            if (length == left).any():
                obs = self._raw_reset(length == left)
            if left:
                obs = self._raw_step(self._stored_action(left))[0]
        return obs

    def _stored_action(self, left: int) -> np.ndarray:
        """The stored actions [N,A] at `left` ticks before the end; zeros where there are none."""
        action = self._zeros()
        for i, actions in enumerate(self._actions):
            if len(actions) >= left:
                action[i] = actions[-left]
        return action

    def _begin(self, mask: np.ndarray) -> dict[str, np.ndarray]:
        """Start the next episode of the streams in `mask`; returns the observations of all."""
        self._episode[mask] += 1
        for i in np.flatnonzero(mask):
            self._seeds[i] = episode_seed(self.seed, int(i), int(self._episode[i]))
            self._score[i], self._actions[i] = 0.0, []
        self._ended = self._ended & ~mask
        return self._raw_reset(mask)

    def _record(self, first: np.ndarray, ended: np.ndarray) -> None:
        """Book the step that led to the latest row; `finished` gets the episodes that ended."""
        self._score += self._row.reward
        for i in np.flatnonzero(~first):
            self._actions[i].append(self._row.prev_action[i])
        self.finished = [
            Episode(int(i), float(self._score[i]), len(self._actions[i]), int(self._seeds[i]))
            for i in np.flatnonzero(ended)
        ]
        self._ended = ended

    def _raw_reset(self, mask: np.ndarray) -> dict[str, np.ndarray]:
        """Reset some streams; ale-py wants the seeds of those only, Gymnasium those of all."""
        seeds = self._seeds[mask] if _is_atari(self.raw) else self._seeds.tolist()
        return self._read(self.raw.reset(seed=seeds, options={"reset_mask": mask.copy()})[0])

    def _raw_step(self, action: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
        native = env_action(self.raw.single_action_space, action)
        obs, reward, terminated, truncated, _ = self.raw.step(native)
        return self._read(obs), reward, terminated, truncated

    def _read(self, obs: Any) -> dict[str, np.ndarray]:
        if not isinstance(obs, dict):
            obs = dict.fromkeys(self._readers, obs)
        return {key: reader.read(obs[key]) for key, reader in self._readers.items()}

    def _pack(
        self,
        obs: dict[str, np.ndarray],
        action: np.ndarray,
        reward: np.ndarray | float,
        terminated: np.ndarray | bool,
        first: np.ndarray,
    ) -> Row:
        reward = np.broadcast_to(reward, self.num_envs).astype(np.float32)
        cont = ~np.broadcast_to(terminated, self.num_envs)
        return Row(obs, action, reward, cont, first.copy())

    def _spec(self) -> str:
        return f"{self.num_envs} streams, {self.obs_spec}, {self.action_spec}"

    def _zeros(self) -> np.ndarray:
        return np.zeros((self.num_envs, self.action_spec.size), np.float32)

    def _stack(self, actions: list[np.ndarray]) -> np.ndarray:
        """Actions of one stream as float32 [n,A], also for n = 0."""
        return np.array(actions, np.float32).reshape(len(actions), self.action_spec.size)


def _require_same(replayed: dict[str, np.ndarray], stored: dict[str, np.ndarray]) -> None:
    for key, value in stored.items():
        if differs := [i for i, x in enumerate(value) if not np.array_equal(replayed[key][i], x)]:
            raise ValueError(
                f"observation {key!r} of streams {differs} differs after replaying the stored seed "
                "and actions: the environment is not deterministic given its seed (or its version "
                "or settings changed), so the running episodes cannot be continued; start new ones "
                "with reset()"
            )


# ---------------------------------------------------------------------------------- actions


def action_spec(space: spaces.Space) -> ActionSpec:
    """Discrete(n) -> one group, MultiDiscrete([a, b]) -> two groups, bounded Box -> numbers.

    ValueError for other spaces.
    """
    if isinstance(space, spaces.Discrete):
        return ActionSpec(discrete=(int(space.n),))
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return ActionSpec(discrete=tuple(int(n) for n in space.nvec))
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        if not space.is_bounded():
            raise ValueError(
                f"the action space {space} is unbounded; the agent acts in [-1, 1], so wrap the "
                "environment in gymnasium.wrappers.TransformAction with finite bounds"
            )
        return ActionSpec(continuous=int(np.prod(space.shape)))
    raise ValueError(
        f"unsupported action space {space}; supported: Discrete, one-dimensional MultiDiscrete, "
        "bounded Box of floats"
    )


def clean_action(spec: ActionSpec, action: np.ndarray) -> np.ndarray:
    """The action as recorded and executed, float32 [N,A]: exact one-hots, numbers in [-1, 1].

    ValueError for other shapes, none at all, and NaN.
    """
    action = _finite(action, spec.size, spec)
    if not spec.discrete:
        return action.clip(-1, 1)
    groups = np.split(action, np.cumsum(spec.discrete)[:-1], axis=1)
    return np.concatenate([np.eye(g.shape[1], dtype=np.float32)[g.argmax(1)] for g in groups], 1)


def _finite(action: Any, size: int, what: Any) -> np.ndarray:
    """What was given as float32 [N,A], if it is that."""
    remedy = "give one flat action for each stream"
    try:
        numbers = np.asarray(action, np.float32)
    except (TypeError, ValueError) as error:
        got = f"{action!r}"[:60]
        raise ValueError(f"action must be float32 [N,{size}], got {got}; {remedy}") from error
    fits = numbers.ndim == 2 and numbers.shape[1] == size and len(numbers)
    if not fits or not np.isfinite(numbers).all():
        raise ValueError(
            f"action must be finite float32 [N,{size}] for {what}, got {numbers.dtype} "
            f"{list(numbers.shape)} with {np.isnan(numbers).sum()} NaNs; {remedy}"
        )
    return numbers


def env_action(space: spaces.Space, action: np.ndarray) -> np.ndarray:
    """What the environments execute for a clean action [N,A]: indices, or numbers in range.

    ValueError for actions that are not clean.
    """
    action = _finite(action, spaces.flatdim(space), space)
    if isinstance(space, spaces.Box):
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        unit = action.reshape(-1, *space.shape).astype(np.float64)  # so that -1..1 stays as it is
        return (low + (unit + 1) / 2 * (high - low)).clip(low, high).astype(space.dtype)
    if isinstance(space, spaces.Discrete):
        return action.argmax(1) + space.start
    groups = np.split(action, np.cumsum(space.nvec)[:-1], axis=1)
    return np.stack([g.argmax(1) for g in groups], 1) + space.start


# ----------------------------------------------------------------------------- observations


class _Reader(NamedTuple):
    """Turns a batch of one native observation into the array of Row.obs, always a copy."""

    shape: tuple[int, ...]
    read: Callable[[np.ndarray], np.ndarray]


def _readers(space: spaces.Space) -> dict[str, _Reader]:
    """One reader per observation; a single one is called "image" or "vector"."""
    if isinstance(space, spaces.Dict) and space.spaces:
        return {key: _reader(part, f"observation {key!r}") for key, part in space.spaces.items()}
    reader = _reader(space, "the observation")
    return {"image" if len(reader.shape) == 3 else "vector": reader}


def _reader(space: spaces.Space, name: str) -> _Reader:
    if not isinstance(space, spaces.Box):
        raise ValueError(
            f"{name} has the unsupported space {space}; supported: Box of uint8 [H,W,C] or [H,W] "
            "(image), any other Box (vector), or one flat Dict of those; "
            "gymnasium.wrappers.FlattenObservation turns most spaces into a vector"
        )
    if space.dtype == np.uint8 and len(space.shape) in (2, 3):
        return _image_reader(space.shape, name)
    size = int(np.prod(space.shape))
    if len(space.shape) > 1:
        log.warning("%s %s is flattened to a vector of %d", name, space.shape, size)
    return _Reader((size,), lambda x: np.array(x, np.float32).reshape(len(x), size))


def _image_reader(shape: tuple[int, ...], name: str) -> _Reader:
    height, width, channels = (*shape, 1)[:3]
    if channels > min(height, width):
        raise ValueError(
            f"{name} is uint8 {shape}, which looks like channels first; images are [H,W,C], so "
            "transpose it with gymnasium.wrappers.TransformObservation"
        )
    if height == width and height in IMAGE_SIZES:
        target = (height, width, channels)
        return _Reader(target, lambda x: np.array(x, np.uint8).reshape(len(x), *target))
    target = (DEFAULT_SIZE, DEFAULT_SIZE, channels)
    log.warning("%s is resized from %dx%d to %dx%d", name, height, width, *target[:2])
    return _Reader(target, lambda x: resize(x.reshape(len(x), height, width, channels)))


def resize(images: np.ndarray, size: int = DEFAULT_SIZE) -> np.ndarray:
    """Images uint8 [N,H,W,C] to [N,size,size,C] by averaging areas.  ValueError for other kinds."""
    pixels("give raw pixels 0..255", ("N", "H", "W", "C"), images=images)
    whole(1, f"{DEFAULT_SIZE} is usual", size=size)
    frames = [cv2.resize(x, (size, size), interpolation=cv2.INTER_AREA) for x in images]
    return np.stack(frames).reshape(len(images), size, size, images.shape[-1])


# ------------------------------------------------------------------------ building the streams


def _gymnasium(env_id: str, num_envs: int, kwargs: dict[str, Any]) -> SyncVectorEnv:
    def build() -> gymnasium.Env:
        if env_id.endswith(PIXELS):
            return _drawn(env_id.removesuffix(PIXELS), kwargs)
        return _single(env_id, kwargs)

    try:
        return SyncVectorEnv([build] * num_envs, autoreset_mode=AutoresetMode.NEXT_STEP)
    except (gymnasium.error.UnregisteredEnv, ModuleNotFoundError) as error:
        raise ValueError(
            f"cannot make {env_id!r}: {error}; install or import the package that registers it, or "
            "write 'package:id'"
        ) from error
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        expected = f"options of {env_id!r}"
        require(False, "kwargs", expected, f"{sorted(kwargs)} ({error})", "leave out the unknown")


def _single(env_id: str, kwargs: dict[str, Any]) -> gymnasium.Env:
    if env_id.startswith("dmc/"):
        return Control(env_id.removeprefix("dmc/"), **kwargs)
    return gymnasium.make(env_id, disable_env_checker=True, **kwargs)


def _drawn(env_id: str, kwargs: dict[str, Any]) -> AddRenderObservation:
    """An environment that is observed through the pictures it draws, and through nothing else."""
    try:
        return AddRenderObservation(_single(env_id, kwargs | {"render_mode": "rgb_array"}))
    except (TypeError, AssertionError, RuntimeError, DependencyNotInstalled) as error:
        raise ValueError(
            f"{env_id!r} cannot be drawn: {error}; observe it without {PIXELS!r}"
        ) from error


def _frames_per_step(env: gymnasium.Env) -> int:
    return env.repeat if isinstance(env, Control) else 1


def _protocol(protocol: str | AtariProtocol | None) -> AtariProtocol:
    if isinstance(protocol, AtariProtocol):
        return protocol
    name = protocol or "atari100k"
    if name not in PROTOCOLS:
        names = sorted(PROTOCOLS)
        raise ValueError(f"protocol must be one of {names}, got {name!r}; or give an AtariProtocol")
    return PROTOCOLS[name]


def _changed(protocol: AtariProtocol, options: dict[str, Any]) -> AtariProtocol:
    """The protocol with some of its fields replaced."""
    known = [f.name for f in fields(protocol)]
    fits = options.keys() <= set(known)
    require(fits, "kwargs", f"among {known}", f"{sorted(options)}", "see AtariProtocol")
    return replace(protocol, **options)


def _is_atari(raw: gymnasium.vector.VectorEnv) -> bool:
    return isinstance(raw, _AtariFrames)


class _AtariFrames(VectorObservationWrapper):
    """Drops ale-py's axis of stacked frames (here one) and gives gray frames a channel."""

    def __init__(self, raw: gymnasium.vector.VectorEnv, size: int, channels: int):
        super().__init__(raw)
        self.single_observation_space = spaces.Box(0, 255, (size, size, channels), np.uint8)

    def observations(self, observations: np.ndarray) -> np.ndarray:
        return observations.reshape(self.num_envs, *self.single_observation_space.shape)


def _atari(env_id: str, num_envs: int, protocol: AtariProtocol) -> _AtariFrames:
    """ale-py's threaded vector environment under `protocol`.

    Every argument is written out, for the defaults are another protocol (clipped rewards, a stack
    of four frames, fire on reset).
    """
    from ale_py.vector_env import AtariVectorEnv

    raw = AtariVectorEnv(
        _rom(env_id),
        num_envs,
        batch_size=0,
        num_threads=min(num_envs, os.cpu_count() or 1),
        thread_affinity_offset=-1,
        max_num_frames_per_episode=protocol.max_frames,
        repeat_action_probability=protocol.sticky,
        full_action_space=protocol.all_actions,
        continuous=False,
        continuous_action_threshold=0.5,
        autoreset_mode=AutoresetMode.NEXT_STEP,
        img_height=protocol.size,
        img_width=protocol.size,
        grayscale=protocol.gray,
        stack_num=1,
        frameskip=protocol.repeat,
        maxpool=True,
        noop_max=protocol.noop,
        episodic_life=False,
        life_loss_info=False,
        reward_clipping=False,
        use_fire_reset=False,
    )
    return _AtariFrames(raw, protocol.size, 1 if protocol.gray else 3)


def _rom(env_id: str) -> str:
    """The ROM of a registered id: "ALE/MsPacman-v5" -> "ms_pacman"."""
    try:
        import ale_py
    except ImportError as error:
        raise ValueError(f"{env_id!r} needs ale-py; pip install 'ale-py>=0.12'") from error
    gymnasium.register_envs(ale_py)
    if env_id not in gymnasium.registry:
        games = sum(name.startswith("ALE/") for name in gymnasium.registry)
        raise ValueError(
            f"unknown game {env_id!r}; expected one of {games} ids such as 'ALE/MsPacman-v5' "
            "(words in CamelCase, version v5)"
        )
    return gymnasium.registry[env_id].kwargs["game"]
