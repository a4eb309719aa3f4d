"""Every test starts from the same random numbers; on CI nothing but a GPU may be missing."""

import os

import pytest
import torch

MAY_LACK = "CUDA", "PARITY_DIR"  # in the reason of a skipped test


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.skipped and os.environ.get("DREAMER_LITE_COMPLETE") and not excused(report):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be missing: {report.longrepr[2]}"
    return report


def excused(report):
    """Whether a test may be skipped even where everything is installed."""
    return hasattr(report, "wasxfail") or any(word in report.longrepr[2] for word in MAY_LACK)
