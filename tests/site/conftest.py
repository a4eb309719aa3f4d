"""The built site, served on this machine, and a browser that may reach nothing else."""

import functools
import http.server
import os
import shutil
import threading
from pathlib import Path

import pytest

SITE = Path(__file__).resolve().parents[2] / "_build/html"
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


@pytest.fixture(scope="session")
def base():
    if not PAGES:
        pytest.fail(f"there is no site in {SITE}; run `make book`")
    serve = functools.partial(Quiet, directory=SITE)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


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


@pytest.fixture
def visit(browser, base):
    """Open a page; it notes errors, requests to other sites, and the bytes it loads."""
    context = browser.new_context(viewport=dict(width=1280, height=900))

    def open_page(path):
        page = context.new_page()
        page.errors, page.offsite = [], []
        page.on("console", lambda m: m.type == "error" and page.errors.append(m.text))
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.route("**/*", functools.partial(gate, page, base))
        page.goto(base + path, wait_until="networkidle")
        page.wait_for_timeout(300)  # late scripts
        return page

    yield open_page
    context.close()


def gate(page, base, route):
    """Let requests to our server pass, note and refuse the rest."""
    url = route.request.url
    if url.startswith((base, "data:", "blob:")):
        return route.continue_()
    page.offsite.append(url)
    return route.abort()
