"""Toy worlds of 16x16 gray pixels, small enough for a laptop and each with one difficulty.

Catch     a falling ball and a paddle. Options make three toys of it: frames that go blank
          (FlickerCatch: remember), a random background (NoisyCatch: ignore), scaled rewards
          (ScaleCatch: normalize). `optimal_return` solves the flickering one exactly.
Fork      a dot that goes up or down at random (two futures, one of which comes true)
MiniPong  first to five points against an opponent that errs
Reach     a dot that is steered to a target by two numbers (the only one with continuous actions);
          `reach_optimum` and `REACH_RANDOM` are exact

All draw from the seed given to `reset` and nothing else. Registered as dreamer_lite/<Name>-v0.
ValueError for options out of range, frames of another size and actions that are none.
"""

from functools import cache
from math import gcd, inf

import gymnasium
import numpy as np
from gymnasium import spaces

from dreamer_lite.guard import arrays, between, pixels, whole

SIZE = 16  # pixels per side
INK = 255  # objects; the background is 0


class Toy(gymnasium.Env):
    """A world drawn on a 16x16x1 image; subclasses give the number of actions and the rules."""

    actions = 3

    def __init__(self):
        self.observation_space = spaces.Box(0, 255, (SIZE, SIZE, 1), np.uint8)
        self.action_space = spaces.Discrete(self.actions)


# ------------------------------------------------------------------------------------ Catch

STEPS = 10  # per episode
COLUMNS = 15  # positions of the left edge of the ball, which is two pixels wide and high
PADDLE = 4  # pixels, on the bottom row
PADDLE_START = 6  # left edge; moves by two, so it visits 0, 2, ..., 12
LANDING_ROW = 13  # top row of the ball after the last step: it lies on the paddle's row 15


def roll(column: int, velocity: int) -> tuple[int, int]:
    """Column and velocity one step later; the ball is mirrored at both walls."""
    column += velocity
    if 0 <= column < COLUMNS:
        return column, velocity
    return column - 2 * velocity, -velocity


def move(paddle: int, action: int) -> int:
    """Left edge of the paddle after action 0 (left), 1 (stay) or 2 (right)."""
    return min(max(paddle + 2 * (action - 1), 0), SIZE - PADDLE)


def caught(paddle: int, column: int) -> bool:
    """Whether both columns of the ball are above the paddle."""
    return paddle <= column <= paddle + PADDLE - 2


class Catch(Toy):
    """Ten steps, then reward `scale` if the ball lands on the paddle, else -`scale`.

    The ball (2x2) starts in row 0 at a random column with velocity -1, 0 or 1 and falls to rows
    13-14 in ten steps (top row 13 t // 10). The paddle (4 wide) starts at columns 6-9.
    blank: probability that a frame, the first included, is all zeros, ball and paddle alike.
    noise: background pixels are drawn below this number in every frame.
    """

    def __init__(self, blank: float = 0.0, noise: int = 0, scale: float = 1.0):
        super().__init__()
        between(0, 1, "FlickerCatch has 0.2", blank=blank)
        between(0, 256, "NoisyCatch has 128", noise=noise)
        whole(0, "NoisyCatch has 128", noise=noise)
        between(-inf, inf, "ScaleCatch has 100", scale=scale)
        self.blank, self.noise, self.scale = blank, noise, scale

    def reset(self, *, seed=None, options=None):
        """A new episode: the first frame [16,16,1] and no further news."""
        super().reset(seed=seed)
        self.time, self.paddle = 0, PADDLE_START
        self.column = int(self.np_random.integers(COLUMNS))
        self.velocity = int(self.np_random.integers(-1, 2))
        return self._frame(), {}

    def step(self, action):
        """Frame [16,16,1], reward (0 on the way, ±scale at the end), terminated, truncated, {}."""
        self.time += 1
        self.paddle = move(self.paddle, int(action))
        self.column, self.velocity = roll(self.column, self.velocity)
        done = self.time == STEPS
        reward = self.scale * (1 if caught(self.paddle, self.column) else -1) if done else 0.0
        return self._frame(), reward, done, False, {}

    def _frame(self):
        image = np.zeros((SIZE, SIZE, 1), np.uint8)
        if self.np_random.random() < self.blank:
            return image
        if self.noise:
            image = self.np_random.integers(self.noise, size=image.shape, dtype=np.uint8)
        row = LANDING_ROW * self.time // STEPS
        image[row : row + 2, self.column : self.column + 2] = INK
        image[-1, self.paddle : self.paddle + PADDLE] = INK
        return image


# --------------------------------------------------------------- Catch solved: beliefs and DP

Belief = tuple[tuple[int, int, int], ...]  # (column, velocity, weight), see `normalize`


def normalize(weights: dict[tuple[int, int], int]) -> Belief:
    """Equal beliefs as equal tuples: sorted, integer weights without a common divisor."""
    divisor = gcd(*weights.values())
    return tuple(sorted((*ball, weight // divisor) for ball, weight in weights.items()))


def first_belief() -> Belief:
    """Before the first frame: every column and velocity alike."""
    return normalize({(c, v): 1 for c in range(COLUMNS) for v in (-1, 0, 1)})


def predict(belief: Belief) -> Belief:
    """The belief one step later, before looking. Two balls may merge at a wall."""
    weights: dict[tuple[int, int], int] = {}
    for column, velocity, weight in belief:
        ball = roll(column, velocity)
        weights[ball] = weights.get(ball, 0) + weight
    return normalize(weights)


def update(belief: Belief, column: int | None) -> Belief:
    """The belief after seeing the ball at `column`; None is a blank frame, which says nothing."""
    if column is None:
        return belief
    return normalize({(c, v): weight for c, v, weight in belief if c == column})


def probability(belief: Belief) -> dict[int, float]:
    """p(column), the probability of every possible column."""
    odds: dict[int, int] = {}
    for column, _, weight in belief:
        odds[column] = odds.get(column, 0) + weight
    return {column: weight / sum(odds.values()) for column, weight in odds.items()}


@cache
def value(time: int, paddle: int, belief: Belief, p: float) -> float:
    """V(b) = max_a Q(b, a), the best expected return after the frame of `time` is in `belief`.

    The agent knows its own paddle, so only the ball is uncertain.
    """
    if time == STEPS:
        return sum(q if caught(paddle, c) else -q for c, q in probability(belief).items())
    return max(action_values(time, paddle, belief, p))


def action_values(time: int, paddle: int, belief: Belief, p: float) -> list[float]:
    """Q(b, a) = E[V(b')] for the three actions; b' is `belief` moved on and shown a frame."""
    ahead = predict(belief)
    return [expected_value(time + 1, move(paddle, a), ahead, p) for a in range(Catch.actions)]


def expected_value(time: int, paddle: int, belief: Belief, p: float) -> float:
    """E[V] over the next frame: blank with probability p, else it shows the ball's column."""
    seen = sum(
        q * value(time, paddle, update(belief, column), p)
        for column, q in probability(belief).items()
    )
    return p * value(time, paddle, belief, p) + (1 - p) * seen


def optimal_return(p: float = 0.2) -> float:
    """The largest expected return of `Catch(blank=p)` over all policies with memory, exactly.

    Dynamic programming over beliefs about (column, velocity). The ball moves deterministically
    from a uniform start and a frame shows it or nothing, so few beliefs are reachable. Units: those
    of the reward with scale 1.
    """
    between(0, 1, "FlickerCatch has 0.2", p=p)
    return expected_value(0, PADDLE_START, first_belief(), p)


class OptimalCatcher:
    """The policy behind `optimal_return`: filters the frames and acts on its belief."""

    def __init__(self, p: float = 0.2):
        between(0, 1, "FlickerCatch has 0.2", p=p)
        self.p, self.time, self.paddle, self.belief = p, 0, PADDLE_START, first_belief()

    def act(self, image: np.ndarray) -> int:
        """The best action after the next frame [16,16,1] of the episode."""
        belief = update(self.belief, ball_column(image, self.time))
        action = int(np.argmax(action_values(self.time, self.paddle, belief, self.p)))
        self.time, self.paddle = self.time + 1, move(self.paddle, action)
        self.belief = predict(belief)
        return action


def ball_column(image: np.ndarray, time: int) -> int | None:
    """Left edge of the ball in a frame [16,16,1] of Catch, None if the frame is blank."""
    pixels("give a frame of Catch", (SIZE, SIZE, 1), image=image)
    whole(0, "steps since the first frame", time=time)
    ink = np.flatnonzero(image[LANDING_ROW * time // STEPS, :, 0] == INK)
    return int(ink[0]) if len(ink) else None


# ------------------------------------------------------------------------------------- Fork


class Fork(Toy):
    """A dot (2x2) moves right; from column 6 on it also climbs or descends, which is random.

    12 steps. Action 0 bets on up, 1 on down; only the bet placed at the junction counts: reward 1
    on arriving in the right branch, else 0. So every policy has expected return 1/2, the reward
    cannot be predicted before the branch is seen, and afterwards it can.
    """

    actions = 2
    steps, junction, row = 12, 6, 7

    def reset(self, *, seed=None, options=None):
        """A new episode: the first frame [16,16,1] and no further news."""
        super().reset(seed=seed)
        self.time, self.branch = 0, 0
        return self._frame(), {}

    def step(self, action):
        """Frame [16,16,1], reward (1 for the right bet), terminated, truncated, {}."""
        reward = 0.0
        if self.time == self.junction:
            self.branch = int(self.np_random.choice((-1, 1)))  # image rows grow downwards
            reward = float(action == (self.branch > 0))
        self.time += 1
        return self._frame(), reward, self.time == self.steps, False, {}

    def _frame(self):
        image = np.zeros((SIZE, SIZE, 1), np.uint8)
        row = self.row + self.branch * max(self.time - self.junction, 0)
        image[row : row + 2, self.time : self.time + 2] = INK
        return image


# --------------------------------------------------------------------------------- MiniPong


class MiniPong(Toy):
    """Pong to five points; the agent has the right paddle (actions: up, stay, down).

    Ball 2x2, paddles 4 high in the first and last column; everything moves one pixel per step and
    the ball always diagonally. A hit above the middle of a paddle sends the ball up, below it
    down, in the middle it keeps its direction. The opponent follows the ball but stands still
    with probability `error` per step. Reward 1 or -1 per point; `limit` steps truncate.
    """

    points = 5

    def __init__(self, error: float = 0.3, limit: int = 500):
        super().__init__()
        between(0, 1, "0.3 is usual", error=error)
        whole(1, "500 steps are usual", limit=limit)
        self.error, self.limit = error, limit

    def reset(self, *, seed=None, options=None):
        """A new episode: the first frame [16,16,1] and no further news."""
        super().reset(seed=seed)
        self.time, self.score = 0, [0, 0]  # opponent, agent
        self.paddles = [6, 6]
        self._serve()
        return self._frame(), {}

    def step(self, action):
        """Frame [16,16,1], reward (±1 a point), terminated, truncated, {}."""
        self.time += 1
        self._move_paddle(1, int(action) - 1)
        if self.np_random.random() >= self.error:
            self._move_paddle(0, int(np.sign(self.y - 1 - self.paddles[0])))
        reward = self._move_ball()
        done = max(self.score) == self.points
        return self._frame(), float(reward), done, not done and self.time >= self.limit, {}

    def _serve(self) -> None:
        self.x, self.y = 7, int(self.np_random.integers(SIZE - 1))
        self.dx, self.dy = (int(d) for d in self.np_random.choice((-1, 1), size=2))

    def _move_paddle(self, side: int, direction: int) -> None:
        self.paddles[side] = min(max(self.paddles[side] + direction, 0), SIZE - PADDLE)

    def _move_ball(self) -> int:
        """Advance the ball; returns the reward of a point, after which the ball is served."""
        self.x += self.dx
        if not 0 <= self.y + self.dy < SIZE - 1:
            self.dy = -self.dy
        self.y += self.dy
        if 1 < self.x < SIZE - 3:
            return 0
        side = int(self.dx > 0)  # 1: the ball reached the agent's paddle
        offset = self.y - 1 - self.paddles[side]  # 0: middle against middle
        if abs(offset) <= 2:
            self.dx, self.dy = -self.dx, int(np.sign(offset)) or self.dy
            return 0
        self.score[1 - side] += 1
        self._serve()
        return -1 if side else 1

    def _frame(self):
        image = np.zeros((SIZE, SIZE, 1), np.uint8)
        image[self.y : self.y + 2, self.x : self.x + 2] = INK
        for column, top in zip((0, -1), self.paddles, strict=True):
            image[top : top + PADDLE, column] = INK
        return image


# ------------------------------------------------------------------------------------ Reach

REACH_STEPS = 20  # per episode
REACH_SPEED = 0.1  # the longest move along an axis in one step; the side of the field is 1
DOT = 4  # pixels; a model is slow to find smaller ones
REACH_RANDOM = REACH_STEPS / 3  # expected return of uniform actions, see `Reach`


def steer(position: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The best action [2] in [-1,1]: as far towards the target as one step goes, on both axes.

    position, target [2] in [0,1].
    """
    arrays("two numbers each", (2,), position=position, target=target)
    return ((target - position) / REACH_SPEED).clip(-1, 1)


def reach_optimum() -> float:
    """The largest expected return of `Reach`, of a policy that sees everything: Σ_t 1 - 2 E[d_t].

    Distances d_0 = |x - y| of two uniform numbers have density 2 (1 - d). After t steps c = 0.1 t
    of it is covered at most: E[d_t] = E[max(d_0 - c, 0)] = ∫_c^1 (d - c) 2 (1 - d) dd = (1 - c)³/3.
    """
    covered = [min(REACH_SPEED * t, 1.0) for t in range(1, REACH_STEPS + 1)]
    return sum(1 - 2 * (1 - c) ** 3 / 3 for c in covered)


class Reach(Toy):
    """Steer dot x to target y: reward 1 - |x₁ - y₁| - |x₂ - y₂| per step, truncated after 20.

    Both start uniformly in [0, 1]²; x moves by 0.1 a, a ∈ [-1, 1]², and is mirrored at the walls.
    A uniform x stays uniform under symmetric random moves, so random play earns 1 - 2 E|x₁ - y₁| =
    1 - 2/3 per step. `steer` is optimal: no actions bring x nearer, on any axis, at any time.
    Both cover 4x4 pixels, which are shaded by how much of them is covered; the target is darker.
    """

    def __init__(self):
        super().__init__()
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        """A new episode: the first frame [16,16,1] and no further news."""
        super().reset(seed=seed)
        self.time = 0
        self.position, self.target = self.np_random.random((2, 2))
        return self._frame(), {}

    def step(self, action):
        """action [2] -> frame [16,16,1], reward, terminated, truncated, {}."""
        self.time += 1
        moved = self.position + REACH_SPEED * np.asarray(action, np.float64).clip(-1, 1)
        self.position = 1 - abs(1 - abs(moved))  # mirrored at 0 and at 1
        reward = 1 - abs(self.position - self.target).sum()
        return self._frame(), float(reward), False, self.time >= REACH_STEPS, {}

    def _frame(self):
        dot, target = square(self.position), square(self.target)
        shades = np.maximum(INK * dot, INK / 2 * target)
        return shades.round().astype(np.uint8)[..., None]


def square(place: np.ndarray) -> np.ndarray:
    """The share of every pixel [16,16] that is covered by a dot at `place` (row, column)."""
    arrays("a place has a row and a column", (2,), place=place)
    start, pixels = place[:, None] * (SIZE - DOT), np.arange(SIZE)
    rows, columns = (np.minimum(start + DOT, pixels + 1) - np.maximum(start, pixels)).clip(0, 1)
    return np.outer(rows, columns)
