"""Samples that count more or less than others."""

import numpy as np
import pytest
import scipy.sparse
import sklearn
from helpers import curved_rows, noise_rows
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, ShuffleSplit
from sklearn.pipeline import make_pipeline

from skae import AutoEncoderTransformer
from skae._data.containers import as_samples
from skae._data.sample import MOST_REPETITIONS, Sample, weighted_sample
from skae._pca import exact
from skae._pca.exact import principal_components

# So few epochs do not order the codes.
SHORT = {"n_components": 2, "max_epochs": 8, "hidden_layer_sizes": 16, "random_state": 0, "ordered": False}


@pytest.fixture(scope="module")
def rows():
    return curved_rows(300)


@pytest.fixture(scope="module")
def weights():
    return np.random.RandomState(0).uniform(0.1, 4.0, 300)


def fitted(X, weights=None, **parameters):
    return AutoEncoderTransformer(**{**SHORT, **parameters}).fit(X, sample_weight=weights)


@pytest.mark.parametrize(
    "parameters",
    [{}, {"early_stopping": False, "optimizer": "lbfgs"}, {"linear_skip": False}, {"regularizer": "variational"}],
    ids=["defaults", "full_batch", "no_skip", "variational"],
)
def test_whole_numbers_are_repetitions(parameters, rows):
    """To the last bit, in whatever order the rows come."""
    random = np.random.RandomState(0)
    counts, order = random.randint(0, 4, len(rows)), random.permutation(len(rows))
    repeated = fitted(np.repeat(rows, counts, axis=0), **parameters)
    weighted = fitted(rows[order], counts[order], **parameters)
    assert repeated.best_epoch_ > 0
    assert_array_equal(repeated.transform(rows), weighted.transform(rows))
    assert repeated.validation_scores_ == weighted.validation_scores_


def test_order_of_rows_does_not_matter(rows):
    assert_array_equal(fitted(rows).transform(rows), fitted(rows[::-1]).transform(rows))


def test_rows_of_no_weight_are_not_looked_at(rows):
    wild = np.vstack([np.full((1, 5), 1e6), rows])
    ignored = fitted(wild, np.r_[0.0, np.ones(len(rows))])
    assert_array_equal(fitted(rows).transform(rows), ignored.transform(rows))


def test_only_relations_of_other_weights_count(rows, weights):
    first, second = fitted(rows, weights), fitted(rows, 1024.0 * weights)
    assert first.best_epoch_ > 0
    assert_array_equal(first.transform(rows), second.transform(rows))
    assert_array_equal(fitted(rows, np.full(300, 0.3)).transform(rows), fitted(rows).transform(rows))


def test_large_whole_numbers_are_relative():
    X = np.zeros((2, 1))
    assert weighted_sample(X, np.array([1.0, 2.0 * MOST_REPETITIONS - 1.0])).total == 2 * MOST_REPETITIONS
    assert weighted_sample(X, np.array([1000.0, 3000.0])).weights.tolist() == [0.5, 1.5]
    assert weighted_sample(X, np.array([1e300, 1e300])).weights is None


@pytest.mark.parametrize("shape", [(90, 7), (9, 40)], ids=["tall", "wide"])
@pytest.mark.parametrize("way", ["exact", "gram", "iterated"])
def test_directions_of_weighted_rows(way, shape, monkeypatch):
    monkeypatch.setattr(exact, "EXACT_SIZE", 2_000_000 if way == "exact" else 0)
    monkeypatch.setattr(exact, "CHUNK_VALUES", 50)
    monkeypatch.setattr(exact, "ITERATED_SIDE", 0)
    monkeypatch.setattr(exact, "ITERATED_RATIO", 1.0)
    X, weights = noise_rows(*shape), np.random.RandomState(0).uniform(0.1, 4.0, shape[0])
    sample = weighted_sample(as_samples(scipy.sparse.csr_array(X)) if way == "iterated" else X, weights)
    found = principal_components(sample, 3)
    mean = np.average(X, axis=0, weights=weights)
    rooted = (X - mean) * np.sqrt(weights / weights.mean())[:, None]
    _, singular, directions = np.linalg.svd(rooted, full_matrices=False)
    assert_allclose(found.mean, mean)
    assert_allclose(found.feature_std, np.sqrt(np.square(rooted).mean(axis=0)))
    assert_allclose(np.abs((found.components * directions[:3]).sum(axis=1)), 1.0)
    assert_allclose(found.explained_variance, np.square(singular[:3]) / (len(X) - 1))


def test_heavy_rows_are_reconstructed_better():
    """Two surfaces, one network too small for both: the heavier one wins, on rows that neither fit has seen."""
    first, second = curved_rows(400), curved_rows(400, seed=1)[:, ::-1]
    X, heavy = np.vstack([first[:300], second[:300]]), np.repeat([3.7, 0.2], 300)
    one, other = fitted(X, heavy, n_components=1, max_epochs=30), fitted(X, heavy[::-1], n_components=1, max_epochs=30)
    for surface, better, worse in [(first[300:], one, other), (second[300:], other, one)]:
        assert better.score_samples(surface).mean() > 0.75 * worse.score_samples(surface).mean()


def test_training_rows_are_not_reconstructed_worse_than_by_pca(rows, weights):
    trained = fitted(rows, weights, early_stopping=False)
    pca = fitted(rows, weights, max_epochs=0)
    assert trained.score(rows, sample_weight=weights) > pca.score(rows, sample_weight=weights)


def test_score_is_weighted(rows, weights):
    autoencoder = fitted(rows, max_epochs=1)
    errors = np.square(rows - autoencoder.inverse_transform(autoencoder.transform(rows))).sum(axis=1)
    offsets = np.square(rows - autoencoder.mean_).sum(axis=1)
    expected = 1.0 - (weights @ errors) / (weights @ offsets)
    assert autoencoder.score(rows, sample_weight=weights) == pytest.approx(expected)
    assert autoencoder.score(rows, sample_weight=np.ones(300)) == pytest.approx(autoencoder.score(rows))


def test_held_out_losses_are_weighted(rows, weights):
    """What skorch's callbacks see, without a projection, is what the choice of the epoch goes by."""
    one_set = ShuffleSplit(1, test_size=0.2, random_state=0)
    parameters = {"batch_size": 16, "max_epochs": 60, "tol": 0.0, "projection_steps": 0, "validation_split": one_set}
    autoencoder = fitted(rows, weights * (np.arange(300) % 2 + 0.01), **parameters)
    compared = np.array(autoencoder.validation_epochs_[1:]) - 1
    assert len(compared) > 1
    losses = np.array([epoch["valid_loss"] for epoch in autoencoder.net_.history])[compared]
    saved = 1.0 - np.array(autoencoder.validation_scores_[1:])
    assert_allclose(losses / losses[0], saved / saved[0], rtol=1e-5)


def test_whitened_codes_have_unit_weighted_variance(rows, weights):
    codes = fitted(rows, weights, whiten=True).transform(rows)
    relative = weights / weights.mean()
    centered = codes - np.average(codes, axis=0, weights=weights)
    assert_allclose(relative @ np.square(centered) / (len(rows) - 1), 1.0, rtol=1e-6)


def test_missing_values_and_weights(rows, weights):
    holes = np.where(np.random.RandomState(0).uniform(size=rows.shape) < 0.2, np.nan, rows)
    counts = np.random.RandomState(1).randint(0, 3, len(rows))
    repeated = fitted(np.repeat(holes, counts, axis=0), allow_nan=True)
    weighted = fitted(holes, counts, allow_nan=True)
    assert_array_equal(repeated.transform(holes), weighted.transform(holes))
    assert np.isfinite(fitted(holes, weights, allow_nan=True).transform(holes)).all()


def test_routing_through_pipeline_and_search(rows, weights):
    y = (rows[:, 2] > 0.3).astype(int)
    with sklearn.config_context(enable_metadata_routing=True):
        autoencoder = AutoEncoderTransformer(**SHORT).set_fit_request(sample_weight=True)
        pipeline = make_pipeline(autoencoder, LogisticRegression().set_fit_request(sample_weight=False))
        pipeline.fit(rows, y, sample_weight=weights)
        scored = autoencoder.set_score_request(sample_weight=True)
        search = GridSearchCV(scored, {"n_components": [1, 3]}, cv=2).fit(rows, sample_weight=weights)
    assert_array_equal(pipeline[0].transform(rows), fitted(rows, weights).transform(rows))
    assert search.best_params_ == {"n_components": 3}
    half = fitted(rows[150:], weights[150:], n_components=3)
    assert search.cv_results_["split0_test_score"][1] == half.score(rows[:150], sample_weight=weights[:150])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.zeros(300), "at least one non-zero"),
        (np.r_[-1.0, np.ones(299)], "[Nn]egative"),
        (np.ones(299), r"sample_weight.shape == \(299,\), expected \(300,\)"),
        (np.r_[np.nan, np.ones(299)], "sample_weight contains NaN"),
        (np.r_[1.0, np.zeros(299)], "n_components=2 must be between 1 and min"),
    ],
    ids=["nothing", "negative", "too_few", "nan", "one_row"],
)
def test_bad_weights_are_refused(weights, message, rows):
    with pytest.raises(ValueError, match=message):
        fitted(rows, weights)


def test_sample_knows_its_rows():
    sample = Sample(np.arange(6.0).reshape(3, 2), np.array([2, 0, 0]))
    assert_array_equal(sample.take(np.array([1, 0]))[:], [[0.0, 1.0], [4.0, 5.0]])
    assert sample.shape == (3, 2)
