"""`Explore`: a drawing with sliders that works with a kernel and without.

With a kernel the sliders are ipywidgets and redraw at any value. Without one (the website, a
notebook that was opened but not run) they turn the pages of a flip-book drawn beforehand.
"""

import base64
import html
import io
import itertools
import json
from collections.abc import Callable, Iterable, Sequence

MAX_FRAMES = 60  # a flip-book travels inside the page, about 10 kB a frame

# Picks the frame whose index has the sliders' positions as digits, and says so in the text
# alternative. Keys stop at the block, or JupyterLab would take the arrows for itself.
SCRIPT = """(() => {
  const here = document.currentScript;
  const root = here ? here.parentElement : document.getElementById(%s);
  const frames = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
  const sliders = [...root.querySelectorAll('input')];
  const image = root.querySelector('img'), alt = image.alt;
  const turn = () => {
    let index = 0;
    const now = sliders.map((slider) => {
      const values = slider.dataset.values.split('|'), value = values[+slider.value];
      index = index * values.length + +slider.value;
      slider.nextElementSibling.value = value;
      slider.setAttribute('aria-valuetext', value);
      return slider.name + ' = ' + value;
    });
    image.src = frames[index];
    image.alt = alt + ' (' + now.join(', ') + ')';
  };
  sliders.forEach((slider) => slider.addEventListener('input', turn));
  root.addEventListener('keydown', (event) => event.stopPropagation());
})()"""


class Explore:
    """A figure as a function of a few numbers: Explore(draw, "kl", alt="...", beta=[0.1, 1]).

    draw: called with one number per slider, returns a matplotlib Figure.
    name: unique on the page.  alt: says in words what the picture shows.
    values: for each argument of `draw` the slider's positions, as keywords.
    """

    def __init__(
        self, draw: Callable, name: str, alt: str, *, dpi: int = 80, **values: Iterable[float]
    ):
        self.draw, self.name, self.alt, self.dpi = draw, name, alt, dpi
        self.values = {key: list(numbers) for key, numbers in values.items()}
        check(self.values, alt)

    def frames(self) -> list[str]:
        """A data address of a picture for every combination, the last slider turning fastest."""
        grid = itertools.product(*self.values.values())
        shots = (self.png(**dict(zip(self.values, point, strict=True))) for point in grid)
        return ["data:image/png;base64," + base64.b64encode(shot).decode() for shot in shots]

    def png(self, **point: float) -> bytes:
        """The drawing at one point, the same bytes every time."""
        import matplotlib.pyplot as plt

        figure, file = self.draw(**point), io.BytesIO()
        figure.savefig(file, format="png", dpi=self.dpi, metadata={"Software": None})
        plt.close(figure)
        return file.getvalue()

    def _repr_html_(self) -> str:
        frames = self.frames()
        name, alt = html.escape(self.name), html.escape(self.alt)
        sliders = "".join(slider(key, values) for key, values in self.values.items())
        data = f'<script type="application/json">{json.dumps(frames)}</script>'
        script = f"<script>{SCRIPT % json.dumps(self.name)}</script>"
        image = f'<img alt="{alt}" src="{frames[0]}">'
        return f'<div id="{name}" class="explore">{sliders}{image}{data}{script}</div>'

    def widget(self):
        """Live sliders above a picture that is redrawn (ipywidgets)."""
        import ipywidgets

        image = ipywidgets.Image(format="png", layout={"object_fit": "contain"})
        sliders = {key: live_slider(key, values) for key, values in self.values.items()}

        def redraw(_=None):
            image.value = self.png(**{key: one.value for key, one in sliders.items()})

        for one in sliders.values():
            one.observe(redraw, "value")
        redraw()
        return ipywidgets.VBox([*sliders.values(), image])

    def _repr_mimebundle_(self, **_) -> dict:
        page = self._repr_html_()
        first = page.split('src="data:image/png;base64,', 1)[1].split('"', 1)[0]
        bundle = {"text/plain": str(self), "text/html": page, "image/png": first}  # for print
        try:
            live = self.widget()._repr_mimebundle_()
        except ImportError:
            return bundle
        return bundle | {kind: data for kind, data in live.items() if "widget-view" in kind}

    def __repr__(self) -> str:
        return f"Explore({self.name}: {', '.join(self.values)})"


def check(values: dict[str, Sequence[float]], alt: str) -> None:
    """Raises ValueError for a flip-book that is empty, too heavy, or mute."""
    count = 1
    for key, numbers in values.items():
        count *= len(numbers)
        if len(numbers) < 2:
            raise ValueError(f"{key} needs at least two values to slide over, got {numbers}")
    if not values or count > MAX_FRAMES:
        raise ValueError(
            f"expected 2 to {MAX_FRAMES} frames in all, got {count}; use fewer values per slider"
        )
    if len(alt.split()) < 8:
        raise ValueError(f"alt must say in eight words or more what is shown, got {alt!r}")


def slider(key: str, values: Sequence[float]) -> str:
    """The HTML of one slider over positions, with its value beside it."""
    key, shown = html.escape(key), [f"{value:g}" for value in values]
    return (
        f'<label><span>{key}</span> <input type="range" name="{key}" value="0" '
        f'min="0" max="{len(values) - 1}" '
        f'aria-valuetext="{shown[0]}" data-values="{"|".join(shown)}">'
        f"<output>{shown[0]}</output></label>"
    )


def live_slider(key: str, values: Sequence[float]):
    """An ipywidgets slider over the same range, in a hundred steps."""
    import ipywidgets

    low, high = min(values), max(values)
    step = 1 if all(isinstance(value, int) for value in values) else (high - low) / 100
    kind = ipywidgets.IntSlider if step == 1 else ipywidgets.FloatSlider
    return kind(value=values[0], min=low, max=high, step=step, description=key)
