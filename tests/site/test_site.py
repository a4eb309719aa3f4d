"""What a reader of the website meets, in a real browser without a network."""

from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

import pytest
import run_book
from conftest import BUILDER_PAGES, PAGES, SITE

OURS = [page for page in PAGES if page not in BUILDER_PAGES and page != "index.html"]
AXE = Path(__file__).with_name("axe.min.js")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
HEAVIEST = 10e6  # bytes of a page with all it loads
PHONE = 390  # pixels of width


class Page(HTMLParser):
    """The references, anchors and pictures of an HTML file."""

    def __init__(self, text):
        super().__init__()
        self.references, self.anchors, self.mute, self.inside = [], set(), [], 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors |= {attributes[k] for k in ("id", "name") if attributes.get(k)}
        self.references += [attributes[k] for k in ("href", "src") if attributes.get(k)]
        self.inside += tag == "article"
        if tag == "img" and self.inside and not speaks(attributes.get("alt") or ""):
            self.mute.append((attributes.get("src", "")[:60], attributes.get("alt")))

    def handle_endtag(self, tag):
        self.inside -= tag == "article"


def speaks(alt):
    """Eight words or more, and not the path that the builder puts there by default."""
    return len(alt.split()) >= 8


@cache
def parsed(path):
    return Page(path.read_text("utf8"))


def broken(page):
    """The references of a page to files or anchors of the site that do not exist."""
    for reference in parsed(SITE / page).references:
        address, anchor = urldefrag(reference)
        if urlparse(address).scheme or address.startswith("//"):
            continue
        target = (SITE / page).parent / unquote(address.split("?")[0]) if address else SITE / page
        if not target.exists():
            yield reference
        elif target.suffix == ".html" and anchor and unquote(anchor) not in parsed(target).anchors:
            yield reference


def test_there_is_a_page_for_every_entry_of_the_contents():
    names = run_book.toc_files(run_book.contents())
    assert {str(Path(name).with_suffix(".html")) for name in names} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    assert list(broken(page)) == []


@pytest.mark.parametrize("page", OURS)
def test_pictures_have_a_text_alternative(page):
    assert parsed(SITE / page).mute == []


def test_a_picture_without_words_is_noticed():
    good = '<img src="a.png" alt="one two three four five six seven eight">'
    bad = '<img src="b.png" alt="_images/b.png">'
    assert [src for src, _ in Page(f"<article>{good}{bad}</article>").mute] == ["b.png"]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_loads_without_errors_or_other_sites(page, visit):
    tab = visit(page)
    assert tab.errors == [] and tab.offsite == []
    sizes = "performance.getEntriesByType('resource').reduce((s, e) => s + e.decodedBodySize, 0)"
    assert tab.evaluate(sizes) + (SITE / page).stat().st_size < HEAVIEST


@pytest.mark.parametrize("page", OURS)
def test_a_page_is_accessible_in_light_and_dark(page, visit):
    tab = visit(page)
    tab.add_script_tag(path=AXE)
    assert violations(tab) == []
    tab.evaluate("document.documentElement.dataset.theme = 'dark'")
    tab.wait_for_timeout(700)  # the colors fade
    assert violations(tab) == []


def violations(tab):
    """What axe finds in the article: severity, rule, and the first place."""
    answer = tab.evaluate("rules => axe.run('article.bd-article', {runOnly: rules})", RULES)
    return [(v["impact"], v["id"], v["nodes"][0]["html"][:200]) for v in answer["violations"]]


def test_an_inaccessible_page_is_noticed(visit):
    tab = visit("intro.html")
    tab.add_script_tag(path=AXE)
    tab.evaluate("document.querySelector('article').innerHTML += '<img src=x><input>'")
    assert {"image-alt", "label"} <= {rule for _, rule, _ in violations(tab)}


@pytest.mark.parametrize("page", OURS)
def test_a_page_fits_a_phone_and_its_sliders_turn_by_keyboard(page, visit):
    tab = visit(page)
    tab.set_viewport_size(dict(width=PHONE, height=800))
    assert tab.evaluate("document.scrollingElement.scrollWidth") <= PHONE
    for slider in tab.locator(".explore input[type=range]").all():
        picture = slider.locator("xpath=ancestor::*[contains(@class, 'explore')]//img")
        before, words = picture.get_attribute("src"), picture.get_attribute("alt")
        slider.focus()
        slider.press("ArrowRight")
        assert picture.get_attribute("src") != before and picture.get_attribute("alt") != words
    assert tab.errors == []


def test_formulas_are_drawn(visit):
    assert visit("notation.html").locator("article mjx-container svg").count() > 20


def test_searching_finds_a_page(visit):
    tab = visit("search.html?q=replay")
    tab.wait_for_selector("#search-results a[href*='notation']", timeout=10_000)
