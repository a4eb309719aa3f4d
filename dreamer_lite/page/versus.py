"""`versus`: where a paper and its authors' code differ, from one table for the whole book."""

from dreamer_lite.page.files import book_folder, read_yaml
from dreamer_lite.page.output import Output

FIELDS = ("topic", "paper", "code", "here")


def versus(chapter: int) -> Output:
    """The rows of `differences.yml` for a chapter: what the paper says, the code does, we do."""
    listed = read_yaml(book_folder() / "differences.yml") or []
    rows = [row for row in listed if row["chapter"] == chapter]
    if not rows:
        raise ValueError(f"differences.yml has no row with `chapter: {chapter}`; add one")
    titles = ("Paper", "Authors' code", "Here")
    parts = [
        "\n".join([f"**{row['topic']}**", ""]
                  + [f"- *{t}:* {row[k]}" for t, k in zip(titles, FIELDS[1:], strict=True)])
        for row in rows
    ]  # fmt: skip
    text = "\n\n".join(parts)
    return Output(plain=text.replace("*", ""), markdown=text)
