"""The house: who may import whom, what `import skae` brings along, and how large things may grow."""

import ast
import io
import sys
import tokenize

import pytest
from helpers import PACKAGE, run_python

# From the ground up: a module imports only from those before it.
ORDER = (
    "_documentation",
    "_device",
    "_arrays",
    "_archive",
    "_plain",
    "_rows",
    "_sample",
    "_reservoir",
    "_codes",
    "_layers",
    "_filling",
    "_conv",
    "_custom",
    "_link",
    "_reach",
    "_linear",
    "_running",
    "_batches",
    "_objectives.losses",
    "_objectives.criterion",
    "_objectives.regularizers",
    "_objectives.objective",
    "_objectives.stages",
    "_objectives",
    "_modules",
    "_frozen",
    "_missing",
    "_callbacks",
    "_progress",
    "_net",
    "_steps",
    "_snapshot",
    "_training",
    "_streaming",
    "_autoencoder",
    "_display.canvas",
    "_display.fitted",
    "_display.loss_curve",
    "_display.reconstruction",
    "_display.latent",
    "_display.bottleneck",
    "_display.loadings",
    "_display",
    "_generation",
    "_outliers",
    "_persistence",
    "_onnx",
    "_onnx.graph",
    "_onnx.flow",
    "_onnx.images",
    "_onnx.stacks",
    "_onnx.users",
    "_onnx.rows",
    "_onnx.network",
    "_onnx.converters",
    "onnx",
    "__init__",
)
MAY_IMPORT_SKORCH = {"_callbacks", "_net"}
REQUIRED = {"numpy", "scipy", "sklearn", "torch", "skorch", "tqdm"}
# Inside a function, with an error that names the extra.
MAY_IMPORT_OPTIONAL = {
    "_display.canvas": {"matplotlib"},
    "_onnx.graph": {"onnx"},
    "_onnx.converters": {"skl2onnx"},
}
FUNCTION_LINES = 40
CLASS_LINES = 300
CLASS_METHODS = 15
MODULE_LINES = {"_autoencoder": 800}

GROUND = {
    "_device",
    "_reach",
    "_arrays",
    "_rows",
    "_sample",
    "_reservoir",
    "_filling",
    "_codes",
    "_layers",
    "_conv",
    "_custom",
    "_link",
}


def dotted(path):
    """Name of a module below the package; a package has the name of its folder."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


FILES = {dotted(path): path for path in sorted(PACKAGE.rglob("*.py"))}
MODULES = list(FILES)


def tree_of(module):
    return ast.parse(FILES[module].read_text())


def imports_of(module):
    """Yield (dotted name of the imported module, level) of each import, wherever it is."""
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            modules = [f"skae.{alias.name}" for alias in node.names] if node.module == "skae" else [node.module or ""]
            yield from ((module, node.level) for module in modules)


def code_lines(module):
    """Numbers of the lines that hold code: no comment, no blank line, no docstring."""
    source = FILES[module].read_text()
    skip = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skip:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            docstring = node.body[0]
            lines.difference_update(range(docstring.lineno, docstring.end_lineno + 1))
    return lines


def size(node, lines):
    return len(lines.intersection(range(node.lineno, node.end_lineno + 1)))


def test_every_module_has_a_place():
    assert set(MODULES) == set(ORDER)


@pytest.mark.parametrize("module", MODULES)
def test_imports_come_from_below(module):
    own = [name.removeprefix("skae.") for name, _ in imports_of(module) if name.split(".")[0] == "skae"]
    above = [name for name in own if name not in ORDER or ORDER.index(name) >= ORDER.index(module)]
    assert not above, f"{module} imports {above}, which are not below it in {ORDER}"


@pytest.mark.parametrize("module", ["_linear", "_batches", "_objectives", "_modules"])
def test_the_first_floor_stands_on_the_ground_alone(module):
    """These do not import each other: each can be read, and replaced, without the rest."""
    own = {name.removeprefix("skae.") for name, _ in imports_of(module) if name.split(".")[0] == "skae"}
    assert {name for name in own if not name.startswith("_objectives.")} <= GROUND


@pytest.mark.parametrize("module", MODULES)
def test_imports_are_absolute(module):
    assert [name for name, level in imports_of(module) if level > 0] == []


@pytest.mark.parametrize("module", MODULES)
def test_only_required_packages_are_imported(module):
    foreign = {name.split(".")[0] for name, _ in imports_of(module)} - sys.stdlib_module_names - {"skae"}
    assert foreign <= REQUIRED | MAY_IMPORT_OPTIONAL.get(module, set())
    assert module in MAY_IMPORT_SKORCH or "skorch" not in foreign


def test_import_brings_no_optional_dependency():
    code = "import sys, skae.onnx; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = set(run_python(code).split())
    assert "skae" in loaded
    # skorch itself imports tqdm and tabulate, and, where they are, what they in turn look for.
    besides_skorch = set(run_python(code.replace("skae.onnx", "skorch, sklearn.model_selection")).split())
    neighbours = {"dask", "imblearn", "optuna", "skrub"}
    others = {"matplotlib", "pandas", "polars", "pyarrow", "onnx", "skl2onnx", "skops", "pytest"}
    assert loaded.isdisjoint((neighbours | others) - besides_skorch)


def test_import_prints_and_changes_nothing():
    code = (
        "import sys, random, warnings, numpy, torch, skorch, sklearn.model_selection\n"
        "def state():\n"
        "    numbers = random.getstate(), repr(numpy.random.get_state()), torch.random.get_rng_state().tolist()\n"
        "    return *numbers, torch.get_num_threads(), torch.get_default_dtype(), list(warnings.filters)\n"
        "before = state()\n"
        "import skae\n"
        "sys.stdout.write('' if state() == before else 'changed')"
    )
    assert run_python(code) == ""


@pytest.mark.parametrize("module", MODULES)
def test_no_assert_no_print(module):
    for node in ast.walk(tree_of(module)):
        assert not isinstance(node, ast.Assert), f"assert in line {node.lineno}"
        is_print = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        assert not is_print, f"print in line {node.lineno}"


@pytest.mark.parametrize("module", MODULES)
def test_functions_are_short(module):
    lines = code_lines(module)
    for node in ast.walk(tree_of(module)):
        # The estimator's __init__ is the list of its parameters.
        if isinstance(node, ast.FunctionDef) and (module, node.name) != ("_autoencoder", "__init__"):
            assert size(node, lines) <= FUNCTION_LINES, f"{node.name} has {size(node, lines)} lines"


@pytest.mark.parametrize("module", MODULES)
def test_classes_are_small(module):
    lines = code_lines(module)
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.ClassDef):
            names = [member.name for member in node.body if isinstance(member, ast.FunctionDef)]
            published = [name for name in names if not name.startswith("_") or name.endswith("__")]
            assert size(node, lines) <= CLASS_LINES, f"{node.name} has {size(node, lines)} lines"
            assert len(published) <= CLASS_METHODS, f"{node.name} has {published}"


@pytest.mark.parametrize("module", MODULES)
def test_modules_are_small(module):
    n_lines = len(FILES[module].read_text().splitlines())
    assert n_lines <= MODULE_LINES.get(module, 400)


def test_estimator_publishes_what_the_contract_names():
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

    from skae import AutoEncoderTransformer

    class Reference(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
        pass

    own = {name for name in dir(AutoEncoderTransformer) if not name.startswith("_")}
    inherited = {name for name in dir(Reference) if not name.startswith("_")}
    methods = {"fit", "partial_fit", "transform", "inverse_transform", "score", "score_samples"}
    routing = {"set_fit_request", "set_partial_fit_request", "set_score_request"}
    assert own - inherited == methods | routing | {"set_callbacks"}
