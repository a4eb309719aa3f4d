"""Reads the reference vectors beside this file; README.md tells what they are and who made them."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

OURS = Path(__file__).parent
FOLDER = Path(os.environ.get("PARITY_DIR", OURS))
TESTED: dict[str, set[str]] = {}  # file: the cases that some test takes


class Case(NamedTuple):
    """One call of an official function: what went in, what came out, and how close is equal."""

    hp: dict  # hyperparameters
    x: dict[str, Tensor]  # inputs
    w: dict[str, Tensor]  # weights, official names and layout
    out: dict[str, Tensor]
    grad: dict[str, Tensor]
    rtol: float
    atol: float


def load(name: str, folder: Path = FOLDER) -> dict[str, Case]:
    """All cases of a file.  Keys in the file read case/kind/name, kind in (in, w, out, grad)."""
    with np.load(folder / f"{name}.npz", allow_pickle=False) as data:
        meta = json.loads(str(data["__meta__"]))
        kinds = {case: {"in": {}, "w": {}, "out": {}, "grad": {}} for case in meta["cases"]}
        for key in set(data.files) - {"__meta__"}:
            case, kind, array = key.split("/", 2)
            kinds[case][kind][array] = torch.as_tensor(data[key])
    tolerance = meta["rtol"], meta["atol"]
    return {case: Case(meta["cases"][case], *kinds[case].values(), *tolerance) for case in kinds}


def cases(name: str, wanted: Callable[[Case], bool] = lambda case: True):
    """Decorates a test with one run per case of the file for which wanted(case) holds.

    Only a folder of somebody else may lack the file, or every such case: the test is then skipped.
    """
    there = FOLDER == OURS or (FOLDER / f"{name}.npz").is_file()
    found = {k: case for k, case in (load(name) if there else {}).items() if wanted(case)}
    TESTED.setdefault(name, set()).update(found)
    missing = f"{FOLDER} holds no case of {name}.npz for this test"
    assert found or FOLDER != OURS, missing
    skipped = pytest.param(None, id="none", marks=pytest.mark.skip(reason=missing))
    params = [pytest.param(c, id=k) for k, c in found.items()] or [skipped]
    return pytest.mark.parametrize("case", params)


def refuse_untested(prefix: str) -> None:
    """Fails if no test takes a case of ours; says which of somebody else's are left out."""
    files = sorted(path.stem for path in FOLDER.glob(f"{prefix}_*.npz"))
    left = sorted(f"{f}/{case}" for f in files for case in load(f).keys() - TESTED.get(f, set()))
    if left and FOLDER != OURS:
        pytest.skip(f"left out, see README.md: {', '.join(left)}")
    assert not left, f"no test takes {', '.join(left)}"


def close(actual: Tensor, expected: Tensor, case: Case, extra: float | Tensor = 0.0) -> None:
    """|actual - expected| ≤ atol + rtol |expected| (+ extra), element by element."""
    assert actual.shape == expected.shape, f"{tuple(actual.shape)} != {tuple(expected.shape)}"
    actual, expected = actual.detach().double(), expected.double()
    error = (actual - expected).abs() / (case.atol + case.rtol * expected.abs() + extra)
    assert bool((error <= 1).all()), f"{error.max():.3g} times the tolerance\n{actual}\n{expected}"


def check_gradients(case: Case, loss: Tensor, inputs: dict[str, Tensor], prefix: str = "") -> None:
    """∂loss/∂inputs against the recorded gradients `prefix` + name; all of those are asked for."""
    names = [k for k in inputs if prefix + k in case.grad]
    wanted = [k for k in case.grad if k.startswith(prefix)]
    assert len(names) == len(wanted) > 0, f"no input for one of {wanted}"
    leaves = [inputs[k] for k in names]
    found = torch.autograd.grad(loss, leaves, retain_graph=True, materialize_grads=True)
    for name, gradient in zip(names, found, strict=True):
        close(gradient, case.grad[prefix + name], case)
