"""What a user gets: the archives' contents and metadata. `.ci/release` builds them and tests what is installed."""

import json
import re
import subprocess
import tomllib
from importlib.metadata import PackageNotFoundError, distribution

import pytest
from helpers import PACKAGE, ROOT

import skae

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]


@pytest.fixture
def installed():
    """What is installed under the name of skae; of a folder under development that is as old as its installation."""
    try:
        found = distribution("skae")
    except PackageNotFoundError:
        pytest.skip("skae is imported from a folder and not installed")
    if json.loads(found.read_text("direct_url.json") or "{}").get("dir_info", {}).get("editable"):
        pytest.skip("skae is installed from a folder under development")
    return found


def test_types_are_published():
    """Without this file a type checker ignores what is annotated."""
    assert (PACKAGE / "py.typed").read_bytes() == b""
    assert "Typing :: Typed" in PROJECT["project"]["classifiers"]


def test_version_has_the_form_of_one():
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|(a|b|rc)\d+)?", skae.__version__)


def test_every_extra_that_an_error_names_exists():
    sources = [path.read_text(encoding="utf-8") for path in [*PACKAGE.rglob("*.py"), ROOT / "README.md"]]
    named = {name for text in sources for name in re.findall(r"skae\[(\w+)\]", text)}
    assert {"plot"} <= named <= EXTRAS.keys()


def test_tests_ask_for_what_would_skip_them():
    """A test that is skipped wherever it is run says nothing."""
    assert "skae[neighbours,onnx,plot]" in EXTRAS["test"]


def test_all_that_is_committed_is_in_the_source_archive():
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    committed = {name.split("/")[0] for name in done.stdout.splitlines()}
    if "pyproject.toml" not in committed:
        pytest.skip("not a git checkout")
    always = {"pyproject.toml", ".gitignore"}
    assert committed - always == set(PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"])


def test_metadata_of_the_archives(installed):
    metadata, project = installed.metadata, PROJECT["project"]
    assert installed.version == skae.__version__
    assert metadata["Requires-Python"] == project["requires-python"]
    assert metadata["Summary"] == project["description"]
    assert metadata["License-Expression"] == project["license"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert set(metadata.get_all("Provides-Extra")) == EXTRAS.keys()
    assert set(metadata.get_all("Classifier")) == set(project["classifiers"])


def test_nothing_but_the_package_is_installed(installed):
    """The tests stay in the source archive."""
    folders = {path.parts[0] for path in installed.files}
    assert folders == {"skae", f"skae-{skae.__version__}.dist-info"}
    assert {"skae/py.typed", "skae/_display/__init__.py"} <= {path.as_posix() for path in installed.files}


def test_hooks_run_the_tested_version_of_ruff():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    (version,) = re.findall(r"ruff-pre-commit\n +rev: v([\d.]+)\n", hooks)
    assert f"ruff=={version}" in pins
