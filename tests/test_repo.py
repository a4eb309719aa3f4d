"""The files at the root agree with each other, and the modules import in one direction."""

import ast
import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = (ROOT / "constraints.txt").read_text()

# A module imports only from those above it.
LAYERS = """
guard distributed spaces transforms distributions heads networks rssm world_model returns behavior
replay control envs optim presets agent checkpoint logger native fast_conv fast_rssm fast fast_gpu
ledger parts training parcel report bench scores sweep doctor cli
""".split()
BESIDE = ["toys", "check", "explore", "study"]  # nothing in LAYERS imports these


def conda(name):
    """The lines of an environment file: those for conda, those for pip."""
    lines = yaml.safe_load((ROOT / name).read_text())["dependencies"]
    return [x for x in lines if isinstance(x, str)], lines[-1]["pip"]


def requirements():
    """All requirements of the project, with those of the extras."""
    extras = PROJECT["optional-dependencies"].values()
    return [Requirement(line) for group in (PROJECT["dependencies"], *extras) for line in group]


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def pins():
    lines = [line for line in CONSTRAINTS.splitlines() if not line.startswith("#")]
    return {canonical(line.split("==")[0]): line.split("==")[1] for line in lines}


def test_the_environment_file_lists_nothing_but_the_package():
    system, pip = conda("environments.yml")
    assert [re.split("[=<>]", x)[0] for x in system] == ["python", "pip"]
    assert all(line.startswith("--") for line in pip), "list dependencies in pyproject.toml"
    assert "--constraint constraints.txt" in pip


def test_the_environment_file_asks_for_a_python_that_the_package_supports():
    system, _ = conda("environments.yml")
    assert SpecifierSet(PROJECT["requires-python"]).contains(system[0].split("=")[1] + ".0")


def test_the_environment_file_asks_for_extras_that_exist():
    extras = re.search(r"--editable \.\[(.*)\]", "\n".join(conda("environments.yml")[1]))[1]
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


def test_binder_gets_the_same_environment():
    system, pip = conda("environments.yml")
    up = {"--constraint ": "--constraint ../", "--editable .": "--editable .."}
    moved = [re.sub("|".join(map(re.escape, up)), lambda m: up[m[0]], line) for line in pip]
    assert conda("binder/environment.yml") == (system, moved)


def test_every_requirement_is_pinned_within_its_range():
    for need in requirements():
        pin = pins().get(canonical(need.name))
        assert pin, f"{need.name} is not in constraints.txt; run `make lock`"
        assert need.specifier.contains(pin), f"{need} excludes the pinned {pin}"


def test_the_packages_the_book_is_written_with_are_required():
    named = "torch numpy gymnasium matplotlib jupyterlab jupytext ipywidgets nbval".split()
    assert set(named) <= {need.name for need in requirements()}


def test_the_constraints_name_no_build_and_no_machine():
    assert "+" not in CONSTRAINTS and "@" not in CONSTRAINTS and "/" not in CONSTRAINTS


def test_one_version_everywhere():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == PROJECT["version"]


def test_everything_that_installs_reads_the_one_lock_file():
    for name in ("Makefile", "environments.yml", "CONTRIBUTING.md", ".github/workflows/tests.yml"):
        assert "constraints.txt" in (ROOT / name).read_text(), name


def test_a_push_tests_the_sweep_on_a_cluster_too():
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())
    extras = set(workflow["env"]["EXTRAS"].split(","))
    default = re.search(r"EXTRAS \?= (.*)", (ROOT / "Makefile").read_text())[1].split(",")
    assert {"ray", "tensorboard", *default} <= extras <= set(PROJECT["optional-dependencies"])


def test_the_readme_says_what_the_makefile_does():
    readme, makefile = ((ROOT / name).read_text() for name in ("README.md", "Makefile"))
    assert f"torch=={pins()['torch']} " in readme
    extras = re.search(r"EXTRAS \?= (.*)", makefile)[1]
    assert f'-c constraints.txt -e ".[{extras}]"' in readme
    for command in ("tools/run_book.py --html", "-m dreamer_lite.doctor", "-n 2 --dist loadscope"):
        assert command in readme and command in makefile, command
    flags = re.findall(r"--nbval[^\\\n]*", makefile)
    assert flags and all(flag.strip() in readme for flag in flags)


def imported(tree):
    """The package's own modules that a module imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            paths = [alias.name.split(".") for alias in node.names]
            yield from (path[1] for path in paths if path[0] == "dreamer_lite" and path[1:])
        if isinstance(node, ast.ImportFrom):
            path = (node.module or "").split(".")
            if node.level or path[0] == "dreamer_lite":
                inner = path if node.level else path[1:]
                yield from ([inner[0]] if inner and inner[0] else [a.name for a in node.names])


def forbidden(module, text):
    """What the module imports from its own row or from below."""
    allowed = LAYERS[: LAYERS.index(module)] if module in LAYERS else LAYERS + BESIDE
    return [name for name in imported(ast.parse(text)) if name not in allowed]


def test_modules_import_only_from_those_above():
    for path in sorted((ROOT / "dreamer_lite").glob("*.py")):
        if not path.stem.startswith("__"):
            assert path.stem in LAYERS + BESIDE, f"add {path.stem} to LAYERS or BESIDE above"
            assert forbidden(path.stem, path.read_text()) == [], path.name


def test_an_import_from_below_is_noticed():
    assert forbidden("rssm", "from dreamer_lite.agent import Dreamer") == ["agent"]
    assert forbidden("rssm", "from . import toys") == ["toys"]
    assert forbidden("rssm", "from .replay import Replay") == ["replay"]
    assert forbidden("rssm", "def f():\n    import dreamer_lite.cli") == ["cli"]
    assert forbidden("rssm", "from dreamer_lite import Dreamer") == ["Dreamer"]
    assert forbidden("rssm", "import torch\nfrom dreamer_lite.networks import mlp") == []
