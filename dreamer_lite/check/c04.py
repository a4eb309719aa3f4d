"""Exercises of chapter 4: the RSSM."""

from collections.abc import Callable

import torch
from torch import Tensor

from dreamer_lite.check.core import Exercise

Step = Callable[..., Tensor]
Priors = Callable[[Tensor], Tensor]

# --- 4.2: observing with resets ------------------------------------------------------------------


def game(rng: torch.Generator) -> tuple:
    """recur, look, embed [T,B,E], prev_action [T,B,A], is_first [T,B], h [B,D], z [B,Z]."""
    steps, batch, widths = 5, 3, dict(h=4, z=3, a=2, e=3)
    draw = {k: torch.randn(n, widths["h"], generator=rng) for k, n in widths.items()}
    out = torch.randn(widths["h"], widths["z"], generator=rng)

    def recur(h: Tensor, z: Tensor, a: Tensor) -> Tensor:
        return torch.tanh(h @ draw["h"] + z @ draw["z"] + a @ draw["a"] + 0.3)

    def look(h: Tensor, e: Tensor) -> Tensor:
        return torch.tanh((h + e @ draw["e"]) @ out)

    embed, action = (torch.randn(steps, batch, widths[k], generator=rng) for k in "ea")
    first = torch.rand(steps, batch, generator=rng) < 0.3
    first[2, 0], first[:, 1] = True, False
    start = (torch.randn(batch, widths[k], generator=rng) for k in "hz")
    return recur, look, embed, action, first, *start


def observer(forget: str = "hza", shift: int = 0, late: int = 0, after: bool = False) -> Callable:
    """`observe`, right or with a mistake.

    forget: what a reset clears.  shift: which action, counted from the right one.
    late: resets come that many rows late.  after: h is cleared behind the recurrent model.
    """

    def observe(recur: Step, look: Step, embed, action, first, h, z) -> tuple[Tensor, Tensor]:
        states = []
        for t, e in enumerate(embed):
            keep = ~first[max(t - late, 0)][:, None]
            a = action[min(t + shift, len(action) - 1)]
            before = h if after or "h" not in forget else h * keep
            h = recur(
                before,
                z * keep if "z" in forget else z,
                a * keep if "a" in forget else a,
            )
            h = h * keep if after else h
            z = look(h, e)
            states.append((h, z))
        return tuple(torch.stack(x) for x in zip(*states, strict=True))

    return observe


# --- 4.3: who has seen the picture? --------------------------------------------------------------


def honest(x: Tensor) -> Tensor:
    """Entry t knows x_0 ... x_{t-1}.  [T,B,E] -> [T,B,E]."""
    return torch.cat([0 * x[:1], x.cumsum(0)[:-1]]).tanh()


def peeking(x: Tensor) -> Tensor:
    """Entry t knows x_t too."""
    return x.cumsum(0).tanh()


def foreseeing(x: Tensor) -> Tensor:
    """Entry t knows x_{t+1}, but not x_t."""
    return honest(x) + torch.cat([x[1:], 0 * x[:1]])


def once(x: Tensor) -> Tensor:
    """Honest but for the last entry."""
    return torch.cat([honest(x)[:-1], peeking(x)[-1:]])


def at(t: int, game: int | slice = slice(None)) -> Priors:
    """Honest but for entry t, of all games or of one."""

    def priors(x: Tensor) -> Tensor:
        found = honest(x).clone()
        found[t, game] = peeking(x)[t, game]
        return found

    return priors


def across(x: Tensor) -> Tensor:
    """Entry t knows x_t of the next game in the batch."""
    return honest(x) + x.roll(1, 1)


def blind(x: Tensor) -> Tensor:
    """Knows nothing."""
    return torch.zeros_like(x)


PRIORS = [honest, peeking, foreseeing, once, across, blind, at(0), at(1), at(2, game=1)]


def suspects(rng: torch.Generator) -> tuple[Priors, Tensor]:
    """One of several priors, and pictures [T,B,E] to try it on."""
    index = int(torch.randint(len(PRIORS), (), generator=rng))
    return PRIORS[index], torch.randn(4, 2, 3, generator=rng)


def moves(priors: Priors, x: Tensor, t: int) -> Tensor:
    """Which entries move when the pictures of time t do.  [T] bool."""
    other = x.clone()
    other[t] += 1
    return (priors(x) != priors(other)).flatten(1).any(1)


def peeks(priors: Priors, x: Tensor) -> bool:
    """Whether some prior of time s knows a picture of time t >= s."""
    return any(bool(moves(priors, x, t)[: t + 1].any()) for t in range(len(x)))


def same_time(priors: Priors, x: Tensor) -> bool:
    """Looks at entry t only."""
    return any(bool(moves(priors, x, t)[t]) for t in range(len(x)))


def only_first(priors: Priors, x: Tensor) -> bool:
    """Moves the first picture only."""
    return bool(moves(priors, x, 0)[0])


def only_last(priors: Priors, x: Tensor) -> bool:
    """Moves the last picture only."""
    return bool(moves(priors, x, len(x) - 1).any())


def any_change(priors: Priors, x: Tensor) -> bool:
    """Calls memory a leak."""
    return any(bool(moves(priors, x, t).any()) for t in range(len(x)))


def own_game(priors: Priors, x: Tensor) -> bool:
    """Moves one game of the batch and looks at that game only."""
    for t in range(len(x)):
        for b in range(x.shape[1]):
            other = x.clone()
            other[t, b] += 1
            if (priors(x) != priors(other))[: t + 1, b].any():
                return True
    return False


# --- 4.4: what a memory costs --------------------------------------------------------------------


def block_gru(D: int, Y: int, Z: int, A: int, g: int) -> int:
    """Parameters of a BlockGRU with g blocks."""
    views = sum(n * Y + 2 * Y for n in (D, Z, A))
    mix = (D // g + 3 * Y) * D + 2 * D
    return views + mix + 3 * D * D // g + 3 * D


def sizes(rng: torch.Generator) -> tuple[int, ...]:
    """D, Y, Z, A, g; D is a multiple of g."""
    Y, Z, A, g = (int(torch.randint(2, 9, (), generator=rng)) for _ in range(4))
    return g * int(torch.randint(2, 9, (), generator=rng)), Y, Z, A, g


def no_norms(D, Y, Z, A, g):
    """Forgets the scales of the four norms."""
    return block_gru(D, Y, Z, A, g) - 3 * Y - D


def no_biases(D, Y, Z, A, g):
    """Forgets the biases."""
    return block_gru(D, Y, Z, A, g) - 3 * Y - D - 3 * D


def dense_gates(D, Y, Z, A, g):
    """The gates as one dense layer."""
    return block_gru(D, Y, Z, A, g) - 3 * D * D // g + 3 * D * D


def split_views(D, Y, Z, A, g):
    """Each block sees its share of the views only."""
    return block_gru(D, Y, Z, A, g) - 3 * Y * D + 3 * Y * D // g


def one_view(D, Y, Z, A, g):
    """One layer of width Y for [h, z, a], as in V1 and V2."""
    mix = (D // g + Y) * D + 2 * D
    return (D + Z + A) * Y + 2 * Y + mix + 3 * D * D // g + 3 * D


# --- 4.5: which action stands beside which picture -----------------------------------------------


def played(rng: torch.Generator) -> tuple[Tensor]:
    """The actions of an episode in the order in which they were chosen.  [n,A]."""
    steps = int(torch.randint(3, 7, (), generator=rng))
    return (torch.randn(steps, 2, generator=rng),)


def led_here(actions: Tensor) -> Tensor:
    """[n,A] -> prev_action [n+1,A]."""
    return torch.cat([0 * actions[:1], actions])


def taken_next(actions: Tensor) -> Tensor:
    """The bug: row t holds the action chosen on seeing x_t."""
    return torch.cat([actions, 0 * actions[:1]])


EXERCISES = [
    Exercise(
        id="4.1",
        right=(False, True, False, True, True, False),
        wrong={
            "lets the decoder run. A dream is a sequence of latent states; pictures are drawn "
            "only if a person wants to look.": (False, True, False, True, True, True),
            "needs pictures: encoder and representation model read x, and in a dream there is "
            "none.": (True, True, True, False, True, False),
            "lets both guess and look. Where nothing is seen, the transition predictor alone "
            "draws z.": (False, True, True, True, True, False),
            "forgets the recurrent model. Without it the memory stands still.": (
                False,
                False,
                False,
                True,
                True,
                False,
            ),
            "forgets the reward predictor: without rewards a dream teaches nothing.": (
                False,
                True,
                False,
                True,
                False,
                False,
            ),
        },
    ),
    Exercise(
        id="4.2",
        right=observer(),
        case=game,
        wrong={
            "never forgets: is_first is not used.": observer(""),
            "forgets h, but keeps z of the old game.": observer("ha"),
            "forgets z, but keeps h of the old game.": observer("za"),
            "forgets h and z, but not the action: in a first row it belongs to the old game, or "
            "is a leftover.": observer("hz"),
            "clears h behind the recurrent model. The model must run from the empty memory: "
            "f(0, 0, 0) is not 0.": observer(after=True),
            "uses the next row's action. `prev_action[t]` is the one that led to row t.": (
                observer(shift=1)
            ),
            "resets one row too late.": observer(late=1),
        },
    ),
    Exercise(
        id="4.3",
        right=peeks,
        case=suspects,
        always=[
            (f, torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(i)))
            for i, f in enumerate(PRIORS)
        ],
        wrong={
            "compares only prior and picture of the same time. A prior that knows a *later* "
            "picture peeks as well.": same_time,
            "moves the first picture only. A leak may be anywhere.": only_first,
            "moves the last picture only. A leak may be anywhere.": only_last,
            "calls memory a leak: prior t may know all pictures before t.": any_change,
            "looks only at the game whose picture it moved. Games of one batch must not meet.": (
                own_game
            ),
            "has it the wrong way round: True is for a prior that peeks.": (
                lambda priors, x: not peeks(priors, x)
            ),
        },
    ),
    Exercise(
        id="4.4",
        right=block_gru,
        case=sizes,
        wrong={
            "forgets the norms: each of the three views and the mixed layer has a scale for every "
            "unit.": no_norms,
            "forgets the biases: every linear layer has one.": no_biases,
            "has dense gates. They, too, are block by block: 3 D²/g.": dense_gates,
            "splits the views among the blocks. Every block sees all 3 Y numbers.": split_views,
            "has one view of [h, z, a], as V1 and V2 have of [z, a]. V3 has three.": one_view,
        },
    ),
    Exercise(
        id="4.5",
        right=led_here,
        given=taken_next,
        case=played,
        wrong={
            "shifts the wrong way: x_0 now stands beside a_1, which belongs two rows later.": (
                lambda a: torch.cat([a[1:], 0 * a[:1], 0 * a[:1]])
            ),
            "wraps around: the last action stands in the first row, which no action led to.": (
                lambda a: torch.cat([a[-1:], a])
            ),
            "has the right order, but repeats the first action in the first row. Nothing led "
            "there, so it is 0.": lambda a: torch.cat([a[:1], a]),
            "drops the last row. The final picture is stored too, with the action that led to "
            "it.": lambda a: torch.cat([0 * a[:1], a[:-1]]),
        },
    ),
]
