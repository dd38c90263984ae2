"""Codes that keep the neighbors of samples."""

import numpy as np
import pytest
from helpers import SMALL
from scipy.sparse import csr_array
from sklearn.datasets import load_digits
from sklearn.manifold import trustworthiness
from sklearn.model_selection import train_test_split

from skae import AutoEncoderTransformer, Neighbors

X = load_digits().data
TRAIN, TEST = train_test_split(X, random_state=0)


def test_two_codes_keep_neighbors_and_reconstruct():
    """Those who are close stay close (continuity), and those who come close were close (trustworthiness)."""
    pca, plain, keeping = (
        AutoEncoderTransformer(2, random_state=0, **parameters).fit(TRAIN)
        for parameters in ({"max_epochs": 0}, {}, {"regularizer": "neighbors"})
    )
    codes = [one.transform(TEST) for one in (pca, plain, keeping)]
    of_pca, of_plain, trust = (trustworthiness(TEST, Z, n_neighbors=10) for Z in codes)
    assert trust > max(of_pca + 0.1, of_plain - 0.005)
    of_pca, of_plain, continuity = (trustworthiness(Z, TEST, n_neighbors=10) for Z in codes)
    assert continuity > max(of_pca + 0.02, of_plain + 0.005)
    assert keeping.score(TEST) > plain.score(TEST) - 0.07


def test_fits_are_repeatable_and_follow_the_seed():
    codes = [
        AutoEncoderTransformer(
            2, regularizer="neighbors", random_state=seed, early_stopping=False, **SMALL
        ).fit_transform(X[:100])
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(codes[0], codes[1])
    assert not np.array_equal(codes[0], codes[2])


def test_containers_metrics_weights_and_missing_values():
    build = {"regularizer": "neighbors", "random_state": 0, "early_stopping": False, **SMALL}
    dense = AutoEncoderTransformer(2, **build).fit_transform(X[:100])
    sparse = AutoEncoderTransformer(2, **build).fit_transform(csr_array(X[:100]))  # distances are rounded differently
    assert trustworthiness(X[:100], sparse) == pytest.approx(trustworthiness(X[:100], dense), abs=0.05)
    missing = np.where(np.random.RandomState(0).uniform(size=(100, 64)) < 0.1, np.nan, X[:100])
    assert np.isfinite(AutoEncoderTransformer(2, **build, allow_nan=True).fit_transform(missing)).all()
    cosine = AutoEncoderTransformer(2, **{**build, "regularizer": Neighbors(metric="cosine")}).fit_transform(X[:100])
    assert not np.allclose(cosine, dense)
    weighted = AutoEncoderTransformer(2, **build).fit(X[:100], sample_weight=np.arange(100.0))
    assert np.isfinite(weighted.transform(X)).all()


def test_samples_that_are_validated_elsewhere_have_no_positions():
    estimator = AutoEncoderTransformer(2, regularizer="neighbors", validation_split=X[100:150], random_state=0, **SMALL)
    assert np.isfinite(estimator.fit(X[:100]).validation_scores_).all()


@pytest.mark.parametrize("n_components", [0.5, "auto"])
def test_the_number_of_codes_must_be_given(n_components):
    with pytest.raises(ValueError, match="int as n_components"):
        AutoEncoderTransformer(n_components, regularizer="neighbors").fit(X[:100])


@pytest.mark.parametrize("parameter, value", [("strength", -1.0), ("n_neighbors", 1)])
def test_parameters(parameter, value):
    with pytest.raises(ValueError, match=parameter):
        AutoEncoderTransformer(2, regularizer=Neighbors(**{parameter: value})).fit(X[:100])
