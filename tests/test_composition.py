"""Real use inside scikit-learn: pipelines, searches, unions, containers, files."""

import io
import pickle

import joblib
import numpy as np
import pytest
from helpers import TINY, TRAINED, curved_rows, run_python
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.datasets import load_iris, make_circles
from sklearn.decomposition import PCA
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LinearRegression, LogisticRegression, Perceptron
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, cross_val_score
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skae import AutoEncoderTransformer


@pytest.fixture(scope="module")
def iris():
    """Samples, and the names of the species as labels."""
    X, y = load_iris(return_X_y=True)
    return X, np.array(["setosa", "versicolor", "virginica"])[y]


def classifying(**parameters):
    """The pipeline of the issue."""
    return Pipeline(
        [
            ("scale", StandardScaler()),
            ("codes", AutoEncoderTransformer(2, **{**TINY, **parameters})),
            ("classify", LogisticRegression()),
        ]
    )


class TestPipelines:
    def test_string_labels(self, iris):
        X, y = iris
        pipeline = classifying().fit(X, y)
        assert pipeline.score(X, y) > 0.85
        assert set(pipeline.predict(X)) == set(y)

    def test_inverse_transform(self, iris):
        X, _ = iris
        pipeline = make_pipeline(StandardScaler(), AutoEncoderTransformer(2, **TRAINED)).fit(X)
        reconstruction = pipeline.inverse_transform(pipeline.transform(X))
        step = pipeline[-1]
        scaled = pipeline[0].transform(X)
        np.testing.assert_allclose(
            pipeline[0].transform(reconstruction), step.inverse_transform(step.transform(scaled)), atol=1e-10
        )
        assert np.square(X - reconstruction).mean() < 0.1 * X.var()

    def test_memory(self, iris, tmp_path):
        X, y = iris
        pipeline = make_pipeline(
            StandardScaler(), AutoEncoderTransformer(2, **TRAINED), LogisticRegression(), memory=str(tmp_path)
        )
        first = clone(pipeline).fit(X, y)
        assert list(tmp_path.rglob("output.pkl"))
        second = clone(pipeline).fit(X, y)  # its codes come out of the file
        np.testing.assert_array_equal(second.predict_proba(X), first.predict_proba(X))
        np.testing.assert_array_equal(second[:-1].transform(X), first[:-1].transform(X))

    def test_feature_union(self, iris):
        X, _ = iris
        union = FeatureUnion([("pca", PCA(2)), ("codes", AutoEncoderTransformer(2, **TINY))]).fit(X)
        codes = union.transform(X)
        assert codes.shape == (150, 4)
        np.testing.assert_array_equal(codes[:, 2:], union["codes"].transform(X))
        assert list(union.get_feature_names_out())[2:] == [
            "codes__autoencodertransformer0",
            "codes__autoencodertransformer1",
        ]

    def test_column_transformer(self, iris):
        pandas = pytest.importorskip("pandas")
        X, y = iris
        frame = pandas.DataFrame(X, columns=list("abcd")).assign(species=y)
        columns = ColumnTransformer(
            [("codes", AutoEncoderTransformer(2, **TINY), list("abcd")), ("species", OneHotEncoder(), ["species"])]
        )
        expected = AutoEncoderTransformer(2, **TINY).fit(frame[list("abcd")]).transform(frame[list("abcd")])
        np.testing.assert_allclose(columns.fit_transform(frame)[:, :2], expected, rtol=1e-10)
        assert columns.get_feature_names_out()[0] == "codes__autoencodertransformer0"

    def test_clone(self, curved):
        estimator = AutoEncoderTransformer(2, **TRAINED, decoder_layer_sizes=[3], callbacks=[], device="cpu")
        copy = clone(estimator.fit(curved))
        assert not hasattr(copy, "net_")
        assert copy.get_params() == estimator.get_params()
        np.testing.assert_array_equal(copy.fit(curved).transform(curved), estimator.transform(curved))

    @pytest.mark.parametrize("container", ["pandas", "polars"])
    def test_set_output(self, container, curved):
        module = pytest.importorskip(container)
        names = list("abcde")
        frame = module.DataFrame({name: curved[:, index] for index, name in enumerate(names)})
        plain = AutoEncoderTransformer(2, **TRAINED).fit(frame)
        codes = clone(plain).set_output(transform=container).fit_transform(frame)
        assert isinstance(codes, module.DataFrame)
        assert list(codes.columns) == ["autoencodertransformer0", "autoencodertransformer1"]
        np.testing.assert_array_equal(codes.to_numpy(), plain.transform(frame))
        np.testing.assert_array_equal(plain.inverse_transform(codes), plain.inverse_transform(codes.to_numpy()))
        if container == "pandas":
            shuffled = clone(plain).set_output(transform="pandas").fit(frame).transform(frame[::-2])
            assert list(shuffled.index) == list(frame.index[::-2])

    def test_transformed_target(self):
        X = curved_rows(100)
        regressor = TransformedTargetRegressor(
            LinearRegression(), transformer=AutoEncoderTransformer(2, **TINY), check_inverse=False
        )
        assert regressor.fit(X[:, :2], X).predict(X[:, :2]).shape == X.shape
        assert regressor.score(X[:, :2], X) > 0.4


class TestSearches:
    def test_over_the_bottleneck_without_a_scorer(self):
        search = GridSearchCV(AutoEncoderTransformer(**TINY), {"n_components": [1, 2, 4]}, cv=3)
        search.fit(curved_rows(90))
        assert search.best_params_ == {"n_components": 4}
        assert (np.diff(search.cv_results_["mean_test_score"]) > 0).all()
        assert search.best_estimator_.transform(curved_rows(3)).shape == (3, 4)

    def test_with_a_classifier_behind(self, iris):
        search = GridSearchCV(classifying(), {"codes__n_components": [1, 2, 3]}, cv=3).fit(*iris)
        assert search.best_score_ > 0.85
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()

    def test_processes_and_none_agree(self):
        searches = [
            GridSearchCV(AutoEncoderTransformer(**TRAINED), {"n_components": [1, 2]}, cv=3, n_jobs=n_jobs)
            for n_jobs in (1, 2)
        ]
        alone, together = (search.fit(curved_rows(90)).cv_results_["mean_test_score"] for search in searches)
        np.testing.assert_array_equal(alone, together)

    def test_over_the_parameters_of_training(self):
        grid = {
            "hidden_layer_sizes": ["auto", 4, (4, 3)],
            "activation": ["tanh", "identity"],
            "whiten": [True, False],
            "max_epochs": [1],
        }
        search = GridSearchCV(AutoEncoderTransformer(), grid, cv=2, error_score="raise").fit(curved_rows(40))
        assert len(search.cv_results_["params"]) == 12

    def test_halving_over_epochs(self):
        search = HalvingGridSearchCV(
            AutoEncoderTransformer(hidden_layer_sizes=8, random_state=0),
            {"n_components": [1, 2, 3, 4]},
            resource="max_epochs",
            min_resources=1,
            max_resources=4,
            factor=2,
            cv=2,
            random_state=0,
        ).fit(curved_rows(60))
        assert search.best_params_ == {"n_components": 4, "max_epochs": 4}
        assert list(search.n_resources_) == [1, 2, 4]

    def test_cross_val_score(self, iris):
        scores = cross_val_score(AutoEncoderTransformer(2, **TINY), iris[0], cv=5)
        assert scores.shape == (5,)
        assert cross_val_score(classifying(), *iris, cv=3).mean() > 0.85

    def test_concentric_circles(self):
        """KernelPCA's classic proof: a linear classifier separates the codes of rings, given the kernel's columns.

        Of the two columns alone two codes already keep everything, and nothing rewards codes that separate rings.
        """
        X, y = make_circles(n_samples=400, factor=0.3, noise=0.05, random_state=0)
        assert Perceptron(max_iter=5, tol=None).fit(X, y).score(X, y) < 0.8
        pipeline = Pipeline(
            [
                ("kernel", Nystroem(n_components=50, random_state=0)),
                ("codes", AutoEncoderTransformer(2, batch_size=32, random_state=0)),
                ("scale", StandardScaler()),
                ("classify", LogisticRegression(C=1000.0)),
            ]
        )
        search = GridSearchCV(pipeline, {"kernel__gamma": [0.5, 2.0]}, cv=3).fit(X, y)
        assert search.best_score_ > 0.98
        assert search.score(X, y) > 0.98
        best, features = search.best_estimator_["codes"], search.best_estimator_["kernel"].transform(X)
        assert best.best_epoch_ > 0
        assert best.score(features) > PCA(2).fit(features).explained_variance_ratio_.sum() + 0.2


LOAD = """
import sys, joblib, pickle, numpy
model, rows, result = sys.argv[1:]
if model.endswith("pickle"):
    with open(model, "rb") as file:
        estimator = pickle.load(file)
else:
    estimator = joblib.load(model)
X = numpy.load(rows)
codes = estimator.transform(X)
numpy.savez(result, codes=codes, reconstruction=estimator.inverse_transform(codes), score=estimator.score(X))
"""


class RecordingUnpickler(pickle.Unpickler):
    """Notes from which modules a file takes its classes and functions."""

    def __init__(self, file):
        super().__init__(file)
        self.modules = set()

    def find_class(self, module, name):
        self.modules.add(module)
        return super().find_class(module, name)


class TestFiles:
    @pytest.mark.parametrize("how", ["pickle", "joblib"])
    def test_round_trip_to_a_new_process(self, how, curved, tmp_path):
        estimator = AutoEncoderTransformer(2, **TRAINED).fit(curved)
        model, rows, result = tmp_path / f"model.{how}", tmp_path / "rows.npy", tmp_path / "result.npz"
        if how == "pickle":
            model.write_bytes(pickle.dumps(estimator))
        else:
            joblib.dump(estimator, model)
        np.save(rows, curved)
        run_python(LOAD, model, rows, result)
        codes = estimator.transform(curved)
        with np.load(result) as there:
            np.testing.assert_array_equal(there["codes"], codes)
            np.testing.assert_array_equal(there["reconstruction"], estimator.inverse_transform(codes))
            assert there["score"] == estimator.score(curved)

    @pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
    @pytest.mark.parametrize("parameters", [TRAINED, {**TINY, "linear_skip": False}, {"activation": "identity"}])
    def test_everything_survives(self, protocol, parameters, curved):
        estimator = AutoEncoderTransformer(2, **parameters).fit(curved)
        copy = pickle.loads(pickle.dumps(estimator, protocol))
        assert copy.get_params() == estimator.get_params()
        assert set(vars(copy)) == set(vars(estimator))
        for name in ("n_iter_", "best_epoch_", "loss_curve_", "validation_scores_", "n_components_", "n_features_in_"):
            assert getattr(copy, name) == getattr(estimator, name)
        assert str(copy.device_) == str(estimator.device_)
        assert list(copy.net_.history) == list(estimator.net_.history)
        assert not copy.net_.module_.training
        np.testing.assert_array_equal(copy.transform(curved), estimator.transform(curved))

    def test_a_file_of_a_file(self, curved):
        estimator = AutoEncoderTransformer(2, **TRAINED).fit(curved)
        once = pickle.loads(pickle.dumps(estimator))
        twice = pickle.loads(pickle.dumps(once))
        np.testing.assert_array_equal(twice.transform(curved), estimator.transform(curved))
        assert len(pickle.dumps(twice)) == len(pickle.dumps(once))

    @pytest.mark.parametrize("parameters", [TRAINED, TINY, {"activation": "identity"}])
    def test_the_file_is_plain(self, parameters, curved):
        """Parameters, numbers, lists and numpy arrays: nothing of torch or skorch."""
        file = io.BytesIO(pickle.dumps(AutoEncoderTransformer(2, **parameters).fit(curved)))
        unpickler = RecordingUnpickler(file)
        unpickler.load()
        assert {module.split(".")[0] for module in unpickler.modules} <= {"numpy", "skae", "builtins", "collections"}
        assert "numpy" in {module.split(".")[0] for module in unpickler.modules}

    def test_an_unfitted_estimator(self):
        assert not hasattr(pickle.loads(pickle.dumps(AutoEncoderTransformer(3))), "net_")

    @pytest.mark.parametrize("device", ["cuda:7", "mps:3"])
    def test_a_device_that_is_missing_here(self, device, curved):
        """A model that was fitted elsewhere comes back on the processor."""
        estimator = AutoEncoderTransformer(2, **TRAINED).fit(curved)
        codes = estimator.transform(curved)
        estimator.device_ = device
        copy = pickle.loads(pickle.dumps(estimator))
        assert str(copy.device_) == "cpu"
        np.testing.assert_array_equal(copy.transform(curved), codes)

    def test_training_goes_on_after_a_round_trip(self, curved):
        estimator = AutoEncoderTransformer(2, **TRAINED, warm_start=True).fit(curved)
        copy = pickle.loads(pickle.dumps(estimator))
        np.testing.assert_array_equal(copy.fit(curved).transform(curved), estimator.fit(curved).transform(curved))
