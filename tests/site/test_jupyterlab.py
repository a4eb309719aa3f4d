"""A reader opens a chapter in JupyterLab, without running it: it reads as on the website."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest
import run_book
from conftest import ROOT, watched
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

CHAPTERS = [path.stem for path in run_book.chapters() if path.name[:2].isdecimal()]
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # all cells at once
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
READY = """() => {
  const cells = [...document.querySelectorAll('.jp-MarkdownCell')];
  const drawn = (cell) => cell.querySelector('.myst')?.innerText.trim();
  return cells.length && cells.every(drawn);
}"""
WORDS = "[...document.querySelectorAll('.jp-MarkdownCell, .jp-OutputArea')].map(e => e.innerText)"
SLIDES = ("ArrowUp", "ArrowDown", "ArrowDown")
HARMLESS = ("favicon", "Failed to load resource")


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """JupyterLab on a copy of the book, signed: its address."""
    home = tmp_path_factory.mktemp("home")
    folder = home / "book"
    shutil.copytree(ROOT / "book", folder, ignore=shutil.ignore_patterns("data"))
    now = time.time()
    for path in folder.glob("*.*"):  # as in a fresh clone: jupytext stumbles over older pairs
        os.utime(path, (now, now))
    nbformat.write(odd(), folder / "odd.ipynb")
    for name, values in SETTINGS.items():
        path = home / f"config/lab/user-settings/@jupyterlab/{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    names = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data"}
    names |= {"JUPYTER_RUNTIME_DIR": "run", "IPYTHONDIR": "ipython"}
    env = os.environ | {name: str(home / value) for name, value in names.items()}
    python = [sys.executable, "-m", "jupyter"]
    subprocess.run([*python, "trust", *folder.glob("*.ipynb")], env=env, check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [f"--ServerApp.port={port}", f"--ServerApp.root_dir={folder}"]
    open_to_all = ["--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True"]
    command = [*python, "lab", "--no-browser", "--allow-root", *options, *open_to_all]
    with (home / "log").open("w") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}/"
    wait(address + "api")
    yield address
    server.terminate()
    server.wait()


def wait(address, seconds=120):
    """Until the server answers."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            return urllib.request.urlopen(address).close()
        except OSError:
            time.sleep(0.3)
    pytest.fail("JupyterLab does not start")


def odd():
    """A notebook with everything that a chapter must not have."""
    solution = '<details class="dl-solution" open><summary>Solution</summary>42</details>'
    output = new_output("display_data", data={"text/html": solution})
    text = "Read {eq}`nowhere`, {cite}`nobody`.\n\n```{eval-rst}\nx\n```"
    cells = [new_markdown_cell(text), new_code_cell("1", outputs=[output], execution_count=1)]
    return new_notebook(cells=cells)


@pytest.fixture
def opened(browser, lab):
    """Open a notebook and wait until its text is drawn."""
    context = browser.new_context(viewport=dict(width=1400, height=1000))

    def open_notebook(name):
        tab = watched(context, lab)
        tab.set_default_timeout(300_000)  # a busy machine draws slowly
        tab.goto(f"{lab}lab/workspaces/{name}/tree/{name}.ipynb")
        tab.wait_for_function(READY)
        tab.wait_for_timeout(2000)  # maths, references
        return tab

    yield open_notebook
    context.close()


def raw(tab):
    """The pieces of markup that a reader would see, and what JupyterLab does not find."""
    words = "\n".join(tab.evaluate(WORDS))
    marks = [word for word in words.split() if word.startswith((":::", "```")) or "}`" in word]
    strange = tab.locator("[title$='Not Found'], summary:has-text('Unknown Directive')")
    return marks + strange.all_inner_texts()


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_shows_no_markup_and_no_solution(name, opened):
    tab = opened(name)
    assert raw(tab) == []
    assert tab.locator(".dl-solution[open]").count() == 0
    assert [e for e in tab.errors if not any(word in e for word in HARMLESS)] == []
    for widget in tab.locator(".dl-lab").all():
        turn(tab, widget)


def turn(tab, widget):
    """Keys move a control, a slider or else a button, and do not leave it for the next cell."""
    chosen = (
        "document.querySelector('.jp-Notebook .jp-mod-active')?.id + document.activeElement.tagName"
    )
    control, keys = widget.locator("input[type=range], [role=slider]"), SLIDES
    if not control.count():
        control, keys = widget.locator("button:enabled"), ("Enter",)
    control.first.scroll_into_view_if_needed()
    control.first.focus()
    before, active = widget.inner_text(), tab.evaluate(chosen)
    for key in keys:
        control.first.press(key)
        tab.wait_for_timeout(200)
        if widget.inner_text() != before:
            break
    assert widget.inner_text() != before and tab.evaluate(chosen) == active


def test_markup_and_an_open_solution_are_noticed(opened):
    tab = opened("odd")
    assert len(raw(tab)) == 3 and tab.locator(".dl-solution[open]").count() == 1
