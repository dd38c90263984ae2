"""What `import skae` brings along and changes, and which names the estimator publishes."""

from helpers import run_python


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
