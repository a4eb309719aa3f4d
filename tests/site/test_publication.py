"""Public addresses stand in one place; until they are set, no page prints one."""

import re
import shutil
import subprocess
import sys

import pytest
from conftest import PAGES, ROOT, SITE

ADDRESS = "https://book.example.org/"
URLS = f'[project.urls]\nHomepage = "{ADDRESS}"\nRepository = "https://github.com/some/where"\n'
PREVIEW = re.compile(r'<meta property="og:(\w+)" content="([^"]*)"')
PAGE = "# A page\n\nText.\n\n## A section\n\nMore text.\n"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A book of one page and one notebook, built with dummy addresses: its pages by name."""
    root = tmp_path_factory.mktemp("published")
    book = root / "book"
    (book / "_extra").mkdir(parents=True)
    shutil.copytree(ROOT / "book/_assets", book / "_assets")
    shutil.copytree(ROOT / "tools", root / "tools")
    shutil.copy(ROOT / "_config.yml", root)
    (root / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text() + "\n" + URLS)
    (book / "intro.md").write_text(PAGE)
    (book / "references.bib").write_text("@misc{a, title = {A}, year = {2020}}\n")
    (book / "_toc.yml").write_text("format: jb-book\nroot: intro\nchapters: [{file: nb.ipynb}]\n")
    shutil.copy(ROOT / "book/use-as-library.ipynb", book / "nb.ipynb")
    program = "from jupyter_book.cli.main import main; main()"
    build = [sys.executable, "-c", program, "build", str(book), "--quiet"]
    subprocess.run(build, check=True)
    return {path.name: path.read_text("utf8") for path in (root / "_build/html").glob("*.html")}


def test_with_an_address_a_page_offers_a_preview_and_buttons(published):
    preview = dict(PREVIEW.findall(published["intro.html"]))
    assert preview["url"] == ADDRESS + "intro.html" and preview["title"]
    assert preview["image"] == ADDRESS + "_static/boxing-dream.png"
    assert "https://github.com/some/where/issues" in published["intro.html"]
    assert "colab.research.google.com/github/some/where" in published["nb.html"]
    assert "mybinder.org/v2/gh/some/where" in published["nb.html"]


@pytest.mark.parametrize("page", PAGES)
def test_without_an_address_a_page_prints_none(page):
    if "[project.urls]" in (ROOT / "pyproject.toml").read_text():
        pytest.skip("the addresses are set")
    text = (SITE / page).read_text("utf8")
    addresses = [value for _, value in PREVIEW.findall(text) if value.startswith("http")]
    assert addresses == [] and "colab.research" not in text and "mybinder.org" not in text
