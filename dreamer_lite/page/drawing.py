"""`agent_drawing`: one drawing of the whole agent, whose boxes are filled chapter by chapter."""

import io
import re
from typing import NamedTuple

from dreamer_lite.page.files import book_folder, written
from dreamer_lite.page.output import Output

WIDTH, HEIGHT = 1.75, 0.72  # of a box; the whole drawing measures 11.4 by 5.6
LINE, SINK = 0.19, 0.055  # from line to line in a box; from the middle of a line to its foot
GRAY = "#777777"  # of the arrows: seen on white and on black


class Look(NamedTuple):
    """How a box is drawn: its colors, the line around it, and what is said below its name."""

    face: str
    edge: str
    width: float
    style: str
    note: str = ""


# The states of a box. All have a face of their own, so that letters are legible on every page.
LOOKS = {
    "New": Look("#f6c667", "#7a4a00", 2.2, "-"),
    "Built before": Look("#d6e4f5", "#1c4f8a", 1.2, "-"),
    "Not written yet": Look("#eef3f9", "#1c4f8a", 1.2, ":", "not written yet"),
    "Still to come": Look("#ffffff", GRAY, 1.2, "--", "chapter {}"),
}


class Box(NamedTuple):
    """A piece of the agent: what it is called, the chapters that build it, its center, symbol."""

    label: str
    chapters: tuple[int, ...]
    x: float
    y: float
    symbol: str = ""


# The pieces of the agent, by the names that ARROWS uses. What a memory must keep is one chapter,
# the network that keeps it another.
BOXES = {
    "world": Box("world", (1,), 1.0, 2.45),
    "memory": Box("memory", (2, 4), 5.4, 3.0, "hₜ"),
    "encoder": Box("encoder", (3,), 3.2, 4.0),
    "decoder": Box("decoder", (3,), 10.2, 4.9),
    "posterior": Box("posterior", (4,), 5.4, 4.0, "q(zₜ | hₜ, xₜ)"),
    "prior": Box("prior", (4,), 5.4, 2.0, "p(zₜ | hₜ)"),
    "replay": Box("replay", (5,), 1.0, 4.0),
    "reward": Box("reward", (5,), 10.2, 3.1, "rₜ"),
    "continue": Box("continue", (5,), 10.2, 4.0, "cₜ"),
    "latent": Box("latent", (6,), 7.8, 4.0, "zₜ"),
    "kl": Box("KL loss", (7,), 7.8, 3.0),
    "imagination": Box("imagination", (8,), 5.4, 0.9),
    "returns": Box("λ-returns", (9,), 7.8, 0.9),
    "actor": Box("actor", (10,), 1.0, 0.9, "aₜ"),
    "critic": Box("critic", (10,), 7.8, 1.9, "vₜ"),
    "scales": Box("symlog, twohot", (11,), 10.2, 1.9),
}

ARROWS = """
world>replay replay>encoder encoder>posterior memory>posterior memory>prior posterior>latent
latent>decoder latent>reward latent>continue posterior>kl prior>kl prior>imagination
imagination>returns critic>returns scales>critic scales>reward actor>imagination actor>world
""".split()


def agent_drawing(chapter: int) -> Output:
    """The agent after a chapter: gold boxes are new, blue ones built before, dashed ones to come.

    Pale boxes are used already, but the chapter that builds them is not written yet.
    """
    ready = written(book_folder())
    return Output(describe(chapter, ready), png=png(chapter, ready), svg=svg(chapter, ready))


def state(box: Box, chapter: int, ready: set[int]) -> str:
    """What a box is after a chapter, if the chapters `ready` are written: a key of LOOKS."""
    if chapter in box.chapters:
        return "New"
    if chapter < min(box.chapters):
        return "Still to come"
    built = any(c in ready for c in box.chapters if c < chapter)
    return "Built before" if built else "Not written yet"


def describe(chapter: int, ready: set[int]) -> str:
    """The drawing in words."""
    states = {key: state(box, chapter, ready) for key, box in BOXES.items()}
    named = {look: ", ".join(k for k in states if states[k] == look) or "none" for look in LOOKS}
    listed = " ".join(f"{look}: {names}." for look, names in named.items())
    return f"The agent after chapter {chapter}. {listed}"


def png(chapter: int, ready: set[int]) -> bytes:
    """The drawing in few colors, the same bytes every time."""
    from PIL import Image

    file, small = io.BytesIO(), io.BytesIO()
    figure(chapter, ready).savefig(file, format="png", dpi=100)
    Image.open(file).convert("RGB").quantize(48).save(small, "PNG", optimize=True)
    return small.getvalue()


def svg(chapter: int, ready: set[int]) -> str:
    """The drawing in vectors, the same text every time; transparent around the boxes.

    Words stay words, each set around its center, so that any font will do.
    """
    from matplotlib import rc_context

    file = io.StringIO()
    unsaid = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    rules = {"svg.hashsalt": "agent", "svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans"]}
    with rc_context(rules):
        about = unsaid | {"Title": describe(chapter, ready)}
        figure(chapter, ready).savefig(file, format="svg", transparent=True, metadata=about)
    text = file.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text[text.index("<svg") :], flags=re.S)
    text = re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", text)
    return text.replace("<svg ", '<svg role="img" ', 1)


def figure(chapter: int, ready: set[int]):
    """The drawing as a matplotlib Figure."""
    from matplotlib.figure import Figure

    drawn = Figure((9.1, 4.5), facecolor="white")
    ax = drawn.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, 11.4), ylim=(0.2, 5.5))
    ax.axis("off")
    for arrow in ARROWS:
        connect(ax, *(BOXES[key] for key in arrow.split(">")))
    for box in BOXES.values():
        draw(ax, box, LOOKS[state(box, chapter, ready)])
    return drawn


def draw(ax, box: Box, look: Look) -> None:
    """One box with its label."""
    from matplotlib.patches import FancyBboxPatch

    corner = (box.x - WIDTH / 2, box.y - HEIGHT / 2)
    shape = FancyBboxPatch(corner, WIDTH, HEIGHT, boxstyle="round,pad=0,rounding_size=0.12")
    shape.set(facecolor=look.face, edgecolor=look.edge, linewidth=look.width, linestyle=look.style)
    ax.add_patch(shape)
    lines = [box.label, box.symbol, look.note and f"({look.note.format(min(box.chapters))})"]
    lines = [line for line in lines if line]
    top = box.y + LINE * (len(lines) - 1) / 2 - SINK
    for i, line in enumerate(lines):
        font = dict(style="italic" if line == box.symbol else "normal", size=9, color="#111111")
        ax.text(box.x, top - LINE * i, line, ha="center", **font)


def connect(ax, start: Box, end: Box) -> None:
    """An arrow from one box to another, edge to edge."""
    dx, dy = end.x - start.x, end.y - start.y
    if abs(dx) * HEIGHT > abs(dy) * WIDTH:  # leaves through a side
        side = WIDTH / 2 if dx > 0 else -WIDTH / 2
        tail, head = (start.x + side, start.y), (end.x - side, end.y)
    else:
        side = HEIGHT / 2 if dy > 0 else -HEIGHT / 2
        tail, head = (start.x, start.y + side), (end.x, end.y - side)
    style = dict(arrowstyle="-|>", color=GRAY, linewidth=1.2, shrinkA=0, shrinkB=1)
    ax.annotate("", head, tail, arrowprops=style)
