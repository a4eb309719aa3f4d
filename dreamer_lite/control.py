"""dm_control's suite as Gymnasium environments: bodies that are moved by motors.

    walker-walk -> "dmc/walker-walk"            what the joints tell, a Dict of vectors
                   "dmc/walker-walk/pixels"     what a camera sees, 64x64 RGB (`envs.make` draws it)

As in all three papers an agent step holds its action for two frames, and an episode is 1000 frames
that time ends, not failure: it is truncated, so what would come next keeps its value.

dm_control is the extra `dmc`. Pixels need OpenGL, without a screen through EGL (Debian: libegl1
libgl1-mesa-dri; NVIDIA's driver brings its own); MUJOCO_GL=egl, glfw or osmesa chooses. ValueError
for tasks that the suite does not have.
"""

import os
import sys
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from .guard import whole

CAMERAS = {"quadruped": 2}  # by body; all others are watched by camera 0 (danijar/dreamer 56d4d44)
# Why a machine without a screen may not draw, and what helps
NO_PICTURE = (
    "MuJoCo cannot draw ({}); without a screen it needs EGL (Debian: apt-get install libegl1 "
    "libgl1-mesa-dri) or MUJOCO_GL=osmesa (libosmesa6)"
)


class Control(gymnasium.Env):
    """One task of the suite, e.g. "walker-walk"; the reward of a frame is in [0, 1].

    repeat: frames per step, whose rewards are summed. size: height and width of pictures.
    camera: number of the camera that draws them; None takes the papers' choice.
    """

    metadata = {"render_modes": ["rgb_array"]}

    def __init__(
        self,
        name: str,
        repeat: int = 2,
        size: int = 64,
        camera: int | None = None,
        render_mode: str | None = None,
    ):
        whole(1, "the papers have repeat 2 and size 64", repeat=repeat, size=size)
        self.repeat, self.size, self.render_mode = repeat, size, render_mode
        self.camera = CAMERAS.get(name.partition("-")[0], 0) if camera is None else camera
        self.raw = load(name)
        motors = self.raw.action_spec()
        self.action_space = spaces.Box(motors.minimum, motors.maximum, dtype=motors.dtype)
        seen = {key: int(np.prod(x.shape)) for key, x in self.raw.observation_spec().items()}
        parts = {key: spaces.Box(-np.inf, np.inf, (n,), np.float32) for key, n in seen.items()}
        self.observation_space = spaces.Dict(parts)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """A new episode: {name: float32 [n]} and no further news."""
        super().reset(seed=seed)
        if seed is not None:
            self.raw.task.random.seed(seed)
        return vectors(self.raw.reset()), {}

    def step(self, action: np.ndarray):
        """action [A] in motor units -> {name: float32 [n]}, reward, terminated, truncated, {}."""
        reward = 0.0
        for _ in range(self.repeat):
            moment = self.raw.step(action)
            reward += moment.reward
            if moment.last():
                break
        terminated = moment.last() and moment.discount == 0
        return vectors(moment), reward, terminated, moment.last() and not terminated, {}

    def render(self) -> np.ndarray:
        """What the camera sees, uint8 [size,size,3]."""
        import mujoco

        try:
            return self.raw.physics.render(self.size, self.size, camera_id=self.camera)
        except (RuntimeError, mujoco.FatalError) as error:
            raise RuntimeError(NO_PICTURE.format(error)) from error

    def close(self) -> None:
        """Frees what draws."""
        self.raw.close()


def vectors(moment: Any) -> dict[str, np.ndarray]:
    """The observation of a `dm_env.TimeStep`: numbers, vectors and tables as float32 [n]."""
    return {key: np.asarray(x, np.float32).ravel() for key, x in moment.observation.items()}


def load(name: str) -> Any:
    """The `dm_env.Environment` of "<domain>-<task>".

    Some bodies are drawn at random when they are made. All get the same one, so that an episode
    depends on its own seed and nothing else.
    """
    try:
        tasks = suite()
    except ModuleNotFoundError as error:
        raise ValueError(
            f"'dmc/{name}' needs dm_control ({error}); pip install -e '.[dmc]' with Python 3.11 or "
            "3.12"
        ) from error
    domain, _, task = name.partition("-")
    if (domain, task) not in tasks.ALL_TASKS:
        known = sorted("-".join(x) for x in tasks.ALL_TASKS if x[0] == domain)
        known = known or [*sorted({x[0] for x in tasks.ALL_TASKS}), "followed by -<task>"]
        raise ValueError(f"unknown task {name!r}; expected one of {', '.join(known)}")
    return tasks.load(domain, task, task_kwargs={"random": 0})


def suite() -> ModuleType:
    """`dm_control.suite`, which draws by EGL on Linux; by itself it would want a screen.

    Drawing is chosen once per process, at this import, which fails where EGL does. Then anything
    goes that lets tasks without pixels run.
    """
    if sys.platform == "linux" and "MUJOCO_GL" not in os.environ:
        os.environ["MUJOCO_GL"] = "egl"
        try:
            import dm_control.suite
        except ModuleNotFoundError:
            del os.environ["MUJOCO_GL"]
            raise
        except Exception:  # no library, no driver, no device: each has its own error
            del os.environ["MUJOCO_GL"]
    import dm_control.suite

    return dm_control.suite
