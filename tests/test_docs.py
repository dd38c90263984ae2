"""What is promised in words: README, pages, docstrings and examples are run or measured.

Code of the pages runs with few epochs, unless the page states decimals, which depend on how long was trained. What is
printed is compared with what the page states. With SKAE_DOCS=full all code runs as it stands, which takes minutes.
"""

import contextlib
import importlib.util
import inspect
import io
import os
import re
import runpy
import sys
import textwrap
import tomllib
from dataclasses import replace
from xml.etree import ElementTree

import matplotlib
import pytest
import torch
from helpers import PACKAGE, ROOT, pca_score
from numpydoc.validate import validate
from sklearn.decomposition import PCA

import skae.distributed
import skae.onnx

matplotlib.use("Agg")
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = sorted((ROOT / "examples").glob("plot_*.py"))
# Packages that single examples import besides.
NEEDED_BY_EXAMPLES = {
    "plot_mixed_table": ["plotnine", "prince"],
    "plot_onnx": ["skl2onnx", "onnxruntime"],
    "plot_series": ["aeon"],
    "plot_stream": ["plotnine", "pyarrow"],
}
# Those that begin with sg_ are made by sphinx-gallery.
PAGES = sorted(path for path in (ROOT / "docs").glob("*.rst") if not path.name.startswith("sg_"))
FULL = os.environ.get("SKAE_DOCS") == "full"
# A comment in front of a block says what it needs: packages, or a machine with or without a GPU.
PAGE_BLOCK = re.compile(
    r"(?:^\.\. needs: (?P<needs>.+)\n\n)?^\.\. code-block:: python\n\n(?P<code>(?: {4}.*\n|\n)+)", re.MULTILINE
)
# What a line prints, where a comment behind it says so.
EXPECTED = re.compile(r"^\s*print\(.*\)  # (.+)$", re.MULTILINE)
HEADING = re.compile(r"^(\S.*)\n(=|-|\^)\2+\n", re.MULTILINE)
# The docstring of the class has the extended summary, the neighbours and the examples for all its methods.
NOT_ASKED_OF_METHODS = {"ES01", "SA01", "EX01"}


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def importable(name):
    """Whether there is such a package; one that is imported already may have hidden where it is from."""
    return name in sys.modules or importlib.util.find_spec(name) is not None


def lacking(needs):
    """What of a block's needs is not here."""
    here = {"gpu": torch.cuda.is_available(), "no gpu": not torch.cuda.is_available()}
    names = [name.strip() for name in (needs or "").split(",") if name.strip()]
    return [name for name in names if not (here[name] if name in here else importable(name))]


def run_block(page, text, block, namespace):
    """Run a block of a page, with the page's line numbers, and return what it prints."""
    code = textwrap.dedent(block["code"])
    lines_before = text[: block.start("code")].count("\n")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile("\n" * lines_before + code, page.name, "exec"), namespace)
    return printed.getvalue()


def check_expected(code, printed):
    """Compare what was printed with the comments, if there are any."""
    if expected := EXPECTED.findall(code):
        assert printed.splitlines() == expected


def states_decimals(text):
    """Whether a page says that something prints a number with decimals."""
    return any(re.search(r"\d\.\d", wanted) for wanted in EXPECTED.findall(text))


def table_of(text):
    """The cells of the one table in a text, a list for each line."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


def check_table(printed):
    """Compare the README's table with the lines that a short run prints of it: headings, and what PCA gets."""
    table = table_of(README[: README.index("\n## ")])
    lines = table_of(printed)
    assert lines[:2] == table[:2]
    of_pca = [index for index, heading in enumerate(lines[0]) if heading != "skae"]
    stated = {line[0]: line for line in table}
    assert [line[0] for line in lines[2:]] == ["2", "8", "0.9"]
    for line in lines[2:]:
        assert [line[index] for index in of_pca] == [stated[line[0]][index] for index in of_pca]


def sections(text):
    """Pairs of a heading and what stands below it; the first is the title."""
    parts = HEADING.split(text)
    return list(zip(parts[1::3], parts[3::3], strict=True))


def close_figures():
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def few_epochs(monkeypatch, tmp_path, request):
    """Epochs enough to see code run, unless its page states decimals, in a folder for what it writes."""
    monkeypatch.chdir(tmp_path)
    page = request.node.funcargs.get("page")
    if (
        FULL
        or request.node.name == "test_readme_code_runs"
        or page
        and states_decimals(page.read_text(encoding="utf-8"))
    ):
        return
    settings_of = skae.AutoEncoderTransformer._config

    def settings(*args):
        asked_for = settings_of(*args)
        return replace(asked_for, max_epochs=1 if asked_for.max_epochs is None else min(asked_for.max_epochs, 1))

    monkeypatch.setattr(skae.AutoEncoderTransformer, "_config", settings)


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


def functions_of_modules():
    """Names of the functions in public modules of their own."""
    modules = skae.onnx, skae.distributed
    return [f"{module.__name__}.{name}" for module in modules for name in module.__all__]


def test_readme_fits_a_screen():
    assert len(README.splitlines()) <= 60


def test_readme_code_runs(few_epochs):
    namespace, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        for block in blocks("python"):
            exec(compile(block, "README.md", "exec"), namespace)
    assert namespace["codes"].shape == (450, 8)
    pca = PCA(8).fit(namespace["train"])
    assert 1 > float(printed.getvalue()) > pca_score(pca, namespace["test"]) > 0.5


def test_readme_commands_are_what_ci_runs():
    commands = blocks("bash")[0].splitlines()
    steps = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert [step for step in steps if step in commands] == commands
    assert [command.split("&&")[1].split()[0] for command in commands] == ["python", "pytest"]


def test_readme_names_files_that_exist():
    named = re.findall(r"(?:tests|examples|docs)/[\w/]+\.\w+", README)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_readme_links_to_pages_that_exist():
    """Links are absolute, because the README is also shown where no other file is."""
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert [link for link in links if not link.startswith("https://")] == []
    site = re.compile(r"https://skae\.readthedocs\.io/en/(?:stable|latest)/(.+)")
    pages = [found[1] for link in links if (found := site.fullmatch(link))]
    assert len(pages) > 3
    for page in pages:
        assert (ROOT / "docs" / page.replace(".html", ".rst")).exists(), page


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_every_block_of_a_page_is_found(page):
    """So that none escapes the tests below: Python in blocks at the margin, commands that are run, nothing else."""
    text = page.read_text(encoding="utf-8")
    languages = re.findall(r"code-block:: *(\S*)", text)
    assert set(languages) <= {"python", "bash"}
    assert languages.count("python") == len(PAGE_BLOCK.findall(text))
    assert re.findall(r"^(?!\.\. ).*::$", text, re.MULTILINE) == []
    commands = re.findall(r"^\.\. code-block:: bash\n\n((?: {4}.*\n|\n)+)", text, re.MULTILINE)
    assert languages.count("bash") == len(commands)
    steps = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert [
        line for block in commands for line in map(str.strip, block.splitlines()) if line and line not in steps
    ] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_page_runs(page, few_epochs):
    text, namespace, left_out = page.read_text(encoding="utf-8"), {}, []
    for block in PAGE_BLOCK.finditer(text):
        if lacks := lacking(block["needs"]):
            left_out += lacks
            continue
        check_expected(block["code"], run_block(page, text, block, namespace))
    close_figures()
    if left_out:
        pytest.skip(f"all has run but blocks that need {left_out}")


def test_headings_of_the_faq_are_what_is_raised(few_epochs):
    """Whoever searches for an error finds it: the heading is a part of the text, to the letter."""
    page = ROOT / "docs" / "faq.rst"
    namespace, n_checked = {}, 0
    for heading, body in sections(page.read_text(encoding="utf-8")):
        blocks_here = list(PAGE_BLOCK.finditer(body))
        if any(lacking(block["needs"]) for block in blocks_here):
            continue
        printed = "".join(run_block(page, body, block, namespace) for block in blocks_here)
        if heading.startswith("``"):
            assert heading.strip("`") in printed
            n_checked += 1
    assert n_checked > 15


def test_commands_of_the_benchmarks_have_scripts_with_these_options():
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    commands = re.findall(r"^    python (examples/benchmarks/\w+\.py)(.*)$", text, re.MULTILINE)
    assert len(commands) > 5
    for script, options in commands:
        source = (ROOT / script).read_text(encoding="utf-8")
        assert [option for option in re.findall(r"--\w+", options) if f'"{option}"' not in source] == []


def test_the_reference_has_every_public_name():
    text = (ROOT / "docs" / "api.rst").read_text(encoding="utf-8")
    entries = re.findall(r"^\.\. auto(?:class|function):: ([\w.]+)\n(?: +:members: (.+)\n)?", text, re.MULTILINE)
    found = {f"skae.{name.removeprefix('skae.')}" for name, _ in entries} - set(functions_of_modules())
    members = {f"skae.{name}.{one}" for name, listed in entries for one in listed.split(", ") if one}
    wanted = set(public_objects())
    assert len(entries) == len(found) + len(functions_of_modules())
    assert found == {name for name in wanted if name.count(".") == 1}
    assert members >= {name for name in wanted if name.count(".") == 2}


def test_the_architecture_has_every_module():
    text = (ROOT / "docs" / "architecture.rst").read_text(encoding="utf-8")
    modules = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")}
    assert sorted(re.findall(r"^   \* - ``(\w+)``$", text, re.MULTILINE)) == sorted(modules - {"__init__"})


def test_the_chart_leads_to_pages_that_exist():
    chart = ElementTree.parse(ROOT / "docs" / "_static" / "choosing.svg")
    links = [link.get("href") for link in chart.iter("{http://www.w3.org/2000/svg}a")]
    assert len(links) > 5
    for link in links:
        folder, name = ("examples", ".py") if link.startswith("auto_examples/") else ("docs", ".rst")
        assert (ROOT / folder / link.removeprefix("auto_examples/").replace(".html", name)).exists(), link


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


@pytest.mark.parametrize("name", [*public_objects(), *functions_of_modules()])
def test_docstring(name):
    excluded = NOT_ASKED_OF_METHODS if name.count(".") > 1 and name not in functions_of_modules() else set()
    assert [error for error in validate(name)["errors"] if error[0] not in excluded] == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(example, few_epochs, tmp_path, monkeypatch):
    for package in NEEDED_BY_EXAMPLES.get(example.stem, ()):
        pytest.importorskip(package)
    picture = tmp_path / "picture.png"
    monkeypatch.setattr(sys, "argv", [str(example), "--quick", "--out", str(picture)])
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        runpy.run_path(str(example), run_name="__main__")
    close_figures()
    assert picture.read_bytes().startswith(b"\x89PNG")
    if example.stem == "plot_digits_pipeline":
        check_table(printed.getvalue())


def test_contributing_names_files_and_constants_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:\.ci|skae|tests|examples|docs)/[\w/.]*)`", text)
    assert len(named) > 30
    files = {name: PACKAGE.parent / name if name.startswith("skae/") else ROOT / name for name in named}
    assert [name for name, path in files.items() if not path.exists()] == []
    rows = re.findall(r"^\| ((?:`[A-Z_]+`(?:, )?)+) \| `(skae/[\w/]+\.py)` \|", text, re.MULTILINE)
    assert len(rows) > 10
    for constants, name in rows:
        source = files[name].read_text(encoding="utf-8")
        for constant in re.findall(r"`(\w+)`", constants):
            assert re.search(rf"^{constant}\b.* = ", source, re.MULTILINE), f"{name} has no {constant}"


def test_contributing_sets_up_as_the_readme_does():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert all(command in text for command in blocks("bash")[0].splitlines())


def test_lowest_constraints_are_the_bounds_of_the_dependencies():
    lines = (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = dict(dependency.split(">=") for dependency in project["dependencies"])
    assert pins.keys() == bounds.keys()
    assert all(pins[name] == bound or pins[name] == f"{bound}.0" for name, bound in bounds.items())
