"""A reader clones all of it, so weights, ledger and notebooks stay small."""

from pathlib import Path

import pytest

BOOK = Path(__file__).resolve().parent.parent / "book"
LIMITS = {"checkpoints": 20e6, "ledger": 5e6, "notebooks": 12e6}  # bytes


def kind(path):
    """What a file of the book counts as; None for all the rest."""
    parts = path.relative_to(BOOK).parts
    if parts[:2] == ("data", "runs"):
        return "checkpoints" if "checkpoints" in parts else "ledger"
    return "notebooks" if len(parts) == 1 and path.suffix == ".ipynb" else None


def total(name, paths):
    return sum(path.stat().st_size for path in paths if kind(path) == name)


@pytest.mark.parametrize("name", LIMITS)
def test_what_the_book_brings_along_stays_small(name):
    size = total(name, (path for path in BOOK.rglob("*") if path.is_file()))
    assert 0 < size <= LIMITS[name], f"{size / 1e6:.1f} MB of {name}"


def test_every_file_counts_once():
    assert kind(BOOK / "data/runs/a-s0/checkpoints/0000000100/agent.safetensors") == "checkpoints"
    assert kind(BOOK / "data/runs/a-s0/metrics.jsonl") == "ledger"
    assert kind(BOOK / "09-lambda-returns.ipynb") == "notebooks"
    assert kind(BOOK / "09-lambda-returns.md") is None
    assert kind(BOOK / ".ipynb_checkpoints/09-lambda-returns.ipynb") is None
