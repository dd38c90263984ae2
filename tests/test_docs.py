"""What is promised in words: README, docstrings and examples are run or measured."""

import contextlib
import inspect
import io
import os
import re
import subprocess
import sys

import pytest
from helpers import ROOT
from numpydoc.validate import validate

import skae

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = sorted((ROOT / "examples").glob("plot_*.py"))
# Packages that single examples take their data from.
NEEDED_BY_EXAMPLES = {"plot_mixed_table": "plotnine"}
# The docstring of the class has the extended summary, the neighbours and the examples for all its methods.
NOT_ASKED_OF_METHODS = {"ES01", "SA01", "EX01"}


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def documented_by_a_base(cls, member):
    """Whether a public base class says what a method is for, so that a subclass need not say it again."""
    bases = [base for base in inspect.getmro(cls)[1:] if base.__name__ in skae.__all__]
    return any(member in vars(base) for base in bases)


def public_objects():
    """Names of what `skae` exports and of the public methods and properties that it defines itself."""
    for name in skae.__all__:
        yield f"skae.{name}"
        if not inspect.isclass(getattr(skae, name)):
            continue
        for member, value in inspect.getmembers(getattr(skae, name)):
            function = value.fget if isinstance(value, property) else inspect.unwrap(value) if callable(value) else None
            own = not member.startswith("_") and getattr(function, "__module__", "").startswith("skae")
            if own and not documented_by_a_base(getattr(skae, name), member):
                yield f"skae.{name}.{member}"


def test_readme_fits_a_screen():
    assert len(README.splitlines()) <= 60


def test_readme_code_runs():
    namespace, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        for block in blocks("python"):
            exec(compile(block, "README.md", "exec"), namespace)
    assert namespace["codes"].shape == (450, 8)
    assert 0.75 < float(printed.getvalue()) < 1


def test_readme_commands_are_what_ci_runs():
    commands = blocks("bash")[0].splitlines()
    steps = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert [step for step in steps if step in commands] == commands
    assert [command.split("&&")[1].split()[0] for command in commands] == ["python", "pytest"]


def test_readme_names_files_that_exist():
    named = re.findall(r"(?:tests|examples|docs)/[\w/]+\.\w+", README)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_constraints_pin_every_dependency():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    wanted = set(re.findall(r'"([\w-]+)>=[\d.]+"', project))
    assert {"numpy", "torch", "pytest"} <= wanted <= pins.keys()


def test_public_objects_are_found():
    found = set(public_objects())
    assert {"skae.AutoEncoderTransformer", "skae.AutoEncoderTransformer.fit"} <= found
    assert "skae.AutoEncoderTransformer.set_output" not in found  # scikit-learn's own


@pytest.mark.parametrize("name", list(public_objects()))
def test_docstring(name):
    excluded = NOT_ASKED_OF_METHODS if name.count(".") > 1 else set()
    assert [error for error in validate(name)["errors"] if error[0] not in excluded] == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(example, tmp_path):
    if example.stem in NEEDED_BY_EXAMPLES:
        pytest.importorskip(NEEDED_BY_EXAMPLES[example.stem])
    picture = tmp_path / "picture.png"
    command = [sys.executable, "-W", "error", str(example), "--quick", "--out", str(picture)]
    # Two tests at a time already fill two cores: a second thread in each would be slower.
    environment = {**os.environ, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    headings = [line for line in done.stdout.splitlines() if line.startswith("| ") and not line[2].isdigit()]
    assert all(heading in README for heading in headings)
