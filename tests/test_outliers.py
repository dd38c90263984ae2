"""The outlier detector, and that an autoencoder knows only its data."""

import pickle

import numpy as np
import pytest
import scipy.sparse
from helpers import TINY, curved_rows, noise_rows
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

from skae import AutoEncoderOutlierDetector, AutoEncoderTransformer

ALONE = {"method": "reconstruction", "random_state": 0}
all_checks = parametrize_with_checks(
    [
        AutoEncoderOutlierDetector(AutoEncoderTransformer(**{**TINY, "n_components": 1})),
        AutoEncoderOutlierDetector(AutoEncoderTransformer(1, max_epochs=0), contamination=0.1),
        AutoEncoderOutlierDetector(GridSearchCV(AutoEncoderTransformer(1, max_epochs=0), {"whiten": [True]}, cv=2)),
        AutoEncoderOutlierDetector(make_pipeline(AutoEncoderTransformer(1, max_epochs=0)), contamination=0.1),
    ]
)


@pytest.mark.parametrize(all_checks.args[0], list(all_checks.args[1]), **all_checks.kwargs)
def test_sklearn_compatible_estimator(estimator, check):
    check(estimator)


def test_scrambled_digits_are_outliers_and_digits_are_not():
    X = load_digits().data
    scrambled = np.random.default_rng(0).permuted(X[1500:], axis=1)
    detector = AutoEncoderOutlierDetector(AutoEncoderTransformer(8, max_epochs=20, random_state=0)).fit(X[:1200])
    assert np.mean(detector.predict(X[1200:1500]) == -1) < 0.05
    assert np.mean(detector.predict(scrambled) == -1) > 0.9
    np.testing.assert_array_equal(detector.decision_function(X), detector.score_samples(X) - detector.offset_)


@pytest.mark.parametrize("contamination", [0.05, 0.2])
def test_contamination_is_the_share_of_outliers_among_the_training_rows(contamination):
    X = curved_rows(200)
    detector = AutoEncoderOutlierDetector(AutoEncoderTransformer(**TINY), contamination=contamination)
    assert np.mean(detector.fit_predict(X) == -1) == pytest.approx(contamination, abs=0.01)


def test_the_bottleneck_is_chosen_and_the_seed_handed_on():
    X = noise_rows(40, 2) @ np.random.RandomState(0).standard_normal((2, 12))  # in a plane there is nothing to train
    detector = AutoEncoderOutlierDetector(contamination=0.1, random_state=3).fit(X)
    assert detector.estimator_.n_components == 6
    assert detector.estimator_.random_state == 3
    alone = AutoEncoderOutlierDetector(contamination=0.1, method="reconstruction").fit(X)
    assert alone.estimator_.n_components == 3
    assert alone.codes_ is alone.n_neighbors_ is None
    assert AutoEncoderOutlierDetector(n_components=2, contamination=0.1).fit(X).estimator_.n_components == 2


def test_a_network_that_knows_digits_does_not_know_clothes(data_folder):
    digits, clothes = (np.load(data_folder / f"{name}.npz") for name in ("mnist", "fashion_mnist"))
    train, unseen, other = (part.astype(np.float32) / 255 for part in (
        digits["X_test"][:1000], digits["X_test"][1000:1200], clothes["X_test"][:200]
    ))  # fmt: skip
    model = AutoEncoderTransformer(64, max_epochs=8, random_state=0).fit(train)
    scores = np.concatenate([model.score_samples(unseen), model.score_samples(other)])
    assert roc_auc_score(np.repeat([1, 0], 200), scores) > 0.98


def exact_rows(offset=0.0, scale=1.0, dtype=np.float64, seed=0, noise=0.0):
    """300 training samples, 500 like them and 500 off the plane: eight features of two variables, without noise."""
    random = np.random.default_rng(seed)
    directions = random.normal(size=(2, 8))
    rows = random.normal(size=(1300, 2)) @ directions + offset
    rows[800:] += 0.3 * random.normal(size=(500, 8))
    rows += noise * random.normal(size=rows.shape)
    return np.split((scale * rows).astype(dtype), [300, 800])


@pytest.mark.parametrize("contamination", ["auto", 0.05])
@pytest.mark.parametrize("n_components", [2, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("offset", "scale"), [(0.0, 1.0), (1e4, 1.0), (0.0, 1e-6), (1e4, 1e6)])
def test_rounding_errors_are_no_evidence(offset, scale, dtype, n_components, contamination):
    train, ordinary, off = exact_rows(offset, scale, dtype)
    autoencoder = AutoEncoderTransformer(n_components, random_state=0)
    detector = AutoEncoderOutlierDetector(autoencoder, contamination=contamination, **ALONE).fit(train)
    assert (detector.predict(ordinary) == 1).all()
    assert (detector.predict(train) == 1).all()
    assert (detector.predict(off) == -1).mean() > 0.99


def test_rounding_is_that_of_the_samples():
    """Samples in single precision are off the plane by the bits that they have lost."""
    train, ordinary, off = exact_rows(1.0)
    detector = AutoEncoderOutlierDetector(n_components=2, **ALONE).fit(train)
    assert (detector.predict(ordinary.astype(np.float32)) == 1).all()
    assert (detector.predict(off.astype(np.float32)) == -1).all()
    detector.fit(train.astype(np.float32))
    assert (detector.predict(ordinary) == 1).all()
    assert (detector.predict(off) == -1).all()


def test_small_noise_is_more_than_rounding():
    train, ordinary, off = exact_rows(noise=1e-9)
    detector = AutoEncoderOutlierDetector(n_components=2, **ALONE).fit(train)
    np.testing.assert_array_equal(detector.score_samples(ordinary), detector.estimator_.score_samples(ordinary))
    assert detector.offset_ < 0
    assert (detector.predict(ordinary) == -1).mean() < 0.02
    assert (detector.predict(off) == -1).all()


@pytest.mark.parametrize(
    "around",
    [
        lambda autoencoder: make_pipeline(StandardScaler(), autoencoder),
        lambda autoencoder: make_pipeline(autoencoder),
        lambda autoencoder: make_pipeline("passthrough", StandardScaler(), make_pipeline(autoencoder)),
        lambda autoencoder: GridSearchCV(autoencoder, {"n_components": [2, 3]}, cv=2),
        lambda autoencoder: GridSearchCV(
            make_pipeline(StandardScaler(), autoencoder), {"autoencodertransformer__n_components": [2, 3]}, cv=2
        ),
    ],
)
def test_around_a_pipeline_or_a_search(around):
    X = load_digits().data[:300]
    detector = AutoEncoderOutlierDetector(around(AutoEncoderTransformer(3, **TINY)), **ALONE).fit(X)
    assert (detector.predict(X) == 1).mean() > 0.9
    assert (detector.predict(-9 * X[:50]) == -1).all()
    np.testing.assert_allclose(detector.score_samples(X), detector.estimator_.score_samples(X))
    assert detector.n_features_in_ == 64
    with pytest.raises(ValueError, match=r"X has 9 features, but \w+ is expecting 64"):
        detector.predict(X[:, :9])
    again = pickle.loads(pickle.dumps(detector))
    np.testing.assert_array_equal(again.predict(X), detector.predict(X))


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exact_relations_in_a_pipeline(dtype, offset):
    train, ordinary, off = exact_rows(offset, dtype=dtype)
    pipeline = make_pipeline(StandardScaler(), AutoEncoderTransformer(2))
    detector = AutoEncoderOutlierDetector(pipeline, **ALONE).fit(train)
    assert (detector.predict(ordinary) == 1).mean() > 0.98
    assert (detector.predict(off) == -1).mean() > 0.99


def test_a_pipeline_gets_frames():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(curved_rows(120), columns=list("abcde")).assign(kind=["x", "y"] * 60)
    columns = make_column_transformer((StandardScaler(), list("abcde")), (OneHotEncoder(), ["kind"]))
    detector = AutoEncoderOutlierDetector(make_pipeline(columns, AutoEncoderTransformer(2, **TINY))).fit(frame)
    assert detector.feature_names_in_.tolist() == [*"abcde", "kind"]
    assert detector.predict(frame.assign(a=-50.0)).tolist() == [-1] * 120


def test_a_pipeline_gets_texts():
    texts = ["one two three", "two three four", "one three four"] * 20
    pipeline = make_pipeline(TfidfVectorizer(), AutoEncoderTransformer(1, **TINY))
    assert AutoEncoderOutlierDetector(pipeline).fit(texts).predict(texts).shape == (60,)


def test_a_pipeline_gets_sparse_matrices():
    X = curved_rows(120)
    pipeline = make_pipeline(StandardScaler(with_mean=False), AutoEncoderTransformer(2, **TINY))
    detector = AutoEncoderOutlierDetector(pipeline, random_state=0)
    assert get_tags(detector).input_tags.sparse
    assert not get_tags(AutoEncoderOutlierDetector(make_pipeline(StandardScaler(), pipeline))).input_tags.sparse
    of_dense = detector.fit(X).score_samples(X)
    sparse = scipy.sparse.csr_array(X)
    np.testing.assert_allclose(detector.fit(sparse).score_samples(sparse), of_dense)


@pytest.mark.parametrize(
    "estimator",
    [
        make_pipeline(SimpleImputer(), AutoEncoderTransformer(2, **TINY)),
        make_pipeline(StandardScaler(), AutoEncoderTransformer(2, allow_nan=True, **TINY)),
        GridSearchCV(AutoEncoderTransformer(allow_nan=True, **TINY), {"n_components": [1, 2]}, cv=2),
    ],
)
def test_a_pipeline_or_a_search_gets_holes(estimator):
    X = curved_rows(120)
    X[::7, 1] = np.nan
    detector = AutoEncoderOutlierDetector(estimator, random_state=0).fit(X)
    assert (detector.predict(X) == 1).mean() > 0.8


@pytest.mark.parametrize(
    "estimator",
    [
        make_pipeline(AutoEncoderTransformer(), StandardScaler()),
        GridSearchCV(AutoEncoderTransformer(), {"n_components": [2, 3]}, refit=False),
        GridSearchCV(StandardScaler(), {"with_mean": [True]}),
        StandardScaler(),
    ],
)
def test_what_gives_no_scores_is_refused(estimator):
    with pytest.raises(TypeError, match=r"(?s)^estimator=\w+\(.* has no score_samples, by which outliers are told"):
        AutoEncoderOutlierDetector(estimator).fit(None)


def test_what_a_pipeline_or_a_search_does_not_take_is_refused():
    X = curved_rows(40)
    pipeline = make_pipeline(StandardScaler(), AutoEncoderTransformer(2, **TINY))
    with pytest.raises(ValueError, match="Cannot center sparse matrices"):
        AutoEncoderOutlierDetector(pipeline).fit(scipy.sparse.csr_array(X))
    with pytest.raises(ValueError, match=r"X has 1 sample\(s\), but AutoEncoderOutlierDetector needs at least 2"):
        AutoEncoderOutlierDetector(pipeline).fit(X[:1])
    X[3, 1] = np.nan
    with pytest.raises(ValueError, match="AutoEncoderTransformer does not accept missing values"):
        AutoEncoderOutlierDetector(pipeline).fit(X)
    with pytest.raises(ValueError, match="AutoEncoderOutlierDetector does not accept missing values"):
        AutoEncoderOutlierDetector(GridSearchCV(AutoEncoderTransformer(), {"n_components": [1, 2]})).fit(X)


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_copies_do_not_lower_the_threshold(noise):
    """Five copies of each sample: fresh ordinary samples stay ordinary."""
    random = np.random.default_rng(0)
    mix = random.normal(size=(3, 20))

    def draw(n_samples):
        return random.normal(size=(n_samples, 3)) @ mix + random.normal(size=(n_samples, 20))

    X = np.repeat(draw(100), 5, axis=0)
    X = X + noise * X.std(axis=0) * random.normal(size=X.shape)
    autoencoder = AutoEncoderTransformer(3, hidden_layer_sizes=(32, 16), max_epochs=40, random_state=0)
    detector = AutoEncoderOutlierDetector(autoencoder, random_state=0).fit(X)
    assert np.mean(detector.predict(draw(1000)) == -1) < 0.05


# Neighbors


def distances(X, detector):
    """Mean squared distances from all reconstructions that are kept, in ascending order."""
    kept = detector.estimator_.inverse_transform(detector.codes_)
    return np.sort(np.nanmean(np.square(X[:, np.newaxis] - kept), axis=2), axis=1)


@pytest.mark.parametrize(
    ("parameters", "n_neighbors"), [({}, 3), ({"contamination": 0.1}, 64), ({"n_neighbors": 7}, 7)]
)
def test_scores_are_distances_from_the_nearest_reconstructions(parameters, n_neighbors):
    X, fresh = curved_rows(300), curved_rows(50, seed=1)
    detector = AutoEncoderOutlierDetector(AutoEncoderTransformer(2, **TINY), random_state=0, **parameters).fit(X)
    assert detector.n_neighbors_ == n_neighbors
    np.testing.assert_allclose(detector.codes_, detector.estimator_.transform(X), atol=1e-12)
    expected = distances(fresh, detector)[:, :n_neighbors].mean(axis=1)
    np.testing.assert_allclose(-detector.score_samples(fresh), expected, rtol=1e-9)


def test_some_codes_of_many_samples_are_kept():
    X = np.tile(curved_rows(300), (10, 1))
    detector = AutoEncoderOutlierDetector(AutoEncoderTransformer(2, max_epochs=0), contamination=0.5).fit(X)
    assert detector.codes_.shape == (2048, 2)
    few = AutoEncoderOutlierDetector(AutoEncoderTransformer(1, max_epochs=0), contamination=0.5).fit(X[:5])
    assert few.n_neighbors_ == 2


def test_what_is_well_reconstructed_far_from_all_samples_is_an_outlier():
    """Samples on a ring: its center lies in the plane of both components."""
    angles = np.random.RandomState(0).uniform(0, 2 * np.pi, 400)
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1) @ np.random.RandomState(1).standard_normal((2, 6))
    autoencoder, center = AutoEncoderTransformer(2, max_epochs=0), np.zeros((1, 6))
    labels = {
        method: AutoEncoderOutlierDetector(autoencoder, method=method, random_state=0).fit(ring).predict(center)[0]
        for method in ("neighbors", "reconstruction")
    }
    assert labels == {"neighbors": -1, "reconstruction": 1}


def test_distances_by_values_that_are_present():
    X = np.where(np.random.RandomState(0).uniform(size=(200, 5)) < 0.2, np.nan, curved_rows(200))
    X[3] = np.nan
    detector = AutoEncoderOutlierDetector(AutoEncoderTransformer(2, **TINY, allow_nan=True), random_state=0).fit(X)
    scores, fresh = detector.score_samples(X), np.delete(X, 3, axis=0)
    expected = distances(fresh, detector)[:, :3].mean(axis=1)
    np.testing.assert_allclose(-np.delete(scores, 3), expected, rtol=1e-9)
    assert scores[3] == 0.0


def test_many_samples_at_a_time():
    """Samples are scored in parts, with the same results."""
    detector = AutoEncoderOutlierDetector(AutoEncoderTransformer(2, max_epochs=0), random_state=0).fit(
        curved_rows(2000)
    )
    X = curved_rows(2500, seed=1)
    parts = [detector.score_samples(part) for part in np.array_split(X, 50)]
    np.testing.assert_allclose(detector.score_samples(X), np.concatenate(parts), rtol=1e-9)


def test_distances_that_overflow_are_refused():
    detector = AutoEncoderOutlierDetector(AutoEncoderTransformer(2, max_epochs=0), random_state=0).fit(curved_rows())
    with pytest.raises(ValueError, match="X is too large: squared differences of sample 1 overflow float64"):
        detector.score_samples(curved_rows(3) * [[1.0], [1e200], [1.0]])


# The error of each feature


@pytest.mark.parametrize("method", ["neighbors", "reconstruction"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "around",
    [
        lambda autoencoder: autoencoder,
        lambda autoencoder: make_pipeline(StandardScaler(), autoencoder),
        lambda autoencoder: GridSearchCV(autoencoder, {"n_components": [1, 2]}, cv=2),
    ],
    ids=["autoencoder", "pipeline", "search"],
)
def test_mean_of_the_errors_is_the_score(around, dtype, method):
    X, autoencoder = curved_rows().astype(dtype), AutoEncoderTransformer(2, **TINY, loss="huber")
    detector = AutoEncoderOutlierDetector(around(autoencoder), method=method, random_state=0)
    errors = detector.fit(X).reconstruction_errors(X)
    assert errors.shape == X.shape
    assert errors.dtype == np.float64
    np.testing.assert_allclose(errors.mean(axis=1), -detector.score_samples(X), rtol=1e-9)


def test_errors_are_squared_differences_of_sparse_rows_too():
    X = curved_rows()
    detector = AutoEncoderOutlierDetector(AutoEncoderTransformer(2, **TINY), **ALONE).fit(X)
    autoencoder = detector.estimator_
    expected = np.square(X - autoencoder.inverse_transform(autoencoder.transform(X)))
    np.testing.assert_allclose(detector.reconstruction_errors(X), expected, atol=1e-12)
    sparse = scipy.sparse.csr_array(X)
    np.testing.assert_array_equal(detector.reconstruction_errors(sparse), detector.reconstruction_errors(X))


def test_error_is_that_of_the_feature_that_is_wrong():
    random = np.random.RandomState(0)
    measured_four_times = np.repeat(random.normal(size=(500, 2)), 4, axis=1)
    X = measured_four_times + 0.1 * random.normal(size=(500, 8))
    detector = AutoEncoderOutlierDetector(n_components=2, random_state=0).fit(X)
    for feature in range(8):
        wrong = X.copy()
        wrong[:, feature] += 10.0
        assert (detector.reconstruction_errors(wrong).argmax(axis=1) == feature).all()


def test_errors_of_missing_values_are_missing():
    X = curved_rows()
    holes = np.where(np.random.RandomState(0).uniform(size=X.shape) < 0.2, np.nan, X)
    holes[0] = np.nan
    detector = AutoEncoderOutlierDetector(AutoEncoderTransformer(2, **TINY, allow_nan=True), random_state=0).fit(holes)
    errors = detector.reconstruction_errors(holes)
    np.testing.assert_array_equal(np.isnan(errors), np.isnan(holes))
    np.testing.assert_allclose(np.nanmean(errors[1:], axis=1), -detector.score_samples(holes)[1:], rtol=1e-9)


def test_rounding_errors_of_features_are_zero_as_those_of_scores():
    train, ordinary, off = exact_rows(1.0)
    detector = AutoEncoderOutlierDetector(n_components=2, **ALONE).fit(train)
    assert (detector.reconstruction_errors(ordinary) == 0).all()
    assert (detector.reconstruction_errors(off) > 0).all()


def test_estimators_without_reconstructions_have_no_errors():
    X = curved_rows()
    detector = AutoEncoderOutlierDetector(PCA(2), random_state=0).fit(X)
    with pytest.raises(TypeError, match=r"PCA\(n_components=2\) scores samples by other means"):
        detector.reconstruction_errors(X)
