"""`Lab`: an instrument in JavaScript, carried inside the output, so it needs no kernel, no network.

A lab is an ES module `labs/<name>.js` that exports its mathematics as pure functions and
`mount(root, data)`, which builds the controls. It imports the frame (`labs/frame.js`) only.
"""

import base64
import html
import io
import json
import re

from dreamer_lite.page.files import book_folder
from dreamer_lite.page.output import Output

MAX_BYTES = 60_000  # of script, style and data; the first picture comes on top
IMPORT = re.compile(r'^import\b[^;]*?from\s*"\./frame\.js";\n', re.M)
EXPORT = re.compile(r"^export (?=(?:const|let|function|class)\b)", re.M)

# All roots of this lab that wait: in JupyterLab a cell can be shown twice.
START = """
for (const root of document.querySelectorAll('[data-lab="%s"]:not([data-ready])')) {
  root.dataset.ready = "yes";
  const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
  root.replaceChildren();
  frame(root);
  mount(root, data);
}
"""


def Lab(name: str, *, poster, alt: str, data: dict | None = None) -> Output:
    """The lab `labs/<name>.js`, started with `data`.

    poster: its first picture as a matplotlib Figure, for GitHub and for print.
    alt: says in eight words or more what the picture shows.
    """
    if len(alt.split()) < 8:
        raise ValueError(f"alt must say in eight words or more what is shown, got {alt!r}")
    script, style = module(name), read("frame.css")
    content = json.dumps(data or {}).replace("</", "<\\/")
    if (size := len((script + style + content).encode())) > MAX_BYTES:
        raise ValueError(
            f"{name} weighs {size} bytes, at most {MAX_BYTES} are allowed; send less data"
        )
    picture = png(poster)
    address = "data:image/png;base64," + base64.b64encode(picture).decode()
    return Output(
        plain=f"Lab {name}: {alt}",
        png=picture,
        html=f'<style>{style}</style><div class="dl-lab" data-lab="{name}" role="group" '
        f'aria-label="Lab: {html.escape(alt)}">'
        f'<img alt="{html.escape(alt)}" src="{address}">'
        f'<script type="application/json">{content}</script></div>'
        f'<script type="module">{script}</script>',
    )


def read(name: str) -> str:
    """A file of the folder `labs`."""
    path = book_folder() / "labs" / name
    if not path.exists():
        raise ValueError(f"there is no lab {path}")
    return path.read_text(encoding="utf-8")


def module(name: str) -> str:
    """Frame and lab as one module that mounts itself: without imports, exports and URLs."""
    script = read("frame.js") + IMPORT.sub("", read(f"{name}.js"))
    script = EXPORT.sub("", script)
    if left := re.search(r"^(?:import|export)\b.*", script, re.M):
        raise ValueError(f"{name}.js: {left[0]!r} cannot be inlined; import only from ./frame.js")
    if "</script" in script:
        raise ValueError(f"{name}.js contains '</script', which would end it early")
    return script + START % name


def png(figure) -> bytes:
    """A figure as the same bytes every time."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=80, metadata={"Software": None})
    return file.getvalue()
