"""What a reader of the website meets, in a real browser without a network."""

from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

import nbformat
import pytest
import run_book
from conftest import BUILDER_PAGES, PAGES, SITE, watched

OURS = [page for page in PAGES if page not in BUILDER_PAGES and page != "index.html"]
AXE = Path(__file__).with_name("axe.min.js")
HEAVIEST, OWN = 8e6, 3e6  # bytes of a page: with all it loads, and without what all pages share
PHONE = 390  # pixels of width
PATIENCE = 15  # tenths of a second until a lab must have answered a key


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
def test_a_page_is_quiet_small_accessible_and_fits_a_phone(page, visit):
    tab = visit(page)  # once for all: opening it is what takes time
    assert tab.errors == [] and tab.offsite == []
    own, shared = weight(tab, page)
    assert own < OWN and own + shared < HEAVIEST
    if page in OURS:
        fetched = any("tex-svg.js" in url for url in tab.loaded)
        assert fetched == bool(tab.locator("article .math").count()), "formulas"
        assert_accessible(tab)
        assert_fits_a_phone(tab)
        assert tab.errors == []


def weight(tab, page):
    """Decoded bytes of a page: its own, and those of the theme that all pages share."""
    script = "performance.getEntriesByType('resource').map(e => [e.name, e.decodedBodySize])"
    files = tab.evaluate(script)
    shared = sum(size for url, size in files if "/_static/" in url)
    return (SITE / page).stat().st_size + sum(size for _, size in files) - shared, shared


def assert_accessible(tab):
    """By the rules of axe, in light and dark."""
    tab.add_script_tag(path=AXE)
    assert violations(tab) == []
    tab.evaluate("document.documentElement.dataset.theme = 'dark'")
    tab.wait_for_timeout(700)  # the colors fade
    assert violations(tab) == []


def assert_fits_a_phone(tab):
    """Nothing is wider than the screen, and arrow keys turn the sliders of Explore."""
    tab.set_viewport_size(dict(width=PHONE, height=800))
    assert tab.evaluate("document.scrollingElement.scrollWidth") <= PHONE
    for slider in tab.locator(".explore input[type=range]").all():
        picture = slider.locator("xpath=ancestor::*[contains(@class, 'explore')]//img")
        before, words = picture.get_attribute("src"), picture.get_attribute("alt")
        slider.focus()
        slider.press("ArrowRight")
        assert picture.get_attribute("src") != before and picture.get_attribute("alt") != words


def violations(tab):
    """What axe finds in the article, by all its rules: severity, rule, and the first place."""
    answer = tab.evaluate("axe.run('article.bd-article')")
    return [(v["impact"], v["id"], v["nodes"][0]["html"][:200]) for v in answer["violations"]]


def test_an_inaccessible_page_is_noticed(visit):
    tab = visit("intro.html")
    tab.add_script_tag(path=AXE)
    tab.evaluate("document.querySelector('article').innerHTML += '<img src=x><input>'")
    assert {"image-alt", "label"} <= {rule for _, rule, _ in violations(tab)}


@pytest.mark.parametrize("page", [p for p in OURS if "dl-lab" in (SITE / p).read_text("utf8")])
def test_every_control_of_a_lab_changes_what_it_shows_by_keyboard(page, visit):
    tab = visit(page)
    for lab in tab.locator(".dl-lab").all():
        found = lab.locator("input[type=range], [role=slider], button, input[type=radio]")
        tried = 0
        for control in found.element_handles():
            if control.is_visible() and control.is_enabled() and not chosen(control):
                assert moved(lab, control), control.evaluate("e => e.outerHTML")[:200]
                tried += 1
        assert tried
    assert tab.errors == [] and tab.offsite == []


def chosen(control):
    """Whether it is the radio button that is on."""
    return control.get_attribute("type") == "radio" and control.is_checked()


def moved(lab, control):
    """Whether any of a control's keys changes the lab's drawings or its words."""
    kind = control.get_attribute("role") or control.get_attribute("type")
    keys = {"button": ["Enter"], "radio": ["Space"], "slider": ["ArrowUp", "ArrowDown"]}
    before = look(lab)
    for key in keys.get(kind, ["ArrowRight", "ArrowLeft"]):
        control.focus()
        control.press(key)
        for _ in range(PATIENCE):  # labs draw at the next frame, late on a busy machine
            lab.page.wait_for_timeout(100)
            if look(lab) != before:
                return True
    return False


def look(lab):
    """What the eye sees of a lab: its drawings and the words beside them."""
    return lab.evaluate(
        "e => [...e.querySelectorAll('svg')].map(s => s.innerHTML).join() + e.innerText"
    )


@pytest.mark.parametrize("page", [p for p in OURS if "dl-bar" in (SITE / p).read_text("utf8")])
def test_a_finger_moves_what_can_be_dragged(page, browser, base):
    phone = dict(viewport=dict(width=PHONE, height=800), has_touch=True, is_mobile=True)
    context = browser.new_context(**phone)
    tab = watched(context, base)
    tab.goto(base + page, wait_until="networkidle")
    finger = context.new_cdp_session(tab)
    for lab in tab.locator(".dl-lab").all():
        for thing in lab.locator("[role=slider].dl-bar, [role=button][style*=grab]").all():
            if thing.is_visible():
                assert dragged(lab, thing, finger), thing.evaluate("e => e.outerHTML")[:200]
    assert tab.errors == []
    context.close()


def dragged(lab, thing, finger):
    """Whether a finger that pulls at a thing changes the lab, while the page does not scroll."""
    before, across = look(lab), thing.get_attribute("aria-orientation") == "horizontal"
    for by in (-25, 25):
        thing.scroll_into_view_if_needed()
        box, top = thing.bounding_box(), lab.page.evaluate("scrollY")
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        for kind, shift in ("touchStart", 0), ("touchMove", by / 2), ("touchMove", by):
            touch(finger, kind, [dict(x=x + shift * across, y=y + shift * (not across))])
        touch(finger, "touchEnd", [])
        lab.page.wait_for_timeout(100)
        assert lab.page.evaluate("scrollY") == top
        if look(lab) != before:
            return True
    return False


def touch(finger, kind, points):
    """One event of a touch screen."""
    finger.send("Input.dispatchTouchEvent", dict(type=kind, touchPoints=points))


def test_a_dead_control_is_noticed(visit):
    tab = visit("intro.html")
    tab.evaluate(
        "document.querySelector('article').innerHTML += "
        '\'<div id="dead"><svg></svg><button type="button">Run</button></div>\''
    )
    assert not moved(tab.locator("#dead"), tab.locator("#dead button"))


def test_the_dark_switch_changes_the_colors(visit):
    tab = visit("intro.html")
    color = "getComputedStyle(document.body).backgroundColor"
    before = tab.evaluate(color)
    for _ in range(3):  # light, dark, as the system says
        tab.locator("button.theme-switch-button").first.click()
        tab.wait_for_timeout(700)
        if tab.evaluate(color) != before:
            return
    pytest.fail("the colors stay the same")


def test_the_drawing_of_the_agent_is_in_vectors_and_lies_on_the_page_itself(visit):
    tab = visit("09-lambda-returns.html")
    drawing = tab.locator("article .cell_output img[src$='.svg']")
    assert drawing.count() == 1 and speaks(drawing.get_attribute("alt"))
    tab.evaluate("document.documentElement.dataset.theme = 'dark'")
    tab.wait_for_timeout(700)
    look = "e => [getComputedStyle(e).backgroundColor, getComputedStyle(e).filter]"
    assert drawing.evaluate(look) == ["rgba(0, 0, 0, 0)", "none"]


NOTEBOOKS = [path.stem for path in run_book.chapters()]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_page_offers_its_notebook_with_and_without_solutions(name, visit):
    tab = visit(f"{name}.html")
    links = [a.get_attribute("href") for a in tab.locator(".dropdown-download-buttons a").all()]
    full, student = (nbformat.read(SITE / link, 4) for link in links[:2])
    tags = [tag for cell in full.cells for tag in cell.metadata.get("tags", [])]
    kept = [tag for cell in student.cells for tag in cell.metadata.get("tags", [])]
    assert "solution" not in kept and kept.count("stub") == tags.count("stub")
    assert len(full.cells) - len(student.cells) == tags.count("solution")


def test_the_printed_book_is_offered_on_every_page_once_there_is_one():
    href, exists = 'href="book.pdf"', (SITE / "book.pdf").exists()
    assert all((href in (SITE / page).read_text("utf8")) == exists for page in OURS)
    assert not exists or (SITE / "book.pdf").read_bytes().startswith(b"%PDF")


def test_formulas_are_drawn(visit):
    assert visit("notation.html").locator("article mjx-container svg").count() > 20


def test_searching_finds_a_page(visit):
    tab = visit("search.html?q=replay")
    tab.wait_for_selector("#search-results a[href*='notation']", timeout=10_000)
