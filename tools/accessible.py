"""Sphinx extension: roles that screen readers understand, where the builder writes others."""

ROLES = {'role="doc-biblioentry"': 'role="listitem"'}  # deprecated, and no child of a list


def repair(app, pagename, templatename, context, doctree):
    """Replace the roles in the body of a page."""
    for wrong, right in ROLES.items():
        context["body"] = context.get("body", "").replace(wrong, right)


def setup(app):
    """Called by Sphinx."""
    app.connect("html-page-context", repair)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
