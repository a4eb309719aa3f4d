"""Sphinx extension: mends what the builder writes, and adds what it does not know."""

import re
import tomllib
from pathlib import Path

from docutils.nodes import inline, rubric, section, title
from sources import printed
from sphinx.addnodes import pending_xref
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode

ROOT = Path(__file__).resolve().parent.parent

# What screen readers do not understand.
REPAIRS = {
    'role="doc-biblioentry"': 'role="listitem"',  # deprecated, and no child of a list
    '<summary aria-label="Toggle hidden content">': "<summary>",  # hides the text it shows
}


# A long signature, one argument a line, is to Sphinx a list of definitions without terms.
SIGNATURE = re.compile(r'<dl>\s*((?:<dd><em class="sig-param">.*?</dd>\s*)+)</dl>', re.DOTALL)


def repair(app, pagename, templatename, context, doctree):
    """Mend the body of a page."""
    body = context.get("body", "")
    for wrong, right in REPAIRS.items():
        body = body.replace(wrong, right)
    context["body"] = SIGNATURE.sub(lines, body)


def lines(signature: re.Match) -> str:
    """Its arguments as lines of a text."""
    arguments = signature[1].replace("<dd>", '<span class="sig-line">')
    return arguments.replace("</dd>", "</span>")


def formulas(app, pagename, templatename, context, doctree):
    """MathJax only for pages with formulas; Sphinx also loads it for the page above them."""
    if 'class="math' not in context.get("body", ""):
        files = context["script_files"]
        files[:] = [file for file in files if "mathjax" not in str(file.filename)]


def downloads(app, pagename, templatename, context, doctree):
    """Offer each notebook twice, as it is and without solutions, and the book if it was printed."""
    student = f"_student/{pagename}.ipynb"
    groups = [b for b in context.get("header_buttons", []) if b["label"] == "download-buttons"]
    if not groups:
        return
    buttons = groups[0]["buttons"]
    if printed(Path(app.srcdir)).exists():
        link = {"url": context["pathto"]("book.pdf", 1), "label": "download-book-button"}
        words = {"text": "the whole book", "tooltip": "Download the whole book as PDF"}
        buttons.append({"type": "link", "icon": "fas fa-book", **link, **words})
    if not (Path(app.srcdir) / "_extra" / student).exists():
        return
    buttons[0] |= {"text": "notebook", "tooltip": "Download the notebook with its solutions"}
    link = {"url": context["pathto"](student, 1), "label": "download-student-button"}
    words = {"text": "without solutions", "tooltip": "Download the notebook without solutions"}
    buttons.insert(1, {"type": "link", "icon": "fas fa-pencil", **link, **words})


class Preface(SphinxPostTransform):
    """In print the parts of the first page are no chapters of the book."""

    default_priority = 300
    builders = ("latex",)

    def run(self, **_):
        for part in list(self.document.next_node(section).children):
            if isinstance(part, section):
                heading = part.next_node(title)
                part.remove(heading)
                words = rubric("", "", *heading.children, ids=part["ids"])
                part.replace_self([words, *part.children])


class Theorems(SphinxPostTransform):
    """Let a plain link, [the theorem](#thm-mixture), find a theorem, definition or algorithm.

    MyST's own search for the target of a link, which comes after, does not know them.
    """

    default_priority = 8

    def run(self, **_):
        known = getattr(self.env, "proof_list", {})
        for node in list(self.document.findall(pending_xref)):
            target = node.get("reftarget")
            if node.get("reftype") == "myst" and target in known:
                page = known[target]["docname"]
                text = inline("", "", *node[0].children, classes=["std", "std-ref"])
                link = make_refnode(self.app.builder, node["refdoc"], page, target, text)
                node.replace_self(link)


def publish(app, config):
    """Addresses, if there are any: [project.urls] of pyproject.toml is the one place for them.

    Homepage: of this website, for link previews. Repository: for the buttons of each page.
    """
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"].get("urls", {})
    if site := urls.get("Homepage"):
        config.ogp_site_url = config.html_baseurl = site
        config.ogp_image = "_static/boxing-dream.png"
        config.ogp_image_alt = "A recorded boxing match, a model's dream of it, their difference"
    if repository := urls.get("Repository"):
        config.html_theme_options |= {
            "repository_url": repository,
            "repository_branch": "main",
            "path_to_docs": "book",
            "use_repository_button": True,
            "use_issues_button": True,
            "launch_buttons": {
                "binderhub_url": "https://mybinder.org",
                "colab_url": "https://colab.research.google.com",
            },
        }


def setup(app):
    """Called by Sphinx."""
    app.connect("config-inited", publish)
    app.connect("html-page-context", repair)
    app.connect("html-page-context", downloads, priority=600)
    app.connect("html-page-context", formulas, priority=600)
    app.add_post_transform(Theorems)
    app.add_post_transform(Preface)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
