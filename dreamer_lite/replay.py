"""What the agent has lived through: one ring of rows per stream, from which training draws windows.

    row t      prev_action a_{t-1},  obs x_t,  reward r_t,  cont c_t,  is_first_t    never changes
    latents    h_t, z_t, what the agent thought at row t                             written back

A stream is one environment, episode after episode; windows may cross an episode's end (is_first
tells) but never the ring's write head, nor from one stream to another. Chapter 5.
"""

import bz2
import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
import psutil
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import one_hot

from dreamer_lite.guard import floats, instances, require, whole
from dreamer_lite.rssm import State
from dreamer_lite.spaces import ObsSpec, is_image, refuse_odd

CHUNK = 1024  # rows per file on disk
FIELDS = ("prev_action", "reward", "cont", "is_first")  # of a row, besides observations
Columns = dict[str, tuple[str, tuple[int, ...]]]  # name -> dtype, shape of one entry


class Damaged(ValueError):
    """Files that are ours but not complete."""


class LatentSpec(NamedTuple):
    """z is G groups of one-hots over K classes: kept as G class numbers.  h has D numbers."""

    deter: int
    groups: int
    classes: int


class Sequence(NamedTuple):
    """Windows of experience, time first; axis 1 mixes streams.  Entry t as in the figure above."""

    obs: dict[str, Tensor]  # [T,B,H,W,C] uint8 or [T,B,n] float32
    prev_action: Tensor  # [T,B,A] float32
    reward: Tensor  # [T,B] float32
    cont: Tensor  # [T,B] bool
    is_first: Tensor  # [T,B] bool


class Where(NamedTuple):
    """Which rows a sample holds, counted since the beginning of each stream."""

    rows: np.ndarray  # [T,B] int64
    stream: np.ndarray  # [B] int64


class Sample(NamedTuple):
    """A batch to train on; `start` is the memory just before it, where latents are kept."""

    sequence: Sequence
    start: State | None  # [B,.]
    where: Where


def row_columns(obs_spec: ObsSpec, action_size: int) -> Columns:
    """Everything that is stored once and never changes.  ValueError for odd observations."""
    refuse_odd(obs_spec)
    whole(1, "see ActionSpec.size", action_size=action_size)
    obs = {
        f"obs/{name}": ("uint8" if is_image(shape) else "float32", tuple(shape))
        for name, shape in obs_spec.items()
    }
    scalars = {"reward": ("float32", ()), "cont": ("bool", ()), "is_first": ("bool", ())}
    return obs | {"prev_action": ("float32", (action_size,))} | scalars


def latent_columns(latent: LatentSpec | None) -> Columns:
    """Half precision for h and one byte per one-hot: 32×32 of them take 32 bytes, not 4096.

    ValueError for more than 256 classes.
    """
    if latent is None:
        return {}
    whole(1, "see training.latent_spec", **latent._asdict())
    if not 1 <= latent.classes <= 256:
        raise ValueError(
            f"latent.classes must be 1..256 to fit a byte, got {latent.classes}; use more groups"
        )
    return {"h": ("float16", (latent.deter,)), "z": ("uint8", (latent.groups,))}


def nbytes(
    capacity: int, obs_spec: ObsSpec, action_size: int, latent: LatentSpec | None = None
) -> int:
    """Memory of a full replay, in bytes.  ValueError for a capacity below 0."""
    whole(0, "steps over all streams", capacity=capacity)
    columns = row_columns(obs_spec, action_size) | latent_columns(latent)
    return capacity * sum(np.dtype(d).itemsize * math.prod(s) for d, s in columns.values())


def check_memory(needed: int, available: int | None = None) -> None:
    """Refuse now what would otherwise be killed hours later: the ring fills page by page.

    Units: bytes. ValueError if more is needed than available.
    """
    whole(0, "see nbytes", needed=needed)
    available = free_memory() if available is None else available
    if needed > available:
        raise ValueError(
            f"replay needs {needed / 1e9:.2f} GB when full but {available / 1e9:.2f} GB of memory "
            "are free; lower the replay capacity or the image size"
        )


def free_memory(group: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that may still be taken: what the system has left, or what its container allows."""
    free = psutil.virtual_memory().available
    try:
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        used = int((group / "memory.current").read_text()) - int(stat["inactive_file"])
        return min(free, int((group / "memory.max").read_text()) - used)
    except (OSError, ValueError, KeyError):  # no container, or one without a limit ("max")
        return free


class Replay:
    """The last `capacity` steps of `streams` parallel environments.

    latent: keep (h, z) too (V3); a window is then preceded by one context row whose (h, z) is the
    start of training, otherwise it starts from nothing and its is_first[0] reads True (V1, V2).
    online: every row is drawn once soon after it was lived, the rest of a batch at random.
    episodes: draw an episode, then a window inside it (V1, V2); shorter episodes are never seen.
    ends: the last window of an episode is drawn `length` + 1 times as often (V2 on Atari).
    Sources: V3 authors' code, embodied/core/replay.py; V2 common/replay.py, V1 tools.py:157-186.
    ValueError for rows and states of other shapes or with NaN, and for windows that do not exist.
    """

    def __init__(
        self,
        capacity: int,
        streams: int,
        obs_spec: ObsSpec,
        action_size: int,
        *,
        latent: LatentSpec | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
        online: bool = True,
        episodes: bool = False,
        ends: bool = False,
    ):
        whole(1, "one for each environment", streams=streams)
        whole(1, "steps over all streams", capacity=capacity)
        require(bool(obs_spec), "obs_spec", "at least one observation", f"{obs_spec}", "name it")
        instances((LatentSpec, type(None)), "see training.latent_spec", latent=latent)
        self.size = capacity // streams  # rows of one stream
        if self.size < 2:
            raise ValueError(
                f"capacity must hold 2 rows of each of the {streams} streams, got {capacity}; "
                "raise capacity"
            )
        if episodes and (online or latent):
            raise ValueError(
                "episodes=True needs online=False and latent=None, got "
                f"online={online}, latent={latent}; windows inside episodes are V1's and V2's way"
            )
        self.streams, self.latent, self.online = streams, latent, online
        self.episodes, self.ends = episodes, ends
        self.device, self.context = torch.device(device), int(latent is not None)
        self.row_columns = row_columns(obs_spec, action_size)
        self.rows = self._allocate(self.row_columns)
        self.latents = self._allocate(latent_columns(latent))
        self.total = 0  # rows that each stream has ever had; row i lives at i % size
        self.fresh = np.zeros(streams, np.int64)  # first row of the next online window
        self.rng = np.random.Generator(np.random.PCG64(seed))
        self.chunks: dict[int, str] = {}  # number -> sha256 of what is on disk

    def _allocate(self, columns: Columns) -> dict[str, np.ndarray]:
        return {k: np.zeros((self.size, self.streams, *s), d) for k, (d, s) in columns.items()}

    @property
    def oldest(self) -> int:
        """Number of the oldest row not overwritten yet."""
        return max(0, self.total - self.size)

    def __len__(self) -> int:
        return (self.total - self.oldest) * self.streams

    # Write

    def add(self, row, state: State | None = None) -> None:
        """Append one `envs.Row` and the agent's state [N,.] at it (ignored without latents)."""
        values = flatten(row)
        self._check(values)
        now = self.total % self.size
        if self.latent:
            if state is None:
                raise ValueError("state must be the agent's State at this row, got None; pass it")
            h, z = self._pack(state, (self.streams,))
            self.latents["h"][now], self.latents["z"][now] = h.cpu().numpy(), z.cpu().numpy()
        for name, column in self.rows.items():
            column[now] = values[name]
        self.total += 1

    def _check(self, values: dict[str, np.ndarray]) -> None:
        if values.keys() != self.row_columns.keys():
            raise ValueError(
                f"row must have {sorted(self.row_columns)}, got {sorted(values)}; "
                "build Replay from the environment's obs_spec"
            )
        for name, (dtype, shape) in self.row_columns.items():
            got, shape = values[name], (self.streams, *shape)
            if got.dtype != dtype or got.shape != shape:
                raise ValueError(
                    f"row {name} must be {dtype} {list(shape)}, got {got.dtype} "
                    f"{list(got.shape)}; build Replay from the environment's specs"
                )
            if dtype == "float32" and np.isnan(got).any():
                raise ValueError(
                    f"row {name} must be without NaN, got {np.isnan(got).sum()} of {got.size}; "
                    "the environment answers with NaN"
                )

    def write_back(self, where: Where, states: State) -> None:
        """Replace the latents of a sample's rows by newer ones.  states [T,B,.], detached here.

        The context row keeps its own. May come any number of steps after `sample`: rows that the
        ring has overwritten in between are left alone. Does nothing without latents.
        """
        if not self.latent:
            return
        h, z = (x.cpu().numpy() for x in self._pack(states, where.rows.shape))
        alive = where.rows >= self.oldest
        place = self._place_of(where, alive)
        self.latents["h"][place], self.latents["z"][place] = h[alive], z[alive]

    def _place_of(self, where: Where, alive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where in the ring the rows that are still `alive` [T,B] are: position and stream."""
        stream = np.broadcast_to(where.stream, where.rows.shape)
        return where.rows[alive] % self.size, stream[alive]

    def _pack(self, state: State, lead: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """h in half precision and the classes of z, where the state is."""
        remedy = "give the agent's State at each row, or its fresh states [T,B,.]"
        floats(remedy, **{"state.h": state.h, "state.z": state.z})
        deter, groups, classes = self.latent
        expected = [*lead, deter], [*lead, groups * classes]
        got = list(state.h.shape), list(state.z.shape)
        if got != expected:
            raise ValueError(
                f"state must have h {expected[0]}, z {expected[1]}, got {got[0]}, {got[1]}; "
                "is it time-major, and does latent fit the agent?"
            )
        z = state.z.detach().unflatten(-1, (groups, classes)).argmax(-1)
        return state.h.detach().half(), z.to(torch.uint8)

    def written(self) -> None:
        """To be called after writing into the columns: a copy of them elsewhere is stale."""

    # Read

    def can_sample(self, length: int) -> bool:
        """Whether one window of `length` rows (and its context row) exists."""
        whole(1, "see ReplayConfig.length", length=length)
        enough = self._starts(length) > 0
        return enough and (not self.episodes or len(self._episodes(length)) > 0)

    def _starts(self, length: int) -> int:
        return self.total - self.oldest - self.context - length + 1

    def sample(self, length: int, batch: int, *, fresh: bool = True) -> Sample:
        """Draw windows, uniformly over streams and starts (or episodes).  All [length, batch, ...].

        fresh=False leaves the online queue to training (for reports).
        """
        first, stream = self._draw(length, batch, fresh and self.online)
        rows = first + self.context + np.arange(length)[:, None]  # [T,B]
        data = self._take(self.rows, rows % self.size, stream)
        if not self.context:
            data["is_first"][0] = True  # nothing is known before: start as at a reset
        start = self._start(first % self.size, stream) if self.context else None
        return Sample(self._sequence(data), start, Where(rows, stream))

    def _draw(self, length: int, batch: int, fresh: bool) -> tuple[np.ndarray, np.ndarray]:
        """First row (the context row if there is one) and stream of each window.  [B], [B]."""
        whole(1, "see ReplayConfig", length=length, batch=batch)
        if not self.can_sample(length):
            what = "episode" if self.episodes else "stream"
            longest = self._longest() if self.episodes else self.total - self.oldest
            raise ValueError(
                f"asked for length {length}{' + 1 context row' * self.context} but the longest "
                f"{what} has {longest} steps; lower length or collect more"
            )
        if self.episodes:
            return self._draw_episodes(length, batch)
        queued = self._queued(length, batch) if fresh else []
        lived = np.array(queued, np.int64).reshape(-1, 2)
        missing = batch - len(lived)
        first = self.oldest + self.rng.integers(self._starts(length), size=missing)
        stream = self.rng.integers(self.streams, size=missing)
        return np.append(lived[:, 0], first), np.append(lived[:, 1], stream)

    def _episodes(self, length: int) -> np.ndarray:
        """Episodes of at least `length` rows: first row, rows, stream.  [E,3].

        The running ones count as far as they went; what the ring has cut into does not.
        """
        flags = self.rows["is_first"][: self.total]
        flags = np.roll(flags, -self.oldest, 0) if self.oldest else flags  # the oldest row first
        stream, first = np.nonzero(flags.T)  # by stream, then by row
        last = np.append(stream[1:] != stream[:-1], True)  # of its stream
        until = np.where(last, self.total - self.oldest, np.append(first[1:], 0))
        found = np.stack([first + self.oldest, until - first, stream], 1)
        return found[found[:, 1] >= length]

    def _longest(self) -> int:
        """Rows of the longest episode."""
        return int(self._episodes(0)[:, 1].max(initial=0))

    def _draw_episodes(self, length: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """First row and stream of each window: an episode, then a start, each uniform.  [B], [B].

        V1 never draws the last start of an episode; here, as in V2, it counts like the others.
        """
        found = self._episodes(length)
        first, rows, stream = found[self.rng.integers(len(found), size=batch)].T
        starts = rows - length + 1
        draw = self.rng.integers(starts + length * self.ends)
        return first + np.minimum(draw, starts - 1), stream

    def _queued(self, length: int, batch: int) -> list[tuple[int, int]]:
        """Take up to `batch` complete windows, the oldest first, that no batch has had yet.

        The windows of a stream tile it: the last row of one is the context row of the next. Only
        a pointer per stream is kept, so what the ring has overwritten is simply skipped.
        """
        self.fresh = np.maximum(self.fresh, self.oldest)
        taken = []
        while len(taken) < batch:
            stream = int(self.fresh.argmin())
            first = int(self.fresh[stream])
            if first + self.context + length > self.total:
                break
            taken.append((first, stream))
            self.fresh[stream] += length
        return taken

    def _take(self, columns: dict, place: np.ndarray, stream: np.ndarray) -> dict[str, Tensor]:
        """The entries at these positions of these streams, on the device."""
        return {name: self._tensor(column[place, stream]) for name, column in columns.items()}

    def _sequence(self, data: dict[str, Tensor]) -> Sequence:
        obs = {k.removeprefix("obs/"): v for k, v in data.items() if k.startswith("obs/")}
        return Sequence(obs, *(data[name] for name in FIELDS))

    def _start(self, place: np.ndarray, stream: np.ndarray) -> State:
        data = self._take(self.latents, place, stream)
        z = one_hot(data["z"].long(), self.latent.classes).flatten(-2)
        return State(data["h"].float(), z.float())  # [B,D], [B,G*K]

    def _tensor(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(array)
        if self.device.type == "cuda":  # pinned memory lets the copy run beside the GPU's work
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    # Save

    def state(self) -> dict:
        """What sampling depends on besides the rows, ready for JSON."""
        return {
            "total": self.total,
            "fresh": self.fresh.tolist(),
            "rng": self.rng.bit_generator.state,
            "chunks": {str(k): v for k, v in self.chunks.items()},
        }

    def restore(self, state: dict) -> None:
        """Take over a `state()`."""
        self.total = state["total"]
        self.fresh = np.array(state["fresh"], np.int64)
        self.rng.bit_generator.state = state["rng"]
        self.chunks = {int(k): v for k, v in state["chunks"].items()}

    def layout(self) -> dict:
        """What two replays must share for one to read the other's files, ready for JSON."""
        columns = {name: [d, list(s)] for name, (d, s) in self.row_columns.items()}
        latent = list(self.latent) if self.latent else None
        return {"size": self.size, "streams": self.streams, "latent": latent, "columns": columns}

    def save(self, chunk_dir: Path | str, ckpt_dir: Path | str) -> None:
        """Rows never change, so full chunks are written once and shared by all checkpoints.

        ckpt_dir gets the rows since the last full chunk, and the latents, which do change.
        One chunk_dir belongs to one run.
        """
        chunk_dir, ckpt_dir = Path(chunk_dir), Path(ckpt_dir)
        chunk_dir.mkdir(parents=True, exist_ok=True)
        done = self.total // CHUNK
        for k in range(self.oldest // CHUNK, done):
            if k not in self.chunks:
                path = chunk_path(chunk_dir, k)
                write_arrays(path, self._span(self.rows, k * CHUNK, (k + 1) * CHUNK))
                self.chunks[k] = sha256(path)
        self.chunks = {k: v for k, v in self.chunks.items() if k >= self.oldest // CHUNK}
        tail = self._span(self.rows, done * CHUNK, self.total)
        latents = self._span(self.latents, 0, self.total)
        write_arrays(ckpt_dir / "replay.safetensors", tail | latents)
        text = json.dumps({"layout": self.layout(), "state": self.state()})
        with atomic(ckpt_dir / "replay.json") as path:
            path.write_text(text)

    def _span(self, columns: dict[str, np.ndarray], start: int, stop: int) -> dict:
        """Copies of the rows start <= i < stop that still live.  [rows,N,...]."""
        place = np.arange(max(start, self.oldest), stop) % self.size
        return {name: column[place] for name, column in columns.items()}

    def load(self, chunk_dir: Path | str, ckpt_dir: Path | str) -> None:
        """Undo `save`: what is sampled from now on is the same, bit for bit."""
        chunk_dir, path = Path(chunk_dir), Path(ckpt_dir) / "replay.json"
        stored = read_json(path)
        if stored["layout"] != json.loads(json.dumps(self.layout())):
            raise ValueError(
                f"{path} holds another replay: {stored['layout']}, but this run has "
                f"{self.layout()}; resume with the settings it was saved with"
            )
        self.restore(stored["state"])
        for k in range(self.oldest // CHUNK, self.total // CHUNK):
            path = chunk_path(chunk_dir, k)
            if not path.exists() or sha256(path) != self.chunks.get(k):
                raise Damaged(f"{path} is missing or damaged; restore it or start a new run")
            self._place(self.rows, read_arrays(path), (k + 1) * CHUNK)
        tail = read_arrays(Path(ckpt_dir) / "replay.safetensors")
        self._place(self.rows, tail, self.total)
        self._place(self.latents, tail, self.total)

    def _place(self, columns: dict, arrays: dict[str, np.ndarray], stop: int) -> None:
        """Put arrays whose last row is number stop-1 where they belong, dropping evicted rows."""
        for name, column in columns.items():
            rows = np.arange(stop - len(arrays[name]), stop)
            alive = rows >= self.oldest
            column[rows[alive] % self.size] = arrays[name][alive]


def flatten(row) -> dict[str, np.ndarray]:
    """An `envs.Row` as flat named arrays [N,...]."""
    obs = {f"obs/{name}": value for name, value in row.obs.items()}
    return obs | {name: getattr(row, name) for name in FIELDS}


def prune(chunk_dir: Path | str, ckpt_dirs: Iterable[Path | str]) -> None:
    """Delete the chunks that none of the checkpoints needs. Call after one succeeded."""
    needed = {name for folder in ckpt_dirs for name in chunks_of(Path(folder))}
    for path in Path(chunk_dir).glob("*chunk-*.safetensors"):  # also what a killed run left half
        if path.name not in needed:
            path.unlink()


def chunks_of(ckpt_dir: Path) -> list[str]:
    """File names a checkpoint needs; none if it is damaged, for then it cannot use them either."""
    try:
        chunks = read_json(ckpt_dir / "replay.json")["state"]["chunks"]
    except ValueError:
        return []
    return [chunk_path(Path(), int(k)).name for k in chunks]


def chunk_path(chunk_dir: Path, k: int) -> Path:
    """The file of rows k*CHUNK to (k+1)*CHUNK."""
    return chunk_dir / f"chunk-{k:06d}.safetensors"


# Share: one small file, without latents


def pack_rows(replay: Replay, path: Path | str) -> None:
    """Write all rows to a small .npz: bz2, images as the difference to the frame before."""
    rows = replay._span(replay.rows, 0, replay.total)
    packed = {k: bz2.compress(difference(v) if is_frames(v) else v) for k, v in rows.items()}
    header = json.dumps({"rows": len(rows["reward"]), "layout": replay.layout()}).encode()
    arrays = {k: np.frombuffer(v, np.uint8) for k, v in (packed | {"header": header}).items()}
    with atomic(Path(path)) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def unpack_rows(path: Path | str, *, seed: int = 0, device="cpu", online: bool = False) -> Replay:
    """A replay just large enough for the rows in a file of `pack_rows`; ValueError for others."""
    packed = read_packed(Path(path))
    header = json.loads(packed.pop("header"))
    columns, streams = header["layout"]["columns"], header["layout"]["streams"]
    obs = {k[4:]: tuple(s) for k, (_, s) in columns.items() if k.startswith("obs/")}
    size = columns["prev_action"][1][0]
    capacity = max(2, header["rows"]) * streams
    replay = Replay(capacity, streams, obs, size, seed=seed, device=device, online=online)
    replay.total = header["rows"]
    for name, (dtype, shape) in columns.items():
        values = np.frombuffer(bz2.decompress(packed[name]), dtype)
        values = values.reshape(header["rows"], streams, *shape)
        values = np.bitwise_xor.accumulate(values) if is_frames(values) else values
        replay.rows[name][: header["rows"]] = values
    return replay


def read_packed(path: Path) -> dict[str, bytes]:
    """The columns of a file of `pack_rows`, as they are stored; ValueError for other files."""
    try:
        with np.load(path, allow_pickle=False) as file:
            packed = {name: file[name].tobytes() for name in file.files}
    except (OSError, ValueError, EOFError, AttributeError, BadZipFile) as error:
        raise ValueError(f"{path} cannot be read ({error}); is the copy complete?") from error
    require("header" in packed, "path", "a file of pack_rows", f"{path}", "pack a replay first")
    return packed


def is_frames(column: np.ndarray) -> bool:
    """[T,N,H,W,C]: worth a difference over time."""
    return column.ndim == 5


def difference(frames: np.ndarray) -> np.ndarray:
    """x_t XOR x_{t-1}: what did not change becomes zero, and nothing is lost.  [T,...] uint8.

    ValueError for other dtypes.
    """
    require(frames.dtype == np.uint8, "frames", "uint8 [T, ...]", frames, "give raw pixels 0..255")
    return np.concatenate([frames[:1], frames[1:] ^ frames[:-1]])


# Files: complete or absent, whatever happens in between


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` once its content is safely on the disk."""
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        yield temporary
        with open(temporary, "r+b") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """A rename is durable only after its folder is; other systems than POSIX cannot ask for it."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_arrays(path: Path, arrays: dict, metadata: dict[str, str] | None = None) -> None:
    """Save named arrays or tensors as safetensors. An error of the disk is an OSError."""
    tensors = {k: torch.as_tensor(v).detach().cpu().contiguous() for k, v in arrays.items()}
    with atomic(path) as temporary:
        try:
            save_file(tensors, temporary, metadata)
            temporary.chmod(0o644)  # the library makes it private
        except SafetensorError as error:  # hides the number that says "disk full"
            code = re.search(r"os error (\d+)", str(error))
            if not code:
                raise
            raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file, of any shape; ValueError if it cannot be read."""
    try:
        return {name: tensor.numpy() for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read ({error}); is the copy complete?") from error


def read_json(path: Path) -> dict:
    """The object in a JSON file; ValueError if it cannot be read."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}); is the copy complete?") from error


def sha256(path: Path) -> str:
    """Fingerprint of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
