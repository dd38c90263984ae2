"""Streams whose samples change: `partial_fit` forgets, and codes stay comparable."""

import pickle

import numpy as np
import pytest
from helpers import curved_rows

from skae import AutoEncoderTransformer

PARAMETERS = {"hidden_layer_sizes": 16, "random_state": 0}


def stream(estimator, chunks):
    for chunk in chunks:
        estimator.partial_fit(chunk)
    return estimator


def turned(angle, n_samples=200, seed=0):
    """Samples of three features whose first two components turn."""
    codes = np.random.RandomState(seed).standard_normal((n_samples, 3)) * [3.0, 1.0, 0.3]
    cosine, sine = np.cos(angle), np.sin(angle)
    return codes @ np.array([[cosine, sine, 0.0], [-sine, cosine, 0.0], [0.0, 0.0, 1.0]])


@pytest.mark.parametrize("max_epochs", [0, "auto"])
def test_what_was_before_is_forgotten(max_epochs):
    chunks = [curved_rows(200, seed) for seed in range(5)] + [curved_rows(200, seed)[:, ::-1] + 3 for seed in range(8)]
    recent = curved_rows(500, 99)[:, ::-1] + 3
    keeping, forgetting = (
        stream(AutoEncoderTransformer(2, max_epochs=max_epochs, forgetting=half_life, **PARAMETERS), chunks)
        for half_life in (None, 200)
    )
    errors = [-estimator.score_samples(recent).mean() for estimator in (keeping, forgetting)]
    assert errors[1] < 0.9 * errors[0]


def test_the_half_life_is_that_of_the_mean():
    estimator = AutoEncoderTransformer(1, max_epochs=0, forgetting=100, early_stopping=False, random_state=0)
    stream(estimator, [np.zeros((400, 3)) + [[0.1], [-0.1]] * 200, np.ones((100, 3)) + [[0.1], [-0.1]] * 50])
    # The weight of 400 zeros, each after the others, is halved by 100 ones.
    np.testing.assert_allclose(estimator.mean_, 100 / (400 / 2 + 100), rtol=1e-6)


def test_codes_of_one_update_are_those_of_the_last_nearly():
    """Components turn by half a circle, past the point where the sign of PCA's changes; codes turn little at a time."""
    estimator, fixed = AutoEncoderTransformer(2, max_epochs=0, forgetting=100, random_state=0), turned(0.7, 500, seed=1)
    before, jumps = None, []
    for number, angle in enumerate(np.linspace(0.0, np.pi, 40)):
        codes = estimator.partial_fit(turned(angle, seed=number)).transform(fixed)
        if before is not None:
            jumps.append(np.linalg.norm(codes - before) / np.linalg.norm(codes))
        before = codes
    assert max(jumps) < 0.3


def test_a_network_stays_comparable():
    estimator, fixed = AutoEncoderTransformer(2, forgetting=500, **PARAMETERS), curved_rows(300, seed=99)
    stream(estimator, (curved_rows(200, seed) for seed in range(15)))
    for seed in range(20, 26):
        before = estimator.transform(fixed)
        after = estimator.partial_fit(curved_rows(200, seed)).transform(fixed)
        assert estimator.best_epoch_ > 0
        correlations = [np.corrcoef(*pair)[0, 1] for pair in zip(before.T, after.T, strict=True)]
        assert min(correlations) > 0.9


def test_it_goes_on_after_a_pickle():
    chunks = [curved_rows(100, seed) for seed in range(6)]
    whole = stream(AutoEncoderTransformer(2, forgetting=150, **PARAMETERS), chunks)
    half = stream(AutoEncoderTransformer(2, forgetting=150, **PARAMETERS), chunks[:3])
    resumed = stream(pickle.loads(pickle.dumps(half)), chunks[3:])
    np.testing.assert_array_equal(resumed.transform(chunks[0]), whole.transform(chunks[0]))


@pytest.mark.parametrize("forgetting", [0, -1.0, "fast"])
def test_half_lives_that_cannot_be(forgetting):
    with pytest.raises(ValueError, match="forgetting"):
        AutoEncoderTransformer(2, forgetting=forgetting).partial_fit(curved_rows())
