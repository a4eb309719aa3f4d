"""Sphinx extension: mends what the builder writes and screen readers do not understand."""

REPAIRS = {
    'role="doc-biblioentry"': 'role="listitem"',  # deprecated, and no child of a list
    '<summary aria-label="Toggle hidden content">': "<summary>",  # hides the text it shows
}


def repair(app, pagename, templatename, context, doctree):
    """Mend the body of a page."""
    for wrong, right in REPAIRS.items():
        context["body"] = context.get("body", "").replace(wrong, right)


def setup(app):
    """Called by Sphinx."""
    app.connect("html-page-context", repair)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
