"""`agent_drawing`: one drawing of the whole agent, whose boxes are filled chapter by chapter."""

import io
from typing import NamedTuple

from dreamer_lite.page.output import Output

WIDTH, HEIGHT = 1.75, 0.72  # of a box; the whole drawing measures 11.4 by 5.6


class Box(NamedTuple):
    """A piece of the agent: what it is called, the chapter that builds it, its center."""

    label: str
    chapter: int
    x: float
    y: float


# The pieces of the agent, by the names that ARROWS uses
BOXES = {
    "world": Box("world", 1, 1.0, 2.45),
    "memory": Box("memory  $h_t$", 2, 5.4, 3.0),
    "encoder": Box("encoder", 3, 3.2, 4.0),
    "decoder": Box("decoder", 3, 10.2, 4.9),
    "posterior": Box("posterior\n$q(z_t | h_t, x_t)$", 4, 5.4, 4.0),
    "prior": Box("prior\n$p(z_t | h_t)$", 4, 5.4, 2.0),
    "replay": Box("replay", 5, 1.0, 4.0),
    "reward": Box("reward  $r_t$", 5, 10.2, 3.1),
    "continue": Box("continue  $c_t$", 5, 10.2, 4.0),
    "latent": Box("latent  $z_t$", 6, 7.8, 4.0),
    "kl": Box("KL loss", 7, 7.8, 3.0),
    "imagination": Box("imagination", 8, 5.4, 0.9),
    "returns": Box("λ-returns", 9, 7.8, 0.9),
    "actor": Box("actor  $a_t$", 10, 1.0, 0.9),
    "critic": Box("critic  $v_t$", 10, 7.8, 1.9),
    "scales": Box("symlog, twohot", 11, 10.2, 1.9),
}

ARROWS = """
world>replay replay>encoder encoder>posterior memory>posterior memory>prior posterior>latent
latent>decoder latent>reward latent>continue posterior>kl prior>kl prior>imagination
imagination>returns critic>returns scales>critic scales>reward actor>imagination actor>world
""".split()
EMPTY, FILLED, NEW = ("#ffffff", "#777777"), ("#d6e4f5", "#1c4f8a"), ("#f6c667", "#7a4a00")


def agent_drawing(chapter: int) -> Output:
    """The agent after a chapter: empty boxes come later, blue ones are built, gold ones are new."""
    return Output(plain=describe(chapter), png=png(chapter))


def png(chapter: int) -> bytes:
    """The drawing in few colors, the same bytes every time."""
    from PIL import Image

    file, small = io.BytesIO(), io.BytesIO()
    figure(chapter).savefig(file, format="png", dpi=100)
    Image.open(file).convert("RGB").quantize(48).save(small, "PNG", optimize=True)
    return small.getvalue()


def describe(chapter: int) -> str:
    """The drawing in words."""

    def named(which) -> str:
        return ", ".join(key for key, box in BOXES.items() if which(box.chapter)) or "none"

    return (
        f"The agent after chapter {chapter}. New: {named(lambda n: n == chapter)}. Built before: "
        f"{named(lambda n: n < chapter)}. Still to come: {named(lambda n: n > chapter)}."
    )


def figure(chapter: int):
    """The drawing as a matplotlib Figure."""
    from matplotlib.figure import Figure

    drawn = Figure((9.1, 4.5), facecolor="white")
    ax = drawn.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, 11.4), ylim=(0.2, 5.5))
    ax.axis("off")
    for arrow in ARROWS:
        connect(ax, *(BOXES[key] for key in arrow.split(">")))
    for box in BOXES.values():
        draw(ax, box, chapter)
    return drawn


def draw(ax, box: Box, chapter: int) -> None:
    """One box; a dashed edge and a chapter number where it is still empty."""
    from matplotlib.patches import FancyBboxPatch

    face, edge = NEW if box.chapter == chapter else FILLED if box.chapter < chapter else EMPTY
    corner = (box.x - WIDTH / 2, box.y - HEIGHT / 2)
    shape = FancyBboxPatch(corner, WIDTH, HEIGHT, boxstyle="round,pad=0,rounding_size=0.12")
    shape.set(facecolor=face, edgecolor=edge, linewidth=2.2 if box.chapter == chapter else 1.2)
    shape.set_linestyle("--" if box.chapter > chapter else "-")
    ax.add_patch(shape)
    label = box.label if box.chapter <= chapter else f"{box.label}\n(chapter {box.chapter})"
    size = 8 if "\n" in box.label and box.chapter > chapter else 9
    ax.text(box.x, box.y, label, ha="center", va="center", fontsize=size, color="#111111")


def connect(ax, start: Box, end: Box) -> None:
    """An arrow from one box to another, edge to edge."""
    dx, dy = end.x - start.x, end.y - start.y
    if abs(dx) * HEIGHT > abs(dy) * WIDTH:  # leaves through a side
        side = WIDTH / 2 if dx > 0 else -WIDTH / 2
        tail, head = (start.x + side, start.y), (end.x - side, end.y)
    else:
        side = HEIGHT / 2 if dy > 0 else -HEIGHT / 2
        tail, head = (start.x, start.y + side), (end.x, end.y - side)
    style = dict(arrowstyle="-|>", color="#555555", linewidth=1.2, shrinkA=0, shrinkB=1)
    ax.annotate("", head, tail, arrowprops=style)
