"""What an agent sees and does, reduced to shapes: the contract between environments and networks.

An observation is a dictionary of named arrays; an action is one flat vector. Everything else about
an environment (ids, wrappers, seeds) stays in `envs`.
"""

from typing import NamedTuple

ObsSpec = dict[str, tuple[int, ...]]  # name -> shape without batch axes: [H,W,C] image, [n] vector


def is_image(shape: tuple[int, ...]) -> bool:
    """Images are uint8 [H,W,C]; everything else is a float32 vector [n]."""
    return len(shape) == 3


class ActionSpec(NamedTuple):
    """One-hot groups (`discrete`, one entry per choice) or numbers in [-1, 1] (`continuous`)."""

    discrete: tuple[int, ...] = ()
    continuous: int = 0

    @property
    def size(self) -> int:
        """Width A of the flat action vector."""
        return sum(self.discrete) + self.continuous
