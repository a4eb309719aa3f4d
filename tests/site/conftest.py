"""The built site, served on this machine, and a browser that may reach nothing else."""

import contextlib
import functools
import http.server
import os
import shutil
import threading
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from dreamer_lite.page import Lab

ROOT = Path(__file__).resolve().parents[2]
SITE = Path(os.environ.get("BOOK_SITE", ROOT / "_build/html"))
PAGES = sorted(
    page.relative_to(SITE).as_posix()
    for page in SITE.rglob("*.html")
    if not page.relative_to(SITE).parts[0].startswith("_")
)
BUILDER_PAGES = {"genindex.html", "search.html", "prf-prf.html"}  # no text of ours
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@contextlib.contextmanager
def served(folder):
    """The address of a folder, served on this machine."""
    serve = functools.partial(Quiet, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="session")
def base():
    if not PAGES:
        pytest.fail(f"there is no site in {SITE}; run `make book`")
    with served(SITE) as address:
        yield address


def executable():
    """The browser: the environment variable CHROMIUM, or the first one on the path."""
    found = [os.environ.get("CHROMIUM"), *map(shutil.which, NAMES)]
    return next(filter(None, found), None)


@pytest.fixture(scope="session")
def browser():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.fail("playwright is not installed; use `make test-site`")
    if not executable():
        pytest.fail("no Chromium; on Debian: apt-get install chromium; or set CHROMIUM=/path/to/it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=FLAGS)
        yield browser
        browser.close()


def watched(context, address):
    """A tab that notes errors and requests to other sites than `address`."""
    page = context.new_page()
    page.errors, page.offsite, page.loaded = [], [], []
    page.on("console", lambda m: m.type == "error" and page.errors.append(m.text))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.route("**/*", functools.partial(gate, page, address))
    return page


@contextlib.contextmanager
def mounted(browser, name, data, alt, **settings):
    """A lab as an output of its page carries it; at the end it must have made no error."""
    context = browser.new_context(**settings)
    tab, errors = context.new_page(), []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    output = Lab(name, data=data, poster=Figure(), alt=alt)
    tab.set_content(output._repr_mimebundle_()["text/html"])
    tab.locator(".dl-said").wait_for()
    yield tab
    assert not errors
    context.close()


@pytest.fixture
def visit(browser, base):
    """Open a page of the site."""
    context = browser.new_context(viewport=dict(width=1280, height=900))

    def open_page(path):
        page = watched(context, base)
        page.goto(base + path, wait_until="networkidle")
        page.wait_for_timeout(300)  # late scripts
        return page

    yield open_page
    context.close()


@pytest.fixture(scope="session")
def js(browser):
    """Call a function that a lab exports, once for each tuple of arguments:

    js("lambda-lab", "weights", [(3, 0.5), (4, 0.9)]) -> the two results.
    """
    with served(ROOT / "book/labs") as address:
        page = watched(browser.new_context(), address)
        page.goto(address + "frame.css")  # any file; modules are imported from beside it

        def call(lab, name, cases):
            found = f"Promise.all(cases.map(a => lab.{name}(...a)))"  # some take time
            source = f"import('/{lab}.js').then(lab => {found})"
            return page.evaluate(f"cases => {source}", [list(case) for case in cases])

        yield call


def gate(page, base, route):
    """Let requests to our server pass, note and refuse the rest."""
    url = route.request.url
    if url.startswith((base, "data:", "blob:")):
        page.loaded.append(url)
        return route.continue_()
    page.offsite.append(url)
    return route.abort()
