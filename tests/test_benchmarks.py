"""The scripts behind docs/benchmarks.md: what is cheap enough to run."""

import csv
import importlib
import re
import sys

import pytest
from helpers import ROOT


@pytest.fixture
def against(monkeypatch):
    """The script that compares two installed versions."""
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(ROOT / "examples" / "benchmarks")
    return importlib.import_module("against")


def test_two_versions_are_compared_and_a_stopped_run_goes_on(against, tmp_path, capsys):
    table = tmp_path / "against.csv"
    known = "wine,usual,133,2,clean,0,0.6,0.5,0.4,1.0,2.0,1.0,2.0,0,0,0.9,0.9,0.9,0.9,0.9,0.9"
    table.write_text(",".join(against.KEY + against.MEASURES) + "\n" + known + "\n", encoding="utf-8")
    options = ["--old", sys.executable, "--sets", "wine", "--k", "2", "--params", '{"max_epochs": 2}', "--codes"]
    against.main([*options, "--seeds", "2", "--out", str(table)])
    with table.open(newline="") as file:
        first, row = csv.DictReader(file)
    assert list(first.values()) == known.split(",")  # not measured again
    assert [row[name] for name in against.KEY] == ["wine", "usual", "133", "2", "clean", "1"]
    assert row["old"] == row["new"]  # the same version twice
    assert float(row["new"]) >= float(row["pca"]) - 0.001
    assert all(float(row[name]) > 0 for name in ("old_seconds", "new_seconds", "new_knn", "pca_logistic"))
    printed = capsys.readouterr().out
    assert "cells: 1\nbelow PCA - 0.001, mean of the seeds: 1\n    wine usual 133 2 clean\n" in printed
    assert "new < old - 0.002: 1\n    wine usual 133 2 clean\n" in printed
    assert "mean difference where old < 0.98: -0.0500 (1 cells)\nseconds, new / old" in printed


def test_one_of_the_versions_must_be_named(against, capsys):
    with pytest.raises(SystemExit):
        against.main([])
    assert "give --old or --floor" in capsys.readouterr().err


@pytest.mark.parametrize("script", sorted((ROOT / "examples" / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_every_option_that_is_read_can_be_given(script):
    """Most of these scripts take too long to be run here."""
    text = script.read_text(encoding="utf-8")
    given = {name.replace("-", "_") for name in re.findall(r"add_argument\(\s*\"-*([\w-]+)\"", text)}
    assert set(re.findall(r"\boptions\.(\w+)", text)) <= given
