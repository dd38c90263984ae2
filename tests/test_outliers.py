"""The outlier detector, and that an autoencoder knows only its data."""

import numpy as np
import pytest
from helpers import TINY, curved_rows, noise_rows
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from skae import AutoEncoderOutlierDetector, AutoEncoderTransformer

all_checks = parametrize_with_checks(
    [
        AutoEncoderOutlierDetector(AutoEncoderTransformer(**{**TINY, "n_components": 1})),
        AutoEncoderOutlierDetector(AutoEncoderTransformer(1, max_epochs=0), contamination=0.1),
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
    assert detector.estimator_.n_components == 3
    assert detector.estimator_.random_state == 3
    assert AutoEncoderOutlierDetector(n_components=2, contamination=0.1).fit(X).estimator_.n_components == 2


def test_a_network_that_knows_digits_does_not_know_clothes(data_folder):
    digits, clothes = (np.load(data_folder / f"{name}.npz") for name in ("mnist", "fashion_mnist"))
    train, unseen, other = (part.astype(np.float32) / 255 for part in (
        digits["X_test"][:1000], digits["X_test"][1000:1200], clothes["X_test"][:200]
    ))  # fmt: skip
    model = AutoEncoderTransformer(64, max_epochs=8, refit=False, random_state=0).fit(train)
    scores = np.concatenate([model.score_samples(unseen), model.score_samples(other)])
    assert roc_auc_score(np.repeat([1, 0], 200), scores) > 0.98
