"""Different losses for different columns: numbers, categories after one-hot encoding, counts."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import skae
from skae import AutoEncoderTransformer, CategoricalCrossEntropy, ColumnLosses, Huber, Poisson

CATEGORICAL = "categorical_cross_entropy"
SMALL = {"n_components": 2, "hidden_layer_sizes": (32, 16), "max_epochs": 20, "random_state": 0}


def table(n_samples=400, seed=0):
    """Three numbers, two categorical variables of 4 and 3 levels, and three counts, all functions of two numbers."""
    random = np.random.RandomState(seed)
    t = random.rand(n_samples, 2)
    numbers = np.column_stack([np.sin(3 * t[:, 0]), t[:, 1] ** 2, t.prod(axis=1)])
    counts = random.poisson(np.exp(1 + 3 * t[:, :1] + [0.0, 1.0, 0.5]))
    frame = pd.DataFrame(numbers + 0.05 * random.standard_normal(numbers.shape), columns=["a", "b", "c"])
    frame["city"] = np.array(["Bern", "Chur", "Olten", "Thun"])[(4 * t[:, 0]).astype(int)]
    frame["plan"] = np.array(["free", "gold", "plus"])[(3 * t[:, 1]).astype(int)]
    return frame.assign(**{f"n{index}": counts[:, index] for index in range(3)})


def encoder(**options):
    steps = [
        ("numbers", StandardScaler(), ["a", "b", "c"]),
        ("words", OneHotEncoder(sparse_output=False), ["city", "plan"]),
        ("counts", "passthrough", ["n0", "n1", "n2"]),
    ]
    return ColumnTransformer(steps, **options)


MIXED = ColumnLosses([("words", CATEGORICAL, slice(3, 10)), ("counts", "poisson", slice(10, None))])


@pytest.fixture(scope="module")
def encoded():
    return encoder().fit_transform(table())


@pytest.fixture(scope="module")
def fitted(encoded):
    return AutoEncoderTransformer(2, loss=MIXED, random_state=0).fit(encoded[:300])


def test_each_kind_is_reconstructed_in_its_range(fitted, encoded):
    X_hat = fitted.inverse_transform(fitted.transform(encoded))
    for columns in (slice(3, 7), slice(7, 10)):
        np.testing.assert_allclose(X_hat[:, columns].sum(axis=1), 1.0, atol=1e-6)
    assert X_hat[:, 3:].min() >= 0
    assert X_hat[:, 10:].min() > 0
    # Also of codes far from those of any sample.
    far = fitted.inverse_transform(100.0 * fitted.transform(encoded))
    np.testing.assert_allclose(far[:, 3:7].sum(axis=1), 1.0, atol=1e-6)
    assert np.isfinite(far).all()


def test_held_out_categories_counts_and_numbers_are_better_than_by_the_squared_error(fitted, encoded):
    held_out = encoded[300:]

    def errors(model):
        X_hat = model.inverse_transform(model.transform(held_out))
        hits = [X_hat[:, block].argmax(1) == held_out[:, block].argmax(1) for block in (slice(3, 7), slice(7, 10))]
        return np.square(X_hat - held_out)[:, :3].mean(), 1.0 - np.mean(hits)

    plain = AutoEncoderTransformer(2, random_state=0).fit(encoded[:300])
    (numbers, wrong), (plain_numbers, plain_wrong) = errors(fitted), errors(plain)
    assert numbers < 0.2 * plain_numbers
    assert wrong < 0.1 < plain_wrong


def test_categorical_variables_are_found_by_their_sums(encoded):
    loss = AutoEncoderTransformer(**SMALL, loss=MIXED).fit(encoded).net_.module_.projection.loss
    assert loss.n_categories == [[4, 3], [], []]
    given = ColumnLosses([("words", CategoricalCrossEntropy([4, 3]), slice(3, 10)), MIXED.losses[1]])
    codes = [AutoEncoderTransformer(**SMALL, loss=one).fit_transform(encoded) for one in (MIXED, given)]
    np.testing.assert_array_equal(*codes)


def test_categories_that_no_sample_has_belong_to_some_variable():
    X = np.zeros((40, 7))  # the last of the first variable and of the second
    X[np.arange(40), np.arange(40) % 2] = 1.0
    X[np.arange(40), 3 + np.arange(40) // 20] = 1.0
    model = AutoEncoderTransformer(**SMALL | {"n_components": 1}, early_stopping=False, loss=CategoricalCrossEntropy())
    ((_, _, n_categories),) = model.fit(X).net_.module_.architecture.link
    assert sum(n_categories) == 7
    X_hat = model.inverse_transform(model.transform(X))
    np.testing.assert_allclose(X_hat.sum(axis=1), 2.0, atol=1e-6)
    assert X_hat[:, [2, 6]].max() < 0.01


def test_columns_by_names_masks_and_names_of_steps(encoded):
    frame = encoder(verbose_feature_names_out=True).set_output(transform="pandas").fit_transform(table())
    mask = np.zeros(13, dtype=bool)
    mask[3:10] = True
    names = [name for name in frame if name.startswith("words__")]
    wanted = ("words", mask, names, list(range(3, 10)), slice(3, -3), slice(3, 10))
    codes = []
    for columns in wanted:
        loss = ColumnLosses([("one", CATEGORICAL, columns), ("other", "poisson", "counts")])
        codes.append(AutoEncoderTransformer(**SMALL, loss=loss).fit_transform(frame))
    for other in codes[1:]:
        np.testing.assert_array_equal(other, codes[0])


def test_columns_in_another_order_change_rounding_alone(encoded):
    shuffled = np.random.RandomState(0).permutation(13)
    place = np.argsort(shuffled)
    losses = [("words", CategoricalCrossEntropy([4, 3]), place[3:10].tolist()), ("n", "poisson", place[10:].tolist())]
    X = encoded[:, shuffled]
    start = {**SMALL, "max_epochs": 0}
    one = AutoEncoderTransformer(**start, loss=MIXED).fit(encoded)
    other = AutoEncoderTransformer(**start, loss=ColumnLosses(losses)).fit(X)
    np.testing.assert_allclose(
        one.inverse_transform(one.transform(encoded))[:, shuffled],
        other.inverse_transform(other.transform(X)),
        atol=1e-8,
    )


def test_units_do_not_weigh(encoded):
    scaled = encoded.copy()
    scaled[:, :3] *= 1000.0
    start = {**SMALL, "max_epochs": 0}
    codes = [AutoEncoderTransformer(**start, loss=MIXED).fit_transform(X) for X in (encoded, scaled)]
    np.testing.assert_allclose(*codes, atol=1e-8)


def test_weights_of_losses(encoded):
    heavy = ColumnLosses(MIXED.losses, loss_weights={"counts": 1e4})
    models = [AutoEncoderTransformer(2, loss=one, max_epochs=60, random_state=0).fit(encoded) for one in (MIXED, heavy)]
    X_hat = [one.inverse_transform(one.transform(encoded))[:, 10:] for one in models]
    errors = [(np.square(one - encoded[:, 10:]) / one).mean() for one in X_hat]
    assert errors[1] < 0.9 * errors[0]


def test_losses_are_searched_by_name(encoded):
    loss = ColumnLosses([("numbers", Huber(), [0, 1, 2]), *MIXED.losses])
    model = AutoEncoderTransformer(**SMALL, loss=loss)
    assert model.get_params()["loss__numbers__delta"] == 1.0
    assert clone(model).loss.losses[0][2] == [0, 1, 2]
    grid = {"loss__numbers__delta": [0.1, 1.0], "loss__counts": ["poisson", "squared_error"]}
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(encoded)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert isinstance(search.best_estimator_.loss, ColumnLosses)
    assert loss.losses[1:] == MIXED.losses


def test_pickled_saved_and_continued(encoded, tmp_path):
    model = AutoEncoderTransformer(**SMALL, loss=MIXED)
    for start in range(0, 300, 100):
        model.partial_fit(encoded[start : start + 100])
    skae.save(model, tmp_path / "model.skae")
    copies = [pickle.loads(pickle.dumps(model)), skae.load(tmp_path / "model.skae")]
    for copy in copies:
        np.testing.assert_array_equal(copy.transform(encoded), model.transform(encoded))
    model.partial_fit(encoded[300:])
    for copy in copies:
        copy.partial_fit(encoded[300:])
        np.testing.assert_array_equal(copy.transform(encoded), model.transform(encoded))
    with pytest.raises(ValueError, match="CategoricalCrossEntropy needs categories"):
        model.partial_fit(-encoded)


def test_missing_numbers_and_missing_categories(encoded):
    X = encoded.copy()
    random = np.random.RandomState(0)
    X[random.rand(len(X)) < 0.2, 1] = np.nan
    X[random.rand(len(X)) < 0.2, 3:7] = np.nan
    model = AutoEncoderTransformer(2, loss=MIXED, allow_nan=True, max_epochs=60, random_state=0).fit(X[:300])
    X_hat = model.inverse_transform(model.transform(X))
    lost = np.isnan(X[300:, 3])
    guessed = X_hat[300:, 3:7][lost].argmax(axis=1)
    assert (guessed == encoded[300:, 3:7][lost].argmax(axis=1)).mean() > 0.6
    np.testing.assert_allclose(X_hat[:, 3:7].sum(axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("missing", [slice(3, 4), slice(3, 7), slice(3, 10), slice(10, 11)])
def test_columns_without_any_value(encoded, missing):
    X = encoded.copy()
    X[:, missing] = np.nan
    for fit in ("fit", "partial_fit"):
        with pytest.raises(ValueError, match=f"Feature {missing.start} of X has no observed values"):
            getattr(AutoEncoderTransformer(**SMALL, loss=MIXED, allow_nan=True), fit)(X)


def test_categories_that_are_never_all_present(encoded):
    X = encoded.copy()
    X[::2, 3], X[1::2, 5] = np.nan, np.nan
    model = AutoEncoderTransformer(**SMALL, loss=MIXED, allow_nan=True)
    with pytest.raises(ValueError, match="these 7 columns are never all present, or zero, and there are no such"):
        model.fit(X)
    given = ColumnLosses([("words", CategoricalCrossEntropy([4, 3]), slice(3, 10)), MIXED.losses[1]])
    assert np.isfinite(model.set_params(loss=given).fit_transform(X)).all()


def test_sparse_and_weighted_samples(encoded):
    weights = np.random.RandomState(0).randint(0, 3, size=len(encoded))
    frame = table()
    sparse = make_pipeline(
        make_column_transformer(
            (OneHotEncoder(), ["city", "plan"]), (StandardScaler(), ["a", "b"]), sparse_threshold=1
        ),
        AutoEncoderTransformer(**SMALL, loss=ColumnLosses([("words", CATEGORICAL, slice(0, 7))])),
    )
    assert np.isfinite(sparse.fit_transform(frame)).all()
    model = AutoEncoderTransformer(**SMALL, loss=MIXED)
    weighted = clone(model).fit(encoded, sample_weight=weights)
    repeated = clone(model).fit(np.repeat(encoded, weights, axis=0))
    np.testing.assert_allclose(weighted.mean_, repeated.mean_)
    np.testing.assert_allclose(
        weighted.net_.module_.projection.loss.factors, repeated.net_.module_.projection.loss.factors
    )


def test_automatic_number_of_components(encoded):
    model = AutoEncoderTransformer("auto", loss=MIXED, max_epochs=30, random_state=0).fit(encoded)
    assert 1 <= model.n_components_ <= 4
    assert model.explained_variance_ratio_.sum() == pytest.approx(model.score(encoded), abs=0.02)


def test_unknown_categories_are_projected(fitted, encoded):
    unknown = encoded[:5].copy()
    unknown[:, 3:7] = 0.0  # as OneHotEncoder(handle_unknown="ignore") encodes them
    assert np.isfinite(fitted.transform(unknown)).all()


def test_fit_continues_from_an_earlier_one(encoded):
    model = AutoEncoderTransformer(**SMALL, loss=MIXED, warm_start=True).fit(encoded[:200])
    before = model.score(encoded)
    assert model.fit(encoded).score(encoded) > before - 0.05


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (ColumnLosses("poisson"), "must be a list of (name, loss, columns), got 'poisson'"),
        (ColumnLosses([("a", "poisson")]), "must be a list of (name, loss, columns)"),
        (ColumnLosses([("a", "poison", [0])]), "'a' in ColumnLosses has the loss 'poison', but known are"),
        (
            ColumnLosses([("a", 3, [0])]),
            "'a' in ColumnLosses must have a name, a Loss or a function as its loss",
        ),
        (ColumnLosses([("a", MIXED, [0])]), "'a' in ColumnLosses must have a name, a Loss or a function as its loss"),
        (ColumnLosses([("a", "huber", [13])]), "'a' in ColumnLosses has the columns [13], but X has 13 features"),
        (ColumnLosses([("a", "huber", "age")]), "'age' is none of the names of the features, []"),
        (ColumnLosses([("a", "huber", [])]), "'a' in ColumnLosses must have columns, each once, got []"),
        (ColumnLosses([("a", "huber", [1, 1])]), "'a' in ColumnLosses must have columns, each once, got [1, 1]"),
        (ColumnLosses([("a", "huber", 0.5)]), "'a' in ColumnLosses has the columns 0.5"),
        (
            ColumnLosses([("a", "huber", [0]), ("b", "huber", [0, 1])]),
            "Column 0 has two losses in ColumnLosses, the",
        ),
        (ColumnLosses([("a", "huber", [0]), ("a", "huber", [1])]), "Names provided are not unique"),
        (ColumnLosses([("a", "huber", [0])], loss_weights={"b": 1.0}), "must have positive weights by the names of"),
        (ColumnLosses([("a", "huber", [0])], loss_weights={"a": 0.0}), "must have positive weights by the names of"),
        (ColumnLosses([("a", "poisson", [0])]), "'a' in ColumnLosses: Negative values in data"),
        (
            ColumnLosses([("a", CATEGORICAL, [0, 1])]),
            "needs categories after one-hot encoding, or prop",
        ),
        (ColumnLosses([("a", CATEGORICAL, [3, 4])]), "the values of these 2 columns sum to 0 to 1"),
        (ColumnLosses([("a", CategoricalCrossEntropy([4]), slice(3, 10))]), "that sum to the number of columns, 7"),
        (ColumnLosses([("a", CategoricalCrossEntropy([0, 7]), slice(3, 10))]), "that sum to the number of columns, 7"),
    ],
)
def test_errors(loss, message, encoded):
    with pytest.raises(ValueError) as caught:
        AutoEncoderTransformer(**SMALL, loss=loss).fit(encoded)
    assert message in str(caught.value)


def test_a_loss_of_columns_is_not_called():
    with pytest.raises(NotImplementedError, match="columns of ColumnLosses are found when an estimator is fitted"):
        MIXED(None, None)


def test_representations():
    loss = ColumnLosses([("n", Poisson(), [0])])
    assert str(loss) == "ColumnLosses(losses=[('n', Poisson(), [0])])"
    assert "ColumnLosses" in AutoEncoderTransformer(loss=loss)._repr_html_()
