"""The pictures: what is drawn, where, with which names, and what is refused. Not how it looks."""

import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from helpers import QUICK, TRAINED, curved_rows, pca_score
from joblib import parallel_config
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, StratifiedKFold, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, PolynomialFeatures, StandardScaler

from skae import (
    AttributionDisplay,
    AutoEncoderOutlierDetector,
    AutoEncoderTransformer,
    BottleneckDisplay,
    Denoising,
    LatentDisplay,
    LatentLoadingsDisplay,
    LossCurveDisplay,
    ReconstructionDisplay,
    ReconstructionErrorDisplay,
    attributions,
    bottleneck_curve,
)

matplotlib.use("Agg")
import matplotlib.pyplot as plt

DIGITS, LABELS = (part[:200] for part in load_digits(return_X_y=True))
ON_FITTED = [ReconstructionDisplay, LatentDisplay, LatentLoadingsDisplay, AttributionDisplay]
TINY = {**QUICK, "max_epochs": 2}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def trained():
    estimator = AutoEncoderTransformer(3, **TRAINED).fit(DIGITS)
    assert estimator.best_epoch_ > 0
    return estimator


@pytest.fixture(scope="module")
def early_stopped():
    estimator = AutoEncoderTransformer(2, hidden_layer_sizes=16, max_epochs=5, lr=0.02, batch_size=16, random_state=0)
    estimator.fit(curved_rows(150))
    assert estimator.best_epoch_ > 0
    return estimator


@pytest.fixture(scope="module")
def frame():
    return pd.DataFrame(curved_rows(80), columns=["u", "v", "uu", "uv", "sin"]) * [1, 10, 100, 1, 1]


@pytest.fixture(scope="module")
def scaled(frame):
    return make_pipeline(StandardScaler().set_output(transform="pandas"), AutoEncoderTransformer(2, **TRAINED)).fit(
        frame
    )


def reconstruct(estimator, X):
    return estimator.inverse_transform(estimator.transform(X))


def texts(labels):
    return [label.get_text() for label in labels]


# What all have in common


@pytest.mark.parametrize("display", [LossCurveDisplay, *ON_FITTED, BottleneckDisplay, ReconstructionErrorDisplay])
def test_without_matplotlib_the_extra_is_named(display, trained, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    rows = [] if display is LossCurveDisplay else [DIGITS]
    text = rf'^{display.__name__}.from_estimator requires matplotlib. Install it with pip install "skae\[plot\]"\.$'
    with pytest.raises(ImportError, match=text):
        display.from_estimator(trained, *rows)


@pytest.mark.parametrize(
    "display",
    [
        LossCurveDisplay(train_losses=[1.0]),
        ReconstructionDisplay(rows={"original": np.eye(3)}),
        LatentDisplay(codes=np.eye(2)),
        BottleneckDisplay(n_components=[1], test_scores=np.ones((1, 2))),
        LatentLoadingsDisplay(encoder=np.eye(2), decoder=np.eye(2)),
        AttributionDisplay(attributions=np.ones((2, 1, 3))),
        ReconstructionErrorDisplay(errors=np.eye(2)),
    ],
    ids=lambda display: type(display).__name__,
)
def test_drawn_again_from_its_data(display, monkeypatch):
    assert display.plot() is display
    assert isinstance(display.figure_, plt.Figure)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=rf"^{type(display).__name__}.plot requires matplotlib"):
        display.plot()


@pytest.mark.parametrize("display", [LossCurveDisplay, *ON_FITTED, BottleneckDisplay])
@pytest.mark.parametrize("other", [PCA(2), make_pipeline(StandardScaler(), PCA(2))], ids=["PCA", "Pipeline"])
def test_only_autoencoders(display, other):
    rows = [] if display is LossCurveDisplay else [DIGITS]
    with pytest.raises(TypeError, match="must be an AutoEncoderTransformer or a Pipeline that ends with one, got P"):
        display.from_estimator(other.fit(DIGITS), *rows)


@pytest.mark.parametrize("display", [LossCurveDisplay, *ON_FITTED])
def test_only_fitted(display):
    for estimator in AutoEncoderTransformer(), make_pipeline(StandardScaler(), AutoEncoderTransformer()):
        with pytest.raises(NotFittedError):
            display.from_estimator(estimator, *([] if display is LossCurveDisplay else [DIGITS]))


@pytest.mark.parametrize("display", ON_FITTED)
def test_image_shape_is_checked(display, trained):
    for shape in ((8, 9), (2, 8, 4), (64,), 64, (-8, -8), "(8, 8)"):
        with pytest.raises(ValueError, match=r"image_shape=.* must be 'auto', None, .* product of 64"):
            display.from_estimator(trained, DIGITS, image_shape=shape)


@pytest.mark.parametrize("display", ON_FITTED)
def test_image_shape_comes_from_the_estimator(display):
    convolutional = AutoEncoderTransformer(2, architecture="conv", input_shape=(1, 8, 8), max_epochs=0).fit(DIGITS)
    n_axes = {ReconstructionDisplay: 3 * 8, LatentDisplay: 2, LatentLoadingsDisplay: 4, AttributionDisplay: 3 * 2}[
        display
    ]
    assert display.from_estimator(convolutional, DIGITS).axes_.size == n_axes
    n_axes = {ReconstructionDisplay: 8, LatentDisplay: 1, LatentLoadingsDisplay: 2, AttributionDisplay: 3 * 2}[display]
    assert display.from_estimator(convolutional, DIGITS, image_shape=None).axes_.size == n_axes


@pytest.mark.parametrize("display", ON_FITTED)
def test_axes_handed_in_are_used(display, trained):
    shape = {ReconstructionDisplay: (3, 8), LatentDisplay: (1, 2), LatentLoadingsDisplay: (2, 3)}.get(display, (3, 3))
    figure, axes = plt.subplots(*shape)
    own = display.from_estimator(trained, DIGITS, image_shape=(8, 8), ax=axes)
    assert list(own.axes_.flat) == list(axes.flat)
    assert own.figure_ is figure

    figure, (left, _) = plt.subplots(1, 2)
    own = display.from_estimator(trained, DIGITS, image_shape=(8, 8), ax=left)
    assert own.axes_.size == np.prod(shape)
    assert own.figure_ is figure
    assert not left.axison
    place = left.get_position()
    for ax in own.axes_.flat:
        assert place.x0 - 1e-9 <= ax.get_position(original=True).x0 < place.x1

    with pytest.raises(ValueError, match=rf"ax has 5 axes, but {display.__name__}.plot needs {np.prod(shape)}: "):
        display.from_estimator(trained, DIGITS, image_shape=(8, 8), ax=plt.subplots(5)[1])
    with pytest.raises(ValueError, match="ax is not part of a grid, so it cannot be divided"):
        display.from_estimator(trained, DIGITS, image_shape=(8, 8), ax=plt.figure().add_axes([0, 0, 1, 1]))


# The losses


def test_losses_are_those_of_the_estimator(early_stopped):
    ax = plt.subplots()[1]
    display = LossCurveDisplay.from_estimator(make_pipeline(early_stopped), ax=ax)
    assert display.ax_ is ax and display.figure_ is ax.figure
    n_epochs = early_stopped.n_iter_
    assert_array_equal(display.train_line_.get_data(), [np.arange(1, n_epochs + 1), early_stopped.loss_curve_])
    scores = np.asarray(early_stopped.validation_scores_)
    assert_array_equal(display.valid_line_.get_data(), [early_stopped.validation_epochs_, 1 - scores])
    assert_array_equal(display.start_line_.get_ydata(), 1 - scores[0])
    assert_array_equal(display.best_line_.get_xdata(), early_stopped.best_epoch_)
    best = f"best epoch: {early_stopped.best_epoch_}"
    assert texts(ax.get_legend().get_texts()) == ["training samples", "held-out samples", "PCA, held-out samples", best]


def test_no_level_of_pca_without_pca():
    plain = AutoEncoderTransformer(2, linear_skip=False, **{**TINY, "early_stopping": True}).fit(DIGITS)
    display = LossCurveDisplay.from_estimator(plain)
    assert display.start_line_ is None
    assert display.valid_line_ is not None


def test_a_warm_start_is_not_called_pca(curved):
    twice = AutoEncoderTransformer(2, warm_start=True, **{**TINY, "early_stopping": True}).fit(curved).fit(curved)
    display = LossCurveDisplay.from_estimator(twice)
    assert display.start_line_.get_label() == "initialization, held-out samples"


def test_losses_without_held_out_rows(trained):
    display = LossCurveDisplay.from_estimator(trained)
    assert display.valid_line_ is None and display.start_line_ is None
    assert texts(display.ax_.get_legend().get_texts()) == ["training samples", f"best epoch: {trained.best_epoch_}"]


def test_the_start_may_be_what_was_kept():
    display = LossCurveDisplay(train_losses=[0.9, 0.1], valid_losses=[0.5, 0.6, 0.7], start_name="PCA").plot()
    assert display.best_line_.get_label() == "best epoch: 0 (initialization)"
    assert display.ax_.get_yscale() == "log"
    assert LossCurveDisplay(train_losses=[0.9, -0.1]).plot().ax_.get_yscale() == "linear"


@pytest.mark.parametrize("parameters", [{"max_epochs": 0}, {"activation": "identity"}], ids=str)
def test_nothing_learnt_has_no_curve(curved, parameters):
    estimator = AutoEncoderTransformer(2, **parameters).fit(curved)
    given = rf"max_epochs=0 \(given: {estimator.max_epochs}\)"
    text = rf"has an empty loss_curve_.* {given}.*too few samples carry the variance"
    with pytest.raises(ValueError, match=text):
        LossCurveDisplay.from_estimator(estimator)


# The reconstructions


def test_reconstructed_images(trained):
    display = ReconstructionDisplay.from_estimator(trained, DIGITS, n_samples=5, image_shape=(8, 8), cmap="gray_r")
    assert display.axes_.shape == (3, 5)
    pca = PCA(3, svd_solver="full").fit(DIGITS)
    expected = {"original": DIGITS, "autoencoder": reconstruct(trained, DIGITS), "PCA": reconstruct(pca, DIGITS)}
    assert list(display.artists_) == list(expected)
    for name, rows in expected.items():
        for artist, row in zip(display.artists_[name], rows[:5], strict=True):
            assert_allclose(artist.get_array(), row.reshape(8, 8), atol=1e-8)
            assert artist.get_clim() == (DIGITS[:5].min(), DIGITS[:5].max())
            assert artist.get_cmap().name == "gray_r"
    assert display.scores["autoencoder"] == trained.score(DIGITS)
    assert display.scores["PCA"] == pytest.approx(pca_score(pca, DIGITS))
    labels = [ax.get_ylabel() for ax in display.axes_[:, 0]]
    assert labels == ["original", *(f"{name}\n{share:.1%} explained" for name, share in display.scores.items())]


def test_reconstructed_profiles(trained):
    display = ReconstructionDisplay.from_estimator(trained, DIGITS, n_samples=6)
    assert display.axes_.shape == (2, 4)
    assert [ax.get_visible() for ax in display.axes_.flat] == [True] * 6 + [False] * 2
    for ax, row, own in zip(display.axes_.flat, DIGITS, reconstruct(trained, DIGITS[:6]), strict=False):
        original, autoencoder, _ = ax.lines
        assert_array_equal(original.get_ydata(), row)
        assert_array_equal(autoencoder.get_ydata(), own)
    assert len(texts(display.figure_.legends[0].get_texts())) == 3


def test_profiles_in_axes_of_ones_own(trained):
    figure, axes = plt.subplots(1, 4)
    ReconstructionDisplay.from_estimator(trained, DIGITS, n_samples=4, ax=axes)
    assert not figure.legends
    assert texts(axes[0].get_legend().get_texts()) == ["original", "autoencoder", "PCA"]
    one = plt.subplots()[1]
    display = ReconstructionDisplay.from_estimator(trained, DIGITS, n_samples=1, ax=one)
    assert display.axes_.tolist() == [[one]] and one.axison


def test_fewer_rows_than_asked_for(trained):
    assert ReconstructionDisplay.from_estimator(trained, DIGITS[:2], image_shape=(8, 8)).axes_.shape == (3, 2)


def test_without_pca_rows_to_fit_it_on_can_be_handed_in():
    plain = AutoEncoderTransformer(2, linear_skip=False, **TINY).fit(DIGITS)
    assert list(ReconstructionDisplay.from_estimator(plain, DIGITS, n_samples=2).rows) == ["original", "autoencoder"]
    display = ReconstructionDisplay.from_estimator(plain, DIGITS[:50], n_samples=2, X_train=DIGITS)
    pca = PCA(2, svd_solver="full").fit(DIGITS)
    assert_allclose(display.rows["PCA"], reconstruct(pca, DIGITS[:2]), atol=1e-8)
    assert display.scores["PCA"] == pytest.approx(pca_score(pca, DIGITS[:50]))


def test_images_come_back_through_the_steps_before():
    pipeline = make_pipeline(StandardScaler(), AutoEncoderTransformer(3, **TINY)).fit(DIGITS)
    display = ReconstructionDisplay.from_estimator(pipeline, DIGITS, n_samples=2, image_shape=(8, 8))
    assert_array_equal(display.rows["original"], DIGITS[:2])
    assert_allclose(display.rows["autoencoder"], reconstruct(pipeline, DIGITS[:2]), atol=1e-10)
    pca = make_pipeline(StandardScaler(), PCA(3, svd_solver="full")).fit(DIGITS)
    assert_allclose(display.rows["PCA"], reconstruct(pca, DIGITS[:2]), atol=1e-8)
    assert display.scores["autoencoder"] == pipeline.score(DIGITS)


def test_profiles_are_what_the_autoencoder_sees(scaled, frame):
    display = ReconstructionDisplay.from_estimator(scaled, frame, n_samples=2)
    assert_array_equal(display.rows["original"], scaled[0].transform(frame)[:2])


def test_steps_that_cannot_be_undone(curved):
    pipeline = make_pipeline(PolynomialFeatures(2, include_bias=False), AutoEncoderTransformer(2, **TINY)).fit(curved)
    display = ReconstructionDisplay.from_estimator(pipeline, curved, n_samples=2, image_shape=(4, 5))
    assert_array_equal(display.rows["original"], pipeline[0].transform(curved[:2]))
    words = pd.DataFrame({"colour": ["red", "green", "blue", "blue"] * 5, "size": ["s", "m", "l", "s"] * 5})
    pipeline = make_pipeline(OneHotEncoder(), AutoEncoderTransformer(2, **TINY)).fit(words)
    display = ReconstructionDisplay.from_estimator(pipeline, words, n_samples=2, image_shape=(2, 3))
    assert_array_equal(display.rows["original"], pipeline[0].transform(words)[:2].toarray())


def test_containers_and_missing_values(frame):
    pandas = AutoEncoderTransformer(2, **TINY).set_output(transform="pandas").fit(frame)
    plain = AutoEncoderTransformer(2, **TINY).fit(frame)
    drawn = [ReconstructionDisplay.from_estimator(estimator, frame, n_samples=2).rows for estimator in (pandas, plain)]
    assert_array_equal(drawn[0]["autoencoder"], drawn[1]["autoencoder"])
    plain.fit(frame.to_numpy())
    sparse = ReconstructionDisplay.from_estimator(plain, scipy.sparse.csr_array(frame.to_numpy()), n_samples=3)
    assert_array_equal(sparse.rows["original"], frame[:3])
    holes = frame.mask(np.random.RandomState(0).uniform(size=frame.shape) < 0.2)
    estimator = AutoEncoderTransformer(2, allow_nan=True, max_epochs=0).fit(holes)
    display = ReconstructionDisplay.from_estimator(estimator, holes, n_samples=8, X_train=holes)
    assert_allclose(display.rows["PCA"], display.rows["autoencoder"], atol=1e-8)
    display = ReconstructionDisplay.from_estimator(estimator, holes)
    assert_allclose(display.rows["PCA"], display.rows["autoencoder"], atol=1e-8)
    assert display.scores["PCA"] == pytest.approx(display.scores["autoencoder"])
    assert np.isnan(display.rows["original"]).any() and np.isfinite(display.rows["PCA"]).all()


def test_three_channels_are_colours():
    X = np.random.RandomState(0).uniform(5, 9, (40, 12))
    estimator = AutoEncoderTransformer(2, max_epochs=0).fit(X)
    display = ReconstructionDisplay.from_estimator(estimator, X, n_samples=2, image_shape=(3, 2, 2))
    drawn = np.asarray(display.artists_["original"][1].get_array())
    shown = X[:2]
    scaled = (X[1] - shown.min()) / (shown.max() - shown.min())
    assert_allclose(drawn, np.moveaxis(scaled.reshape(3, 2, 2), 0, -1))
    display = LatentDisplay.from_estimator(estimator, X, image_shape=(3, 2, 2), n_images=3)
    mosaic = np.asarray(display.grid_.get_array())
    assert mosaic.shape == (6, 6, 4)
    assert_array_equal(mosaic[..., 3].reshape(3, 2, 3, 2)[:, 0, :, 0] == 0, np.isnan(display.images[::-1, :, 0, 0, 0]))


@pytest.mark.parametrize("n_samples", [0, 2.5, "all"])
def test_number_of_rows_is_checked(trained, n_samples):
    for display in ReconstructionDisplay, LatentLoadingsDisplay, AttributionDisplay:
        with pytest.raises(ValueError, match=rf"n_samples={n_samples!r} must be an integer of at least 1"):
            display.from_estimator(trained, DIGITS, n_samples=n_samples)


# The codes


@pytest.mark.parametrize("kind", ["numbers", "words", "booleans", "categories"])
def test_classes_have_colours_and_a_legend(trained, kind):
    y = {"numbers": LABELS, "words": np.array([f"digit {label}" for label in LABELS]), "booleans": LABELS > 4}.get(kind)
    y = pd.Series(LABELS).map({label: "even" if label % 2 == 0 else "odd" for label in range(10)}) if y is None else y
    display = LatentDisplay.from_estimator(trained, DIGITS, y)
    classes = np.unique(np.asarray(y))
    assert texts(display.ax_.get_legend().get_texts()) == [str(label) for label in classes]
    assert display.colorbar_ is None
    codes = trained.transform(DIGITS)
    for scatter, label in zip(display.scatters_, classes, strict=True):
        assert_array_equal(scatter.get_offsets(), codes[np.asarray(y) == label, :2])
    assert len({tuple(scatter.get_facecolor()[0]) for scatter in display.scatters_}) == len(classes)


def test_more_classes_than_colours_have_other_markers(trained):
    y = np.array([f"class {index % 13}" for index in range(200)])
    display = LatentDisplay.from_estimator(trained, DIGITS, y)
    looks = {(tuple(one.get_facecolor()[0]), one.get_paths()[0].vertices.tobytes()) for one in display.scatters_}
    assert len(looks) == 13


@pytest.mark.parametrize("y", [DIGITS.mean(axis=1), np.arange(200)], ids=["fractions", "many whole numbers"])
def test_values_have_a_colour_bar(trained, y):
    display = LatentDisplay.from_estimator(trained, DIGITS, pd.Series(y, name="ink"))
    (scatter,) = display.scatters_
    assert_array_equal(scatter.get_array(), y)
    assert display.colorbar_.ax.get_ylabel() == "ink"
    assert display.ax_.get_legend() is None


def test_codes_without_labels(trained):
    display = LatentDisplay.from_estimator(trained, DIGITS, components=(2, 1))
    (scatter,) = display.scatters_
    assert_array_equal(scatter.get_offsets(), trained.transform(DIGITS)[:, [2, 1]])
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("code 2", "code 1")
    assert display.grid_ is None and display.axes_.tolist() == [display.ax_]


def test_decoded_images_lie_where_their_codes_do(trained):
    ax = plt.subplots(1, 2)[1]
    display = LatentDisplay.from_estimator(trained, DIGITS, components=(0, 2), image_shape=(8, 8), n_images=5, ax=ax)
    left, right = display.axes_
    x_ends, y_ends = left.get_xlim(), left.get_ylim()
    assert display.grid_.get_extent() == [*x_ends, *y_ends]
    codes = trained.transform(DIGITS)
    column, row = (
        np.floor((codes[:, code] - ends[0]) / (ends[1] - ends[0]) * 5).astype(int)
        for code, ends in ((0, x_ends), (2, y_ends))
    )
    filled = np.zeros((5, 5), dtype=bool)
    filled[row, column] = True
    assert_array_equal(~np.isnan(display.images[..., 0, 0]), filled)
    assert 0 < filled.sum() < 25
    i, j = row[0], column[0]
    middle = [x_ends[0] + (j + 0.5) / 5 * (x_ends[1] - x_ends[0]), np.median(codes[:, 1])]
    middle.append(y_ends[0] + (i + 0.5) / 5 * (y_ends[1] - y_ends[0]))
    image = trained.inverse_transform([middle]).reshape(8, 8)
    assert_allclose(display.images[i, j], image, atol=1e-6)
    mosaic = np.asarray(display.grid_.get_array())
    assert_allclose(mosaic[(4 - i) * 8 : (5 - i) * 8, j * 8 : (j + 1) * 8], image, atol=1e-6)  # drawn from the top
    assert display.grid_.get_clim() == (DIGITS.min(), DIGITS.max())


def test_codes_and_images_of_a_pipeline():
    pipeline = make_pipeline(StandardScaler(), AutoEncoderTransformer(2, **TINY)).fit(DIGITS)
    display = LatentDisplay.from_estimator(pipeline, DIGITS, image_shape=(8, 8), n_images=1)
    assert_array_equal(display.codes, pipeline.transform(DIGITS))
    middle = [[np.mean(display.ax_.get_xlim()), np.mean(display.ax_.get_ylim())]]
    assert_allclose(display.images[0, 0].ravel(), pipeline.inverse_transform(middle)[0], atol=1e-8)


def test_equal_codes_can_be_drawn(trained):
    display = LatentDisplay.from_estimator(trained, DIGITS[[0, 0, 0]], image_shape=(8, 8), n_images=3)
    assert np.isfinite(display.images).any(axis=(2, 3)).sum() == 1


@pytest.mark.parametrize("components", [(0, 3), (0, 0), (0,), (0, 1, 2), 1, (0, -1), (0.0, 1.0), "01"])
def test_which_codes_is_checked(trained, components):
    with pytest.raises(ValueError, match=r"components=.* must be two different integers from 0 to 2"):
        LatentDisplay.from_estimator(trained, DIGITS, components=components)


def test_one_code_is_too_few(curved):
    with pytest.raises(ValueError, match=r"from 0 to 0: the autoencoder has n_components=1"):
        LatentDisplay.from_estimator(AutoEncoderTransformer(1, max_epochs=0).fit(curved), curved)


def test_labels_and_size_of_the_grid_are_checked(trained):
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        LatentDisplay.from_estimator(trained, DIGITS, LABELS[:-1])
    with pytest.raises(ValueError, match="n_images=0 must be an integer of at least 1"):
        LatentDisplay.from_estimator(trained, DIGITS, image_shape=(8, 8), n_images=0)


# The bottleneck


def held_out_pca(X, largest, splits):
    """Share of the held-out variance that scikit-learn's PCA explains, by size and fold."""
    sizes = range(1, largest + 1)
    return [[pca_score(PCA(k, svd_solver="full").fit(X[train]), X[test]) for train, test in splits] for k in sizes]


def test_curve_of_one_fit_a_fold(curved):
    estimator, splits = AutoEncoderTransformer(4, **TRAINED), list(KFold(2, shuffle=True, random_state=0).split(curved))
    curve = bottleneck_curve(estimator, curved, cv=iter(splits))
    assert not hasattr(estimator, "net_")
    assert_array_equal(curve.n_components, [1, 2, 3, 4])
    assert_array_equal(curve.test_scores[-1], cross_val_score(estimator, curved, cv=splits))
    assert_allclose(curve.pca_scores, held_out_pca(curved, 4, splits))
    assert (curve.test_scores > curve.pca_scores + 0.01).any()
    with parallel_config("threading"):
        parallel = bottleneck_curve(estimator, curved, cv=splits, n_jobs=2)
    assert_array_equal(parallel.test_scores, curve.test_scores)
    assert bottleneck_curve(AutoEncoderTransformer(max_epochs=0), curved).test_scores.shape == (2, 5)


def test_curve_adds_up_what_each_code_explains(curved):
    estimator, everything = AutoEncoderTransformer(4, **TRAINED).fit(curved), np.arange(len(curved))
    assert estimator.best_epoch_ > 0
    curve = bottleneck_curve(estimator, curved, cv=[(everything, everything)])
    assert_allclose(curve.test_scores[:, 0], np.cumsum(estimator.explained_variance_ratio_))


@pytest.mark.parametrize("convert", [scipy.sparse.csr_array, np.float32, pd.DataFrame], ids=lambda one: one.__name__)
def test_curve_of_other_containers(curved, convert):
    X = np.where(np.abs(curved) < 0.1, 0.0, curved)
    estimator = AutoEncoderTransformer(3, max_epochs=0)
    curve = bottleneck_curve(estimator, convert(X), cv=2)
    assert_allclose(curve.test_scores, held_out_pca(X, 3, list(KFold(2).split(X))), rtol=1e-4)
    assert_allclose(curve.pca_scores, curve.test_scores)


def test_curve_with_missing_values(curved):
    X = np.where(np.random.RandomState(0).uniform(size=curved.shape) < 0.1, np.nan, curved)
    estimator = AutoEncoderTransformer(3, allow_nan=True, **TRAINED)
    curve = bottleneck_curve(estimator, X, cv=2)
    assert_array_equal(curve.test_scores[-1], cross_val_score(estimator, X, cv=2))
    assert (np.diff(curve.pca_scores, axis=0) > 0).all()


def test_curve_with_weights_and_groups(curved):
    estimator, cv = AutoEncoderTransformer(2, **QUICK), GroupKFold(2)
    weights, groups = np.random.RandomState(0).uniform(size=60), np.arange(60) % 5
    curve = bottleneck_curve(estimator, curved, groups=groups, cv=cv, params={"sample_weight": weights})
    splits = list(cv.split(curved, groups=groups))
    expected = cross_validate(estimator, curved, cv=splits, params={"sample_weight": weights})
    assert_array_equal(curve.test_scores[-1], expected["test_score"])
    pca = cross_val_score(estimator.set_params(max_epochs=0), curved, cv=splits, params={"sample_weight": weights})
    assert_allclose(curve.pca_scores[-1], pca)


def test_curve_of_a_pipeline(frame):
    pipeline = make_pipeline(StandardScaler().set_output(transform="pandas"), AutoEncoderTransformer(2, **QUICK))
    y, cv = np.arange(len(frame)) % 2, StratifiedKFold(2)
    params = {"autoencodertransformer__sample_weight": np.linspace(1, 2, len(frame))}
    curve = bottleneck_curve(pipeline, frame, y, cv=cv, params=params)
    assert_array_equal(curve.test_scores[-1], cross_validate(pipeline, frame, y, cv=cv, params=params)["test_score"])
    scaled = [StandardScaler().fit(frame.iloc[train]).transform(frame) for train, _ in cv.split(frame, y)]
    curve = bottleneck_curve(pipeline, frame, y, cv=cv)
    parts = [held_out_pca(X, 2, [split]) for X, split in zip(scaled, cv.split(frame, y), strict=True)]
    assert_allclose(curve.pca_scores, np.hstack(parts))


def test_curve_beyond_the_sizes_of_pca(curved):
    regularizer = Denoising()
    curve = bottleneck_curve(AutoEncoderTransformer(7, regularizer=regularizer, **QUICK), curved, cv=2)
    assert np.isfinite(curve.test_scores).all()
    assert_allclose(curve.pca_scores[4], 1.0)
    assert np.isnan(curve.pca_scores[5:]).all()


def test_curve_needs_ordered_codes_and_a_largest_size(curved):
    unordered = AutoEncoderTransformer(ordered=False, **QUICK)
    for estimator in unordered, make_pipeline(StandardScaler(), unordered):
        with pytest.raises(ValueError, match=r"ordered=False gives codes without an order.* Set ordered=True, or fit"):
            bottleneck_curve(estimator, curved)
    assert bottleneck_curve(unordered.set_params(regularizer="nested"), curved, cv=2).test_scores.shape == (2, 2)
    with pytest.raises(ValueError, match="n_components=0.9 must be an integer, the largest size of the curve"):
        bottleneck_curve(AutoEncoderTransformer(0.9), curved)
    with pytest.raises(ValueError, match="n_components=6 must not exceed n_features=5"):
        bottleneck_curve(AutoEncoderTransformer(6, max_epochs=0), curved, cv=2)
    with pytest.raises(TypeError, match="Pass the steps of a pipeline up to it"):
        bottleneck_curve(make_pipeline(AutoEncoderTransformer(), LogisticRegression()), curved)


def test_bottlenecks_are_drawn(curved):
    estimator, ax = AutoEncoderTransformer(3, **QUICK), plt.subplots()[1]
    options = {"cv": GroupKFold(2), "groups": np.arange(60) % 5, "params": {"sample_weight": np.arange(60)}}
    curve = bottleneck_curve(estimator, curved, **options)
    display = BottleneckDisplay.from_estimator(estimator, curved, **options, ax=ax)
    assert display.ax_ is ax
    for line, band, scores in zip(
        display.lines_, display.fill_between_, (curve.test_scores, curve.pca_scores), strict=True
    ):
        assert_array_equal(line.get_data(), [[1, 2, 3], scores.mean(axis=1)])
        low, high = band.get_paths()[0].get_extents().intervaly
        assert low == pytest.approx((scores.mean(axis=1) - scores.std(axis=1)).min())
        assert high == pytest.approx((scores.mean(axis=1) + scores.std(axis=1)).max())
    assert texts(ax.get_legend().get_texts()) == ["autoencoder", "PCA"]
    assert ax.get_ylabel() == "held-out explained variance ratio"
    without = BottleneckDisplay(n_components=curve.n_components, test_scores=curve.test_scores).plot()
    assert len(without.lines_) == 1


# What drives the codes


def test_loadings_of_a_linear_autoencoder_are_the_components(curved):
    estimator = AutoEncoderTransformer(2, max_epochs=0).fit(curved)
    pca = PCA(2, svd_solver="full").fit(curved)
    display = LatentLoadingsDisplay.from_estimator(estimator, curved, step="unit")
    assert_allclose(display.encoder, pca.components_.T, atol=1e-8)
    assert_allclose(display.decoder, pca.components_.T, atol=1e-8)
    display = LatentLoadingsDisplay.from_estimator(estimator, curved)
    assert_allclose(display.encoder, pca.components_.T * curved.std(axis=0)[:, np.newaxis], atol=1e-8)
    assert_allclose(display.decoder, pca.components_.T * pca.transform(curved).std(axis=0), atol=1e-8)


def jacobian_rms(function, rows, step=1e-5):
    """Derivatives of a function of rows, of shape (n_samples, n_in, n_out), by differences."""
    moves = step * np.eye(rows.shape[1])
    return np.stack([(function(rows + move) - function(rows - move)) / (2 * step) for move in moves], axis=1)


@pytest.mark.parametrize("average", ["mean", "rms"])
@pytest.mark.parametrize(
    "parameters", [{}, {"whiten": True}, {"architecture": "tied"}, {"linear_skip": False}], ids=str
)
def test_loadings_are_average_slopes(average, parameters):
    X = 3 * curved_rows(60)
    # The slopes are those of the encoder.
    estimator = AutoEncoderTransformer(2, **TRAINED, **parameters, projection_steps=0).fit(X)
    inside = 0.8 * X
    display = LatentLoadingsDisplay.from_estimator(estimator, inside, average=average, step="unit", n_samples=20)
    rows = inside[np.linspace(0, 59, 20).round().astype(int)]

    def averaged(values):
        return values.mean(axis=0) if average == "mean" else np.sqrt(np.square(values).mean(axis=0))

    assert_allclose(display.encoder, averaged(jacobian_rms(estimator.transform, rows)), atol=1e-4)
    decoded = averaged(jacobian_rms(estimator.inverse_transform, estimator.transform(rows)))
    assert_allclose(display.decoder, decoded.T, atol=1e-4)
    assert np.abs(display.encoder).max() > 0.01


def test_heat_maps_have_names_and_zero_in_the_middle(scaled, frame):
    display = LatentLoadingsDisplay.from_estimator(scaled, frame, components=[1])
    assert display.axes_.shape == (1, 2)
    assert texts(display.axes_[0, 0].get_yticklabels()) == list(frame.columns)
    assert texts(display.axes_[0, 1].get_xticklabels()) == ["code 1"]
    for name in "encoder", "decoder":
        (image,) = display.artists_[name]
        assert_array_equal(image.get_array(), getattr(display, name))
        low, high = image.get_clim()
        assert low == -high == -np.abs(getattr(display, name)).max()
    assert [bar.ax.get_ylabel() for bar in display.colorbars_] == ["change of code", "change of feature"]


def test_names_come_from_frames_steps_or_the_caller(frame):
    for estimator in (
        AutoEncoderTransformer(2, max_epochs=0),
        make_pipeline(StandardScaler(), AutoEncoderTransformer(2, max_epochs=0)),
    ):
        display = LatentLoadingsDisplay.from_estimator(estimator.fit(frame), frame)
        assert list(display.feature_names) == list(frame.columns)
    plain = AutoEncoderTransformer(2, max_epochs=0).fit(frame.to_numpy())
    display = LatentLoadingsDisplay.from_estimator(plain, frame.to_numpy())
    assert display.feature_names is None
    assert texts(display.axes_[0, 0].get_yticklabels()) == list("01234")
    display = LatentLoadingsDisplay.from_estimator(plain, frame.to_numpy(), feature_names=list("abcde"))
    assert texts(display.axes_[0, 0].get_yticklabels()) == list("abcde")
    with pytest.raises(ValueError, match="feature_names has 2 names, but there are 5 features"):
        LatentLoadingsDisplay.from_estimator(plain, frame.to_numpy(), feature_names=["a", "b"])


def test_steps_without_feature_names_number_the_features(curved):
    pipeline = make_pipeline(FunctionTransformer(), AutoEncoderTransformer(2, max_epochs=0)).fit(curved)
    assert LatentLoadingsDisplay.from_estimator(pipeline, curved).feature_names is None


def test_loadings_as_images(trained):
    display = LatentLoadingsDisplay.from_estimator(trained, DIGITS, average="rms", image_shape=(8, 8))
    assert display.axes_.shape == (2, 3)
    assert [ax.get_title() for ax in display.axes_[0]] == ["code 0", "code 1", "code 2"]
    for code in range(3):
        image = display.artists_["decoder"][code]
        assert_array_equal(image.get_array(), display.decoder[:, code].reshape(8, 8))
        assert image.get_clim() == (0, display.decoder.max())
    signed = LatentLoadingsDisplay.from_estimator(trained, DIGITS, image_shape=(8, 8))
    assert (np.abs(signed.encoder) <= display.encoder + 1e-12).all()
    assert signed.artists_["encoder"][0].get_cmap().name == "RdBu_r"


def test_loadings_of_coloured_images():
    X = np.random.RandomState(0).uniform(5, 9, (40, 12))
    estimator = AutoEncoderTransformer(2, max_epochs=0).fit(X)
    display = LatentLoadingsDisplay.from_estimator(estimator, X, image_shape=(3, 2, 2))
    image = display.artists_["encoder"][1].get_array()
    assert_allclose(image, display.encoder[:, 1].reshape(3, 2, 2).mean(axis=0))


def test_loadings_of_sparse_and_incomplete_rows(curved):
    holes = np.where(np.random.RandomState(0).uniform(size=curved.shape) < 0.2, np.nan, curved)
    estimator = AutoEncoderTransformer(2, allow_nan=True, **TINY).fit(holes)
    display = LatentLoadingsDisplay.from_estimator(estimator, holes)
    assert np.isfinite(display.encoder).all() and np.isfinite(display.decoder).all()
    estimator = AutoEncoderTransformer(2, **TINY).fit(curved)
    kinds = curved, scipy.sparse.csr_array(curved)
    dense, sparse = (LatentLoadingsDisplay.from_estimator(estimator, X).encoder for X in kinds)
    assert_array_equal(dense, sparse)


def test_parameters_of_loadings_are_checked(trained):
    with pytest.raises(ValueError, match="average='median' must be 'mean' or 'rms'"):
        LatentLoadingsDisplay.from_estimator(trained, DIGITS, average="median")
    with pytest.raises(ValueError, match="step='big' must be 'spread' or 'unit'"):
        LatentLoadingsDisplay.from_estimator(trained, DIGITS, step="big")
    with pytest.raises(ValueError, match="step='spread' needs at least 2 samples, but X has 1"):
        LatentLoadingsDisplay.from_estimator(trained, DIGITS[:1])
    for components in ([], [3], [0.5], "0"):
        with pytest.raises(ValueError, match="components=.* must be integers from 0 to 2"):
            LatentLoadingsDisplay.from_estimator(trained, DIGITS, components=components)


# The contributions to a code, and the errors of outliers


def lengths(bars):
    return [bar.get_width() for bar in bars]


def test_largest_contributions_are_bars(scaled, frame):
    display = AttributionDisplay.from_estimator(scaled, frame, components=[1, 0], n_samples=2, n_features=3)
    values = attributions(scaled, frame[:2])[:, [1, 0]]
    assert_array_equal(display.attributions, values)
    assert display.axes_.shape == display.artists_.shape == (2, 2)
    assert display.colorbar_ is None
    assert [ax.get_title() for ax in display.axes_[0]] == ["code 1", "code 0"]
    assert [ax.get_xlabel() for ax in display.axes_[1]] == ["contribution"] * 2
    for index, ax in np.ndenumerate(display.axes_):
        largest = np.argsort(-np.abs(values[index]))[:3]
        assert_array_equal(lengths(display.artists_[index]), values[index][largest])
        assert texts(ax.get_yticklabels()) == list(frame.columns[largest])
        assert ax.yaxis_inverted()  # the largest is at the top


def test_contributions_as_images(trained):
    display = AttributionDisplay.from_estimator(trained, DIGITS, image_shape=(8, 8))
    for index, image in np.ndenumerate(display.artists_):
        assert_array_equal(image.get_array(), display.attributions[index].reshape(8, 8))
        assert image.get_clim() == (-np.abs(display.attributions).max(), np.abs(display.attributions).max())
    assert display.colorbar_.ax.get_ylabel() == "contribution"


def test_channels_of_contributions_are_summed():
    display = AttributionDisplay(attributions=np.arange(12.0).reshape(1, 1, 12), image_shape=(3, 2, 2)).plot()
    assert_array_equal(display.artists_[0, 0].get_array(), [[12, 15], [18, 21]])


def test_features_and_codes_without_names_are_numbered(curved):
    estimator = AutoEncoderTransformer(5, max_epochs=0).fit(curved)
    display = AttributionDisplay.from_estimator(estimator, curved, n_samples=1)
    assert [ax.get_title() for ax in display.axes_[0]] == ["code 0", "code 1", "code 2", "code 3"]
    assert set(texts(display.axes_[0, 0].get_yticklabels())) == set("01234")
    assert display.axes_[0, 0].get_ylabel() == "feature"
    with pytest.raises(ValueError, match=r"components=\[5\] must be integers from 0 to 4"):
        AttributionDisplay.from_estimator(estimator, curved, components=[5])
    with pytest.raises(ValueError, match="feature_names has 1 names, but there are 5 features"):
        AttributionDisplay.from_estimator(estimator, curved, feature_names=["a"])
    with pytest.raises(ValueError, match="n_features=0 must be an integer of at least 1"):
        AttributionDisplay.from_estimator(estimator, curved, n_features=0)


@pytest.mark.parametrize(
    "around",
    [
        lambda estimator: estimator,
        lambda estimator: make_pipeline(estimator),
        lambda estimator: make_pipeline(StandardScaler(), estimator),
        lambda estimator: GridSearchCV(make_pipeline(StandardScaler(), estimator), {"standardscaler": [None]}, cv=2),
        lambda estimator: make_pipeline(StandardScaler(), GridSearchCV(estimator, {"n_components": [2]}, cv=2)),
    ],
    ids=["autoencoder", "pipeline of one", "pipeline", "search", "search in a pipeline"],
)
def test_errors_of_the_worst_samples_are_bars(frame, around):
    detector = AutoEncoderOutlierDetector(around(AutoEncoderTransformer(2, max_epochs=0)), random_state=0).fit(frame)
    X = frame.copy()
    X.loc[7, "uu"] += 5000
    display = ReconstructionErrorDisplay.from_estimator(detector, X, n_samples=2, n_features=2)
    assert display.samples == list(np.argsort(detector.score_samples(X))[:2])
    assert display.samples[0] == 7
    assert_array_equal(display.errors, detector.reconstruction_errors(X.iloc[display.samples]))
    assert display.axes_.shape == (1, 2)
    assert display.axes_[0, 0].get_title() == "sample 7"
    assert display.axes_[0, 0].get_xlabel() == "squared error"
    largest = np.argsort(-display.errors[0])[:2]
    assert texts(display.axes_[0, 0].get_yticklabels()) == list(frame.columns[largest])
    assert_array_equal(lengths(display.artists_[0, 0]), display.errors[0][largest])


def test_errors_as_images():
    estimator = AutoEncoderTransformer(
        2, architecture="conv", input_shape=(1, 8, 8), **{**TINY, "hidden_layer_sizes": (4, 8)}
    )
    detector = AutoEncoderOutlierDetector(estimator, random_state=0).fit(DIGITS)
    display = ReconstructionErrorDisplay.from_estimator(detector, DIGITS, n_samples=3)
    for image, errors in zip(display.artists_[0], display.errors, strict=True):
        assert_array_equal(image.get_array(), errors.reshape(8, 8))
        assert image.get_clim() == (0, display.errors.max())
    assert display.colorbar_.ax.get_ylabel() == "squared error"
    assert ReconstructionErrorDisplay.from_estimator(detector, DIGITS, image_shape=None).colorbar_ is None
    with pytest.raises(ValueError, match=r"image_shape=\(3, 3\) must be"):
        ReconstructionErrorDisplay.from_estimator(detector, DIGITS, image_shape=(3, 3))


def test_missing_values_have_no_errors_to_draw(curved):
    estimator = AutoEncoderTransformer(2, allow_nan=True, max_epochs=0)
    detector = AutoEncoderOutlierDetector(estimator, random_state=0).fit(curved)
    curved[0, :4] = [np.nan, np.nan, 9.0, np.nan]
    display = ReconstructionErrorDisplay.from_estimator(detector, curved, n_samples=1, n_features=5)
    assert display.samples == [0]
    assert texts(display.axes_[0, 0].get_yticklabels())[0] == "2"
    assert_array_equal(np.isnan(lengths(display.artists_[0, 0])), [False, False, True, True, True])


def test_only_detectors_have_errors_to_draw(trained, curved):
    with pytest.raises(TypeError, match="detector must be an AutoEncoderOutlierDetector, got AutoEncoderTransformer"):
        ReconstructionErrorDisplay.from_estimator(trained, DIGITS)
    with pytest.raises(NotFittedError):
        ReconstructionErrorDisplay.from_estimator(AutoEncoderOutlierDetector(), curved)
    detector = AutoEncoderOutlierDetector(AutoEncoderTransformer(1, max_epochs=0), random_state=0).fit(curved)
    for name in "n_samples", "n_features":
        with pytest.raises(ValueError, match=f"{name}=0 must be an integer of at least 1"):
            ReconstructionErrorDisplay.from_estimator(detector, curved, **{name: 0})
