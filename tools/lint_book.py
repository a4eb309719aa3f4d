"""What a chapter must have, checked on its text: `python tools/lint_book.py [09 ...]`.

Each rule is a function from a `Page` to a list of complaints; RULES names them all. Chapters are
the numbered pages from 1 on that are notebooks; an announced chapter (a short page) is exempt.
"""

import ast
import re
import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

import yaml
from sources import BOOK, ROOT, chapters

from dreamer_lite.page import files, quiz, solution, source

FIELDS = """title question objectives requires provides papers equations widget exercises
numbers""".split()
SECTIONS = ["By hand", "The whole piece", "Experiment", "Paper versus code", "When it is broken",
            "Summary", "Exercises", "Further reading"]  # fmt: skip
DIRECTIVES = {"exercise", "prf:theorem", "prf:proof", "prf:definition", "prf:algorithm",
              "prf:lemma", "prf:corollary", "admonition", "note", "tip", "important", "warning",
              "dropdown", "table", "list-table"}  # fmt: skip
RESULT = re.compile(
    r"(?<![\w.:/])\d+\.\d+(?:e[-+]?\d+)?"  # a decimal
    r"|\d+(?:[, \u00a0\u202f]\d{3})+(?!\d)"  # thousands
    r"|\d+(?: ?%| percent)"
    r"|(?<![\w.])\d{3,}(?![\w.]?\d)"  # three digits and more
    r"|(?<![\w.])\d+e-?\d+"
)
FREE = set("ijkmng")  # indices and counts, said where they are used
LOCAL = "## Letters of one chapter"  # the table in notation.md of what a chapter alone means
ROMAN = "mathrm|text|textrm|operatorname|mathtt|mbox|begin|end|label"
GREEK = set(
    """alpha beta gamma delta epsilon varepsilon zeta eta theta kappa lambda mu nu xi pi rho sigma
    tau phi varphi chi psi omega ell Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega""".split()
)
CODE_CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(.*?)^```[ ]*$", re.M | re.S)
OPTIONS = re.compile(r"((?:^:[^\n]*\n)*)(.*)", re.M | re.S)
GRADE = re.compile(r"(★{1,3}|\(find the bug\))\s*$")


@dataclass
class Page:
    """A chapter's text and the folder of the book it belongs to."""

    path: Path
    text: str = ""
    book: Path = BOOK
    root: Path = ROOT
    checks: dict = field(default_factory=dict)  # the exercises that can be checked, by id

    def __post_init__(self):
        self.text = self.text or self.path.read_text(encoding="utf-8")

    @cached_property
    def number(self) -> int:
        return int(self.path.name[:2])

    @cached_property
    def head(self) -> dict:
        return yaml.safe_load(self.text.split("---\n", 2)[1]) or {}

    @cached_property
    def cells(self) -> list:
        return cells(self.text.split("---\n", 2)[2])

    @cached_property
    def code(self) -> list:
        return [cell for cell in self.cells if cell.cell_type == "code"]

    @cached_property
    def prose(self) -> str:
        """All Markdown, without code."""
        words = "\n\n".join(cell.source for cell in self.cells if cell.cell_type == "markdown")
        return re.sub(r"^(`{3,}).*?^\1\s*$", "", words, flags=re.M | re.S)

    def data(self, name: str) -> dict:
        """A data file of the book."""
        path = self.book / name
        return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.exists() else {}

    def calls(self, name: str) -> list[ast.Call]:
        """All calls of a function in the cells, in order."""
        nodes = (node for cell in self.code for node in ast.walk(parsed(cell)))
        return [n for n in nodes if isinstance(n, ast.Call) and called(n) == name]


def cells(text: str) -> list[SimpleNamespace]:
    """The cells of a text without front matter, as jupytext sees them but 100 times faster."""
    found = []
    for i, part in enumerate(CODE_CELL.split(text)):
        if i % 2:
            options, source = OPTIONS.match(part).groups()
            metadata = yaml.safe_load(re.sub(r"^:", "", options, flags=re.M)) or {}
            found.append(
                SimpleNamespace(cell_type="code", source=source.strip(), metadata=metadata)
            )
            continue
        texts = [words.strip() for words in re.split(r"^\+\+\+.*$", part, flags=re.M)]
        found += [
            SimpleNamespace(cell_type="markdown", source=words, metadata={})
            for words in texts
            if words
        ]
    return found


def parsed(cell) -> ast.Module:
    """A cell as a syntax tree, without IPython's own commands."""
    lines = ["" if re.match(r"\s*[%!]", line) else line for line in cell.source.splitlines()]
    return ast.parse("\n".join(lines))


def called(node: ast.Call) -> str:
    """The name of what is called."""
    return getattr(node.func, "id", getattr(node.func, "attr", ""))


def argument(node: ast.Call) -> object:
    """The first argument, if it is typed in."""
    return node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None


def front_matter(page: Page) -> list[str]:
    """Every field is there and has the form that the tools read."""
    head = page.head
    found = [f"front matter lacks `{name}`" for name in FIELDS if name not in head]
    if found:
        return found
    if len(head["objectives"]) != 3:
        found.append(f"needs 3 objectives, has {len(head['objectives'])}")
    if not str(head["question"]).strip().endswith("?"):
        found.append("`question` must be one sentence that ends in a question mark")
    if not all(isinstance(n, int) and n < page.number for n in head["requires"]):
        found.append(f"`requires` lists numbers of earlier chapters, got {head['requires']}")
    if absent := [n for n in head["requires"] if n not in files.written(page.book)]:
        found.append(f"`requires` names chapters that are not written, {absent}")
    bib = (page.book / "references.bib").read_text(encoding="utf-8")
    for paper in head["papers"]:
        if not {"key", "version"} <= set(paper) or f"{{{paper['key']}," not in bib:
            found.append(f"`papers`: {paper} needs a version, and its key in references.bib")
    labs, explores = {argument(c) for c in page.calls("Lab")}, page.calls("Explore")
    names = labs | {c.args[1].value for c in explores if len(c.args) > 1}
    if head["widget"] not in names:
        found.append(
            f"`widget` is {head['widget']!r}, but the page shows {sorted(map(str, names))}"
        )
    return found


def symbols(page: Page) -> list[str]:
    """What the chapter promises to build exists in the package."""
    found = []
    for symbol in page.head.get("provides", []):
        try:
            source.resolve(symbol)
        except (ImportError, ValueError) as error:
            found.append(f"`provides` names {symbol}: {error}")
    return found


def order(page: Page) -> list[str]:
    """The parts of the template, in their order."""
    titles = re.findall(r"^## (.+)$", page.prose, re.M)
    places = [next((i for i, t in enumerate(titles) if t.startswith(s)), None) for s in SECTIONS]
    found = [f"has no section '## {s}'" for s, p in zip(SECTIONS, places, strict=True) if p is None]
    known = [p for p in places if p is not None]
    if known != sorted(known):
        found.append(f"sections are out of order: {titles}; expected {SECTIONS}")
    return found + hook(page) + inside(page, titles)


def hook(page: Page) -> list[str]:
    """Before the first section: a cell that shows something, and the box."""
    before = []
    for cell in page.cells:
        if cell.cell_type == "markdown" and re.search(r"^## ", cell.source, re.M):
            break
        before.append(cell)
    boxes = [c for c in page.calls("box") if argument(c) == page.number]
    code = [cell for cell in before if cell.cell_type == "code"]
    boxed = [cell for cell in code if "box(" in cell.source]
    found = [] if boxes and boxed else [f"needs a cell `box({page.number})` before the first ##"]
    return found + ([] if len(code) > len(boxed) else ["opens without a figure or a demo"])


def inside(page: Page, titles: list[str]) -> list[str]:
    """What must stand in which section."""
    wanted = {"Summary": "agent_drawing(", "Paper versus code": "versus(", "Exercises": "Solution(",
              "The whole piece": "show("}  # fmt: skip
    found, section, seen, quizzes = [], "", {}, []
    for cell in page.cells:
        if cell.cell_type == "markdown":
            section = (re.findall(r"^## (.+)$", cell.source, re.M) or [section])[-1]
        seen[section] = seen.get(section, "") + cell.source
        quizzes += [section] * (cell.cell_type == "code" and "Quiz(" in cell.source)
    for title, call in wanted.items():
        body = "".join(text for name, text in seen.items() if name.startswith(title))
        if body and call not in body:
            found.append(f"section {title!r} needs a cell with `{call}...)`")
    middle = titles[: next((i for i, t in enumerate(titles) if t.startswith("Experiment")), 0)]
    if not set(quizzes) & set(middle):
        found.append("needs a quiz in the middle: a cell `Quiz(...)` before the experiment")
    return found


def equations(page: Page) -> list[str]:
    """Labels on the page, the front matter and the table agree; the code is shown beside each."""
    rows, found = page.data("equations.yml"), []
    shown = dict(re.findall(r"^\$\$\s*\n([^$]*?)\n\$\$ \(eq-([\w-]+)\)$", page.prose, re.M | re.S))
    shown = {label: latex for latex, label in shown.items()}
    labels = re.findall(r"^\$\$ \((.+?)\)\s*$", page.prose, re.M)
    found += [f"label ({x}) must begin with eq-" for x in labels if not x.startswith("eq-")]
    listed = set(page.head.get("equations", []))
    if set(shown) != listed:
        found.append(f"labels on the page {sorted(shown)}, in the front matter {sorted(listed)}")
    cells = {argument(call) for call in page.calls("equation")}
    for name in sorted(set(shown) | listed):
        if name not in rows:
            found.append(f"equation {name} is not in equations.yml")
            continue
        if squeezed(rows[name]["latex"]) != squeezed(shown.get(name, "")):
            found.append(f"equation {name} reads otherwise in equations.yml")
        if rows[name].get("symbol") and name not in cells:
            found.append(f'equation {name} needs a cell equation("{name}") after it')
        if f"](#eq-{name})" not in page.prose:
            found.append(f"equation {name} is labeled but never linked to: [...](#eq-{name})")
    return found


def squeezed(latex: str) -> str:
    """LaTeX without white space."""
    return re.sub(r"\s+", "", latex)


def row_problems(name: str, row: dict, root: Path = ROOT) -> list[str]:
    """What is wrong with one row of the table of equations."""
    found = [f"{name} lacks `{k}`" for k in ("name", "paper", "version", "latex") if not row.get(k)]
    if row.get("symbol"):
        try:
            lines = source.code_lines(source.source(source.resolve(row["symbol"])))
            if lines > source.MAX_LINES:
                found.append(f"{name}: {row['symbol']} has {lines} lines, > {source.MAX_LINES}")
        except (ImportError, ValueError) as error:
            found.append(f"{name}: {error}")
    if bool(row.get("test")) == bool(row.get("untested")):
        found.append(f"{name} needs either a `test` or, in `untested`, the reason why it has none")
    if not row.get("symbol") and not row.get("untested"):
        found.append(f"{name} has no symbol: say in `untested` why")
    if row.get("untested") and len(str(row["untested"]).split()) < 3:
        found.append(f"{name}: `untested` must give a reason")
    return found + (missing_test(name, row["test"], root) if row.get("test") else [])


def missing_test(name: str, test: str, root: Path) -> list[str]:
    """A complaint if no such test is defined."""
    path, _, function = test.partition("::")
    file = root / path
    function = function.split("[")[0]
    known = file.exists() and re.search(rf"^def {re.escape(function)}\(", file.read_text(), re.M)
    return [] if function and known else [f"{name}: there is no test {test}"]


def numbers(page: Page) -> list[str]:
    """A result-like number in prose is computed by `say`, or listed with a reason."""
    listed = {str(k): str(v) for k, v in (page.head.get("numbers") or {}).items()}
    typed = [text for call in page.calls("say") for text in literal(call)]
    found = [
        number for text in [bare(page.prose), *map(bare, typed)] for number in result_like(text)
    ]
    complaints = [
        f"number {n} is typed: compute it with say(f'...') or list it in `numbers` with a reason"
        for n in dict.fromkeys(found)
        if n not in listed
    ]
    stale = [n for n in listed if n not in found]
    mute = [n for n, why in listed.items() if len(why.split()) < 2]
    complaints += [f"`numbers` lists {n}, which the page does not contain" for n in stale]
    return complaints + [f"`numbers`: {n} needs a reason" for n in mute]


def bare(text: str) -> str:
    """Prose without what is no statement: inline code, roles, links, labels, options, titles."""
    text = re.sub(r"\{[\w:]+\}`[^`]*`|`[^`]*`", " ", text)
    text = re.sub(r"\]\([^)]*\)|https?://\S+|arXiv:\S+", "]", text)
    text = re.sub(r"^#+ .*$|^:[\w-]+:.*$|^:{3,}\{exercise\}.*$", "", text, flags=re.M)
    text = re.sub(r"\b(?:[Ff]igure|[Ee]xercise|[Qq]uiz|[Ss]ection) \d+\.\d+", " ", text)
    return re.sub(r"\b(?:1[89]|20)\d\d\b(?![,.]\d)", " ", text)  # years


def result_like(text: str) -> list[str]:
    """The numbers in a text that look measured."""
    return [match[0].strip() for match in RESULT.finditer(text.replace(r"\,", ""))]


def literal(call: ast.Call) -> list[str]:
    """The typed parts of a sentence passed to `say`; a constant in braces is one, too."""
    nodes = [n for arg in call.args for n in ast.walk(arg)]
    sentences = [n for n in nodes if isinstance(n, ast.JoinedStr)]
    inner = {id(part) for n in sentences for child in n.values for part in ast.walk(child)}
    outer = [n for n in nodes if id(n) not in inner]
    plain = [n.value for n in outer if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return plain + [text for n in outer if isinstance(n, ast.JoinedStr) for text in pieces(n)]


def pieces(sentence: ast.JoinedStr) -> list[str]:
    """The text between what is computed: f"{0.5:.0%} of {x} units" -> "50% of ", " units"."""
    found = [""]
    for part in sentence.values:
        if any(isinstance(node, ast.Name | ast.Call) for node in ast.walk(part)):
            found.append("")
        else:
            alone = ast.fix_missing_locations(ast.Expression(ast.JoinedStr([part])))
            found[-1] += eval(compile(alone, "say", "eval"))
    return found


def notation(page: Page) -> list[str]:
    """A letter in a formula stands in the table of notation, or in the page's own `symbols`."""
    before, _, after = (page.book / "notation.md").read_text(encoding="utf-8").partition(LOCAL)
    table = before + after.partition("\n## ")[2]
    shapes = re.findall(r"\b[A-Z]\b", table.split("## Symbols")[0])
    own = {str(name) for name in page.head.get("symbols") or {}}
    used, known = letters(page.text.split("---\n", 2)[2]), letters(table)
    strange = used - known - set(shapes) - own - FREE
    found = [f"symbol {x} is not in notation.md, nor in `symbols`" for x in sorted(strange)]
    return found + [f"`symbols` lists {x}, which no formula uses" for x in sorted(own - used)]


def letters(text: str) -> set[str]:
    """Latin and Greek letters in the formulas of a text; words in roman type do not count."""
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.M | re.S)
    found = set()
    for display, line in re.findall(r"\$\$(.*?)\$\$|\$([^$\n]+)\$", text, re.S):
        formula = re.sub(rf"\\(?:{ROMAN})\*?\{{[^{{}}]*\}}", " ", display or line)
        greek = {name for name in re.findall(r"\\([A-Za-z]+)", formula) if name in GREEK}
        found |= {name.removeprefix("var") for name in greek}
        found |= set(re.findall(r"[A-Za-z]", re.sub(r"\\[A-Za-z]+", " ", formula)))
    return found


def local_letters(table: str) -> dict[tuple[str, int], str]:
    """{(letter, chapter): meaning}: what notation.md gives to one chapter alone."""
    section = table.partition(LOCAL)[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\$[^|]+\$) \| ([\d, ]+) \| (.+?) \|$", section, re.M)
    return {
        (letter, int(chapter)): meaning
        for name, chapters, meaning in rows
        for letter in letters(name)
        for chapter in chapters.split(",")
    }


def contract(pages: list[Page]) -> list[str]:
    """One letter, one meaning: what a page's `symbols` add, notation.md lists as its own.

    In the same words, and nothing else; so no two pages can differ about a letter unnoticed.
    """
    said = {
        (str(letter), page.number): meaning
        for page in pages
        for letter, meaning in (page.head.get("symbols") or {}).items()
    }
    table = (pages[0].book / "notation.md").read_text(encoding="utf-8") if pages else ""
    written = {page.number for page in pages}
    local = {key: meaning for key, meaning in local_letters(table).items() if key[1] in written}
    return [
        f"{letter} in chapter {chapter}: its `symbols` say {said.get((letter, chapter))!r}, "
        f"notation.md, {LOCAL[3:]!r}, says {local.get((letter, chapter))!r}"
        for letter, chapter in sorted(said.keys() | local.keys())
        if said.get((letter, chapter)) != local.get((letter, chapter))
    ]


def figures(page: Page) -> list[str]:
    """Pictures have a text alternative of eight words and more, and captions with numbers."""
    found, alts = [], re.findall(r"!\[([^\]]*)\]\(", page.prose)
    for cell, after in zip(page.cells, [*page.cells[1:], None], strict=True):
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt")
        drawing = cell.cell_type == "code" and "agent_drawing(" in cell.source
        if alt is None and not drawing:
            continue
        alts.append(str(alt or ""))
        if not drawing and (not after or not after.source.startswith("**Figure ")):
            found.append(
                f"after the picture of {first_line(cell)!r} comes no caption **Figure ...**"
            )
    mute = [alt for alt in alts if len(alt.split()) < 8]
    found += [f"alt text {alt!r} has fewer than eight words" for alt in mute]
    return found + captions(page)


def captions(page: Page) -> list[str]:
    """**Figure 9.1.** and so on, each referred to; plain text, since it is read in four places."""
    numbers = re.findall(r"^\*\*Figure (\d+\.\d+)\.\*\*", page.prose, re.M)
    if not numbers:
        return ["has no figure with a caption: **Figure 9.1.** ..."]
    expected = [f"{page.number}.{n}" for n in range(1, len(numbers) + 1)]
    found = [] if numbers == expected else [f"figures {numbers}, expected {expected}"]
    mentioned = set(re.findall(r"(?<!\*)Figure (\d+\.\d+)(?!\d)", page.prose))
    found += [f"Figure {n} is never referred to" for n in numbers if n not in mentioned]
    return found + [f"there is no Figure {n}" for n in sorted(mentioned - set(numbers))]


def first_line(cell) -> str:
    """To recognize a cell."""
    return cell.source.strip().splitlines()[0]


def markup(page: Page) -> list[str]:
    """Only what JupyterLab and GitHub show as the website does: links, no roles, no HTML."""
    text = re.sub(r"(?<!\})`[^`]*`", "", page.prose)
    roles = set(re.findall(r"\{([\w:-]+)\}`", text))
    fences = set(re.findall(r"^:{3,}\{([\w:-]+)\}", text, re.M)) - DIRECTIVES
    ticks = set(re.findall(r"^`{3,}\{([\w:-]+)\}", page.text, re.M)) - {"code-cell"}
    tags = re.findall(
        r"</?[a-z][\w-]*[^>\n]*>", re.sub(r"\$\$.*?\$\$|\$[^$]*\$", "", text, flags=re.S)
    )
    found = [f"role {{{r}}} does not show everywhere; write a link, [text](#label)" for r in roles]
    found += [f"directive {{{d}}} is not one of {sorted(DIRECTIVES)}" for d in fences]
    found += [f"directive {{{d}}} needs a colon fence, :::{{{d}}}" for d in ticks]
    return found + [f"raw HTML {tag} in the text" for tag in tags]


def exercises(page: Page) -> list[str]:
    """Four or more, one find-the-bug; statement, stub and solution of each; ids in order."""
    ids = [str(i) for i in page.head.get("exercises", [])]
    titles = dict(
        (f"{chapter}.{number}", title)
        for title, chapter, number in re.findall(
            r"^:{3,}\{exercise\} (.*)\n:label: ex-(\d+)-(\d+)$", page.prose, re.M
        )
    )
    found = [] if len(ids) >= 4 else [f"needs at least 4 exercises, has {len(ids)}"]
    expected = [f"{page.number}.{n}" for n in range(1, len(ids) + 1)]
    if ids != expected or list(titles) != expected:
        found.append(f"exercises {ids}, labels on the page {list(titles)}, expected {expected}")
    found += [f"exercise {i} has no grade ★ ★★ ★★★ (find the bug) at the end of its title"
              for i, title in titles.items() if not GRADE.search(title)]  # fmt: skip
    if not any(title.rstrip().endswith("(find the bug)") for title in titles.values()):
        found.append("has no find-the-bug exercise")
    solved = [argument(call) for call in page.calls("Solution")]
    checked = [argument(call) for call in page.calls("check")]
    found += [f'exercise {i} has no cell Solution("{i}")' for i in ids if i not in solved]
    found += [f'exercise {i} has no stub cell with check("{i}", ...)'
              for i in page.checks if i not in checked]  # fmt: skip
    return found + cell_tags(page) + solution_sections(page, ids)


def cell_tags(page: Page) -> list[str]:
    """Stubs and solutions are marked, so that the tools find them."""
    found = []
    for cell in page.code:
        tags = cell.metadata.get("tags", [])
        if "Solution(" in cell.source and not {"solution", "remove-input"} <= set(tags):
            found.append(f"cell {first_line(cell)!r} needs the tags solution and remove-input")
        if re.search(r"^check\(", cell.source, re.M) and "stub" not in tags:
            found.append(f"cell {first_line(cell)!r} calls check, so it needs the tag stub")
    return found


def solution_sections(page: Page, ids: list[str]) -> list[str]:
    """Every exercise has a worked solution; one that can be checked checks itself."""
    found = []
    for identifier in ids:
        try:
            text = solution.section(page.book / f"solutions/{page.number:02d}.md", identifier)
        except ValueError as error:
            found.append(str(error))
            continue
        checks = any(f'check("{identifier}"' in block for block in solution.blocks(text))
        if identifier in page.checks and not checks:
            found.append(f'solution {identifier} must end with check("{identifier}", ...)')
    return found


def quizzes(page: Page) -> list[str]:
    """The quizzes on the page are well formed, and every one of the chapter's is on the page."""
    rows = page.data(f"quizzes/{page.number:02d}.yml")
    used = {argument(call) for call in page.calls("Quiz")}
    found = (
        []
        if used == set(rows)
        else [f"quizzes shown {sorted(map(str, used))}, written {sorted(rows)}"]
    )
    for name, data in rows.items():
        try:
            quiz.choices(name, data)
        except (ValueError, TypeError, KeyError) as error:
            found.append(f"quiz {name}: {error}")
    if not found and len(rows) > 1 and len(set(places(rows))) == 1:
        found.append("all right answers stand at one place; reorder the choices of a quiz")
    return found


def places(rows: dict) -> list[int]:
    """The place of each quiz's right answer among its choices."""
    return [
        [bool(choice.get("right")) for choice in data["choices"]].index(True)
        for data in rows.values()
    ]


def citations(page: Page) -> list[str]:
    """A link to the outside is in the bibliography, or goes to pinned code or an issue."""
    bib = (page.book / "references.bib").read_text(encoding="utf-8")
    links = re.findall(r"\]\((https?://[^)]+)\)", page.prose)
    pinned = r"https://github\.com/[\w.-]+/[\w.-]+/(?:(?:blob|tree)/[0-9a-f]{7,40}|issues/|pull/)"
    strange = [u for u in links if f"{{{u}}}" not in bib and not re.match(pinned, u)]
    found = [f"links to {u}: add it to references.bib, or pin the commit" for u in strange]
    return found + ([] if links else ["cites nothing: link to a paper, [Name (year)](address)"])


def checks(page: Page) -> list[str]:
    """Claims are followed by cells that fail if the claim is false."""
    asserting = [
        cell for cell in page.code if re.search(r"^\s*assert |assert_close", cell.source, re.M)
    ]
    few = len(asserting) < max(2, len(page.head.get("equations", [])))
    return (
        [f"has {len(asserting)} check cells (assert); one per equation, two at least"]
        if few
        else []
    )


RULES = [front_matter, symbols, order, equations, numbers, notation, figures, markup, exercises,
         quizzes, citations, checks]  # fmt: skip


def outputs(nb) -> list[str]:
    """What an executed notebook must not show: a picture without words, markup in a sentence."""
    found = []
    for cell in nb.cells:
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data and "text/html" not in data and len(alt.split()) < 8:
                found.append(f"a picture without alt text of eight words: {first_line(cell)}")
            if re.search(r"\{[\w:-]+\}`|^:::", data.get("text/markdown", ""), re.M):
                found.append(f"markup in a computed sentence: {first_line(cell)}")
    return found


def complaints(page: Page) -> list[str]:
    """All complaints about a page; those on its front matter first, since the others read it."""
    if found := front_matter(page):
        return found
    return [complaint for rule in RULES for complaint in rule(page)]


def pages(names: list[str] = ()) -> list[Page]:
    """The chapters that are written, from chapter 1 on."""
    from dreamer_lite.check import exercises as known

    texts = [t for t in chapters() if re.match(r"\d\d-", t.name) and not t.name.startswith("00")]
    texts = [t for t in texts if not names or t.name[:2] in names or t.stem in names]
    return [Page(text, checks=known(int(text.name[:2]))) for text in texts]


def cycle(requires: dict[int, list[int]]) -> list[int]:
    """A chain of chapters that need each other, or nothing."""

    def walk(path: list[int]) -> list[int]:
        for need in requires.get(path[-1], []):
            if need in path:
                return [*path[path.index(need) :], need]
            if found := walk([*path, need]):
                return found
        return []

    return next((found for chapter in requires if (found := walk([chapter]))), [])


def main(*names: str) -> int:
    """Print what is wrong with the chapters; 1 if anything is."""
    checked = pages(names)
    found = [f"{page.path.name}: {text}" for page in checked for text in complaints(page)]
    found += contract(checked)
    rows = yaml.safe_load((BOOK / "equations.yml").read_text(encoding="utf-8")) or {}
    found += [
        f"equations.yml: {t}" for name, row in rows.items() for t in row_problems(name, row) if t
    ]
    print("\n".join(found) or "no complaints")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
