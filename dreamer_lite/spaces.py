"""What an agent sees and does, reduced to shapes: the contract between environments and networks.

An observation is a dictionary of named arrays; an action is one flat vector. Everything else about
an environment (ids, wrappers, seeds) stays in `envs`.
"""

from dataclasses import dataclass

from dreamer_lite.guard import require, whole

ObsSpec = dict[str, tuple[int, ...]]  # name -> shape without batch axes: [H,W,C] image, [n] vector


def is_image(shape: tuple[int, ...]) -> bool:
    """Images are uint8 [H,W,C]; everything else is a float32 vector [n]."""
    return len(shape) == 3


def refuse_odd(spec: ObsSpec) -> None:
    """Raises ValueError for an observation that is neither an image [H,W,C] nor a vector [n]."""
    for name, shape in spec.items():
        kind = isinstance(shape, tuple) and len(shape) in (1, 3)
        remedy = "flatten tables, and give gray images a channel"
        require(kind, name, "an image (H, W, C) or a vector (n,)", f"{shape!r}", remedy)
        whole(1, remedy, **{f"{name}[{i}]": n for i, n in enumerate(shape)})


@dataclass(frozen=True)
class ActionSpec:
    """One-hot groups (`discrete`, one entry per choice) or numbers in [-1, 1] (`continuous`).

    ValueError for both at once, and for sizes that are no whole numbers.
    """

    discrete: tuple[int, ...] = ()
    continuous: int = 0

    def __post_init__(self) -> None:
        remedy = "a choice of 4 is ActionSpec((4,)), two numbers are ActionSpec(continuous=2)"
        require(isinstance(self.discrete, tuple), "discrete", "a tuple", self.discrete, remedy)
        whole(1, remedy, **{f"discrete[{i}]": n for i, n in enumerate(self.discrete)})
        whole(0, remedy, continuous=self.continuous)
        one = not (self.discrete and self.continuous)
        require(one, "continuous", "0 beside discrete choices", f"{self.continuous}", remedy)

    @property
    def size(self) -> int:
        """Width A of the flat action vector."""
        return sum(self.discrete) + self.continuous
