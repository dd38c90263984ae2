"""Which samples are held out: copies and groups on one side, splits of the user's, and what a warm start keeps."""

import numpy as np
import pytest
import scipy.sparse
import sklearn
from helpers import TINY, curved_rows
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, PredefinedSplit, ShuffleSplit, TimeSeriesSplit

from skae import AutoEncoderTransformer

DIGITS = load_digits().data


@pytest.fixture(scope="module")
def draw():
    """A function that draws samples near a plane of three dimensions in twenty: PCA cannot be beaten."""
    random = np.random.default_rng(0)
    mix = random.normal(size=(3, 20))
    return lambda n_samples: random.normal(size=(n_samples, 3)) @ mix + random.normal(size=(n_samples, 20))


def pca_of(X, fresh, n_components=3):
    """The fraction of the variance of fresh samples that PCA of X explains."""
    pca = PCA(n_components).fit(X)
    X_hat = pca.inverse_transform(pca.transform(fresh))
    return 1 - np.square(fresh - X_hat).sum() / np.square(fresh - pca.mean_).sum()


@pytest.mark.parametrize("kind", ["repeated", "bootstrap", "weights", "near", "patients", "windows"])
def test_copies_do_not_break_the_floor(draw, kind):
    distinct, fresh, random = draw(60), draw(2000), np.random.default_rng(1)
    X, options = np.repeat(distinct, 5, axis=0), {}
    if kind == "bootstrap":
        X = distinct[random.integers(60, size=300)]
    elif kind == "weights":
        X, options = distinct, {"sample_weight": np.full(60, 5)}
    elif kind == "near":
        X = X + 0.01 * X.std(axis=0) * random.normal(size=X.shape)
    elif kind == "patients":
        X = X + 0.3 * random.normal(size=X.shape)
        options = {"groups": np.repeat([f"patient {index}" for index in range(60)], 5)}
    elif kind == "windows":
        recordings = random.normal(size=(40, 3, 26)).cumsum(axis=2)  # seven windows of twenty steps overlap
        windows = np.lib.stride_tricks.sliding_window_view(recordings[:, 0], 20, axis=1)
        X, options = windows.reshape(-1, 20), {"groups": np.repeat(np.arange(40), 7)}
        fresh = random.normal(size=(2000, 20)).cumsum(axis=1)
    parameters = {"hidden_layer_sizes": 64, "max_epochs": 60, "random_state": 0}  # where copies are not seen, -0.025
    estimator = AutoEncoderTransformer(3, **parameters).fit(X, **options)
    assert estimator.score(fresh) > pca_of(X, fresh) - 0.01


def test_repeated_samples_are_learned_from_as_well_as_single_ones():
    parameters = {"hidden_layer_sizes": 64, "random_state": 0}
    once = AutoEncoderTransformer(8, **parameters).fit(DIGITS[:600])
    repeated = AutoEncoderTransformer(8, **parameters).fit(np.repeat(DIGITS[:600], 3, axis=0))
    assert repeated.score(DIGITS[600:]) > once.score(DIGITS[600:]) - 0.01


def test_copies_in_chunks_are_on_one_side():
    """Each of 300 samples comes in each of four chunks: none is both held out and remembered for training."""
    X = curved_rows(300)
    estimator = AutoEncoderTransformer(2, validation_fraction=0.3, **TINY)
    for _ in range(4):
        estimator.partial_fit(X)
    stream = estimator._stream
    held_out, trained = (set(map(bytes, rows[1:])) for rows in (stream.held_out.samples, stream.memory.samples))
    assert len(held_out) > 50 and len(trained) > 150
    assert len(held_out & trained) <= 1  # the very first sample trains, whatever is drawn for it


def test_groups_of_one_sample_change_nothing():
    X = curved_rows(200)
    plain = AutoEncoderTransformer(2, **TINY).fit(X)
    grouped = AutoEncoderTransformer(2, **TINY).fit(X, groups=np.arange(200)[::-1])
    assert plain.validation_scores_ == grouped.validation_scores_
    assert_array_equal(plain.transform(X), grouped.transform(X))


def test_groups_are_routed_through_a_search():
    X, groups = curved_rows(120), np.repeat(np.arange(30), 4)
    with sklearn.config_context(enable_metadata_routing=True):
        estimator = AutoEncoderTransformer(**TINY).set_fit_request(groups=True)
        search = GridSearchCV(estimator, {"n_components": [1, 2]}, cv=GroupKFold(3)).fit(X, groups=groups)
    assert search.best_params_ == {"n_components": 2}


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([1, 2, 3], "groups has 3 labels, but X has 60 samples. Pass one label for each sample."),
        (["a"] * 60, "groups has the single label 'a' for all 60 samples, but at least 2 groups are needed"),
    ],
)
def test_wrong_groups_are_refused(curved, groups, message):
    with pytest.raises(ValueError, match=message):
        AutoEncoderTransformer(2, **TINY).fit(curved, groups=groups)


@pytest.mark.parametrize(
    ("splitter", "n_held_out"),
    [
        (ShuffleSplit(1, test_size=30, random_state=0), 30),
        (PredefinedSplit(np.where(np.arange(200) < 40, 0, -1)), 40),
        (KFold(4), 200),
        (TimeSeriesSplit(2), 132),
        (GroupKFold(5), 200),
    ],
)
def test_a_splitter_says_which_samples_are_held_out(splitter, n_held_out):
    X = curved_rows(200)
    seen = []

    class Counted(type(splitter)):
        """Notes how many samples are held out."""

        def split(self, X, y=None, groups=None):
            for train, held_out in super().split(X, y, groups if isinstance(self, GroupKFold) else None):
                seen.append(len(held_out))
                yield train, held_out

    splitter.__class__ = Counted
    estimator = AutoEncoderTransformer(2, validation_split=splitter, **TINY).fit(X, groups=np.arange(200) // 4)
    assert sum(seen) == n_held_out
    splitter.__class__ = Counted.__bases__[0]
    train, held_out = next(splitter.split(X, groups=np.arange(200) // 4 if isinstance(splitter, GroupKFold) else None))
    if splitter.get_n_splits(X, groups=np.arange(200) // 4) == 1:
        # Location and scale are those of all samples.
        assert_allclose(estimator.validation_scores_[0], pca_of(X[train], X[held_out], 2), atol=0.02)


@pytest.mark.parametrize("container", [np.asarray, np.float32, scipy.sparse.csr_array])
def test_validation_samples_are_held_out_and_never_trained_on(container):
    X, validation = curved_rows(200).astype(np.float32), curved_rows(50, seed=1).astype(np.float32)
    estimator = AutoEncoderTransformer(2, validation_split=container(validation), hidden_layer_sizes=32, random_state=0)
    estimator = clone(estimator).fit(X)
    scores = estimator.validation_scores_
    assert_allclose(scores[0], pca_of(X, validation, 2), atol=1e-6)
    assert estimator.best_epoch_ > 0
    assert_allclose(
        estimator.score(validation), scores[estimator.validation_epochs_.index(estimator.best_epoch_)], atol=2e-3
    )
    assert_allclose(estimator.mean_, X.mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (np.zeros((5, 3)), "X has 3 features, but AutoEncoderTransformer is expecting 5 features"),
        (PredefinedSplit(np.zeros(60)), "made 1 splits of 60 samples, at least one of which has no sample to train on"),
        (3, "'validation_split' parameter of AutoEncoderTransformer must be"),
    ],
)
def test_a_wrong_split_is_refused(curved, split, message):
    with pytest.raises(ValueError, match=message):
        AutoEncoderTransformer(2, validation_split=split, **TINY).fit(curved)


def test_partial_fit_refuses_a_split(curved):
    with pytest.raises(
        ValueError, match="partial_fit holds out validation_fraction of the samples, but validation_split"
    ):
        AutoEncoderTransformer(2, validation_split=KFold(3), **TINY).partial_fit(curved)


@pytest.mark.parametrize("linear_skip", [True, False])
def test_copies_of_one_sample(linear_skip):
    X = np.repeat([[1.0, 2.0, 3.0]], 30, axis=0)
    assert AutoEncoderTransformer(2, linear_skip=linear_skip, **TINY).fit(X).score(X) == 1.0


def test_warm_start_follows_samples_that_moved():
    estimator = AutoEncoderTransformer(2, warm_start=True, max_epochs=20, random_state=0).fit(DIGITS[:300])
    once = estimator.score(DIGITS[:300])
    estimator.fit(DIGITS[:300] + 50)
    assert_allclose(estimator.mean_, DIGITS[:300].mean(axis=0) + 50)
    assert estimator.score(DIGITS[:300] + 50) > once - 1e-6
    estimator.fit(1e-3 * DIGITS[:300])
    assert estimator.score(1e-3 * DIGITS[:300]) > once - 1e-6


def test_warm_start_on_other_samples_is_not_below_their_pca():
    random = np.random.default_rng(0)
    other = random.normal(size=(300, 64)) @ random.normal(size=(64, 64))
    estimator = AutoEncoderTransformer(2, warm_start=True, max_epochs=20, random_state=0).fit(DIGITS[:300])
    estimator.fit(other)
    assert_allclose(estimator.mean_, other.mean(axis=0))
    assert estimator.score(other) >= pca_of(other, other, 2) - 1e-6


def test_warm_start_on_the_same_samples_goes_on_where_it_was():
    estimator = AutoEncoderTransformer(2, warm_start=True, max_epochs=20, random_state=0).fit(DIGITS[:300])
    once = estimator.score(DIGITS[:300])
    estimator.set_params(max_epochs=0).fit(DIGITS[:300])
    assert_allclose(estimator.score(DIGITS[:300]), once, rtol=1e-6)
