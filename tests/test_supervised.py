"""Codes in front of classifiers and regressors: a regularizer that sees the labels."""

import numpy as np
import pytest
from helpers import SMALL
from sklearn.datasets import load_diabetes, load_digits, make_friedman1
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skae import AutoEncoderOutlierDetector, AutoEncoderTransformer, Supervised

X, Y = load_digits(return_X_y=True)
TRAIN, TEST, Y_TRAIN, Y_TEST = train_test_split(X, Y, random_state=0, stratify=Y)
SHORT = {"regularizer": "supervised", "random_state": 0}


def accuracy(codes, test_codes, y=Y_TRAIN):
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return classifier.fit(codes, y).score(test_codes, Y_TEST)


@pytest.fixture(scope="module")
def supervised():
    return AutoEncoderTransformer(2, **SHORT).fit(TRAIN, Y_TRAIN)


def test_two_codes_are_better_than_those_of_linear_discriminants(supervised):
    linear = LinearDiscriminantAnalysis(n_components=2).fit(TRAIN, Y_TRAIN)
    of_linear = accuracy(linear.transform(TRAIN), linear.transform(TEST))
    assert accuracy(supervised.transform(TRAIN), supervised.transform(TEST)) > of_linear + 0.15
    assert supervised.score(TEST) > 0.5


def test_a_pipeline_hands_the_labels_over():
    pipeline = make_pipeline(AutoEncoderTransformer(2, **SHORT, **SMALL), LogisticRegression(max_iter=10_000))
    search = GridSearchCV(pipeline, {"autoencodertransformer__regularizer": [Supervised(0.1), Supervised(1.0)]}, cv=2)
    assert 0.0 < search.fit(TRAIN[:200], Y_TRAIN[:200]).best_score_ <= 1.0


def test_labels_that_were_permuted_stay_at_chance():
    permuted = np.random.RandomState(0).permutation(Y)
    pipeline = make_pipeline(AutoEncoderTransformer(2, max_epochs=20, **SHORT), LogisticRegression(max_iter=1000))
    assert cross_val_score(pipeline, X, permuted, cv=3).mean() < 0.15


@pytest.mark.parametrize("missing", ["NaN", "None", "-1"])
def test_some_samples_have_no_label(missing, supervised):
    value, regularizer = {"NaN": np.nan, "None": None, "-1": -1}[missing], Supervised()
    y = Y_TRAIN.astype({"NaN": float, "None": object, "-1": int}[missing])
    y[::2] = value
    if missing == "-1":
        regularizer.unlabeled = -1
    estimator = AutoEncoderTransformer(2, regularizer=regularizer, random_state=0).fit(TRAIN, y)
    assert estimator.net_.module_.architecture.n_outputs == 10
    found = accuracy(estimator.transform(TRAIN), estimator.transform(TEST))
    assert found > accuracy(supervised.transform(TRAIN), supervised.transform(TEST)) - 0.1


def test_minus_one_is_a_class_unless_it_is_said_not_to_be():
    estimator = AutoEncoderTransformer(2, **SHORT, **SMALL).fit(X[:100], np.where(Y[:100] > 4, 1, -1))
    assert estimator.net_.module_.architecture.n_outputs == 2


@pytest.mark.parametrize("kind", [str, bool, int, float, object])
def test_classes_of_any_type(kind):
    labels = (Y[:100] > 4).astype(int).astype(kind)
    codes = AutoEncoderTransformer(2, **SHORT, **SMALL).fit_transform(X[:100], labels)
    as_integers = AutoEncoderTransformer(2, **SHORT, **SMALL).fit_transform(X[:100], (Y[:100] > 4).astype(int))
    np.testing.assert_array_equal(codes, as_integers)


def score_of_numbers(reduction, X, y):
    train, test, y_train, y_test = train_test_split(X, y, random_state=0)
    return make_pipeline(reduction, LinearRegression()).fit(train, y_train).score(test, y_test)


def test_numbers():
    """They depend on five of ten features, which have all the same variance and no correlation."""
    data = make_friedman1(600, random_state=0)
    assert score_of_numbers(PCA(2), *data) < 0.4
    assert score_of_numbers(AutoEncoderTransformer(2, regularizer="supervised", random_state=0), *data) > 0.85


@pytest.mark.parametrize("seed", [0, 3])
def test_numbers_that_codes_of_pca_predict_as_well(seed):
    data = load_diabetes(return_X_y=True)
    found = score_of_numbers(AutoEncoderTransformer(2, regularizer="supervised", random_state=seed), *data)
    assert found > score_of_numbers(PCA(2), *data) - 0.01


def test_the_task_is_chosen_by_the_type_of_the_labels():
    n_outputs = {}
    for task, y in {
        "auto": Y[:100].astype(float),
        "regression": Y[:100],
        "classification": np.arange(100.0) // 2,
    }.items():
        estimator = AutoEncoderTransformer(2, regularizer=Supervised(task=task), random_state=0, **SMALL)
        n_outputs[task] = estimator.fit(X[:100], y).net_.module_.architecture.n_outputs
    assert n_outputs == {"auto": 10, "regression": 1, "classification": 50}


def test_each_class_is_held_out():
    """A rare class is in the validation set by its share, so that the labels of all classes are compared."""
    held_out = []

    class Watching(Supervised):
        def penalty(self, x, z, network, context):
            if context.epoch is None:
                held_out.append(context.indices)
            return super().penalty(x, z, network, context)

    y = np.repeat([0, 1], [380, 20])
    parameters = {"random_state": 0, **SMALL, "validation_fraction": 0.1}
    AutoEncoderTransformer(2, regularizer=Watching(), **parameters).fit(X[:400], y)
    counts = np.bincount(y[np.unique(np.concatenate(held_out))])
    assert counts[1] == pytest.approx(0.05 * counts.sum(), abs=1)


def test_an_estimator_that_needs_labels_says_so():
    assert AutoEncoderTransformer(regularizer="supervised").__sklearn_tags__().target_tags.required
    assert AutoEncoderTransformer(regularizer=["sparse", Supervised()]).__sklearn_tags__().target_tags.required
    assert not AutoEncoderTransformer(regularizer="sparse").__sklearn_tags__().target_tags.required
    assert not hasattr(AutoEncoderTransformer(regularizer="supervised"), "partial_fit")


@pytest.mark.parametrize(
    "y, message",
    [
        (None, "requires y to be passed"),
        (Y[:50], "y has 50 labels, but X has 100 samples"),
        (np.zeros(100), "y has 1 different labels for 100 of 100"),
        (np.full(100, np.nan), "y has 0 different labels for 0 of 100"),
        (np.where(np.arange(100) == 3, np.inf, np.linspace(0, 1, 100)), "y has 1 infinite numbers"),
        (np.zeros((100, 2)), "1d array"),
    ],
)
def test_labels_of_no_use(y, message):
    with pytest.raises(ValueError, match=message):
        AutoEncoderTransformer(2, **SHORT).fit(X[:100], y)


@pytest.mark.parametrize("parameter, value", [("strength", -1.0), ("task", "ranking")])
def test_parameters(parameter, value):
    with pytest.raises(ValueError, match=parameter):
        AutoEncoderTransformer(2, regularizer=Supervised(**{parameter: value})).fit(X[:100], Y[:100])


def test_two_of_them_are_refused():
    with pytest.raises(ValueError, match="more than one that needs y"):
        AutoEncoderTransformer(2, regularizer=["supervised", Supervised()]).fit(X[:100], Y[:100])


def test_a_detector_has_no_labels_to_give():
    with pytest.raises(ValueError, match="requires y"):
        AutoEncoderOutlierDetector(AutoEncoderTransformer(2, **SHORT)).fit(X[:100])
