"""The estimator's contract: members, dtypes, awkward inputs, errors."""

import numpy as np
import pytest
import torch
from helpers import TINY, TRAINED, curved_rows, noise_rows, pca_score
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError

from skae import AutoEncoderTransformer


class TestMembers:
    def test_attributes(self, curved):
        estimator = AutoEncoderTransformer(2, **{**TINY, "max_epochs": 5}).fit(curved)
        assert estimator.n_components_ == 2
        assert estimator.n_features_in_ == 5
        assert not hasattr(estimator, "feature_names_in_")
        np.testing.assert_allclose(estimator.mean_, curved.mean(axis=0), rtol=1e-12, atol=1e-14)
        assert len(estimator.loss_curve_) == estimator.n_iter_ >= 5
        assert estimator.validation_epochs_[:2] == [0, 5]
        assert estimator.validation_epochs_[-1] == estimator.n_iter_
        assert len(estimator.validation_scores_) == len(estimator.validation_epochs_)
        assert estimator.best_epoch_ in estimator.validation_epochs_
        assert str(estimator.device_) == "cpu"
        assert all(isinstance(number, float) for number in estimator.loss_curve_ + estimator.validation_scores_)

    def test_attributes_without_early_stopping(self, curved):
        estimator = AutoEncoderTransformer(2, **TRAINED).fit(curved)
        assert estimator.validation_scores_ is None
        assert estimator.validation_epochs_ == []
        assert estimator.n_iter_ == len(estimator.loss_curve_) == estimator.best_epoch_ == 5

    def test_attributes_at_the_start(self, curved):
        estimator = AutoEncoderTransformer(2, max_epochs=0).fit(curved)
        assert estimator.n_iter_ == estimator.best_epoch_ == 0
        assert estimator.loss_curve_ == []

    def test_net_is_a_fitted_skorch_net_in_evaluation_mode(self, curved):
        from skorch import NeuralNet

        estimator = AutoEncoderTransformer(2, **TRAINED).fit(curved)
        assert isinstance(estimator.net_, NeuralNet)
        assert estimator.net_.initialized_
        assert not any(module.training for module in estimator.net_.module_.modules())
        encoded = estimator.net_.module_.encode(torch.as_tensor(curved)).detach().numpy()
        np.testing.assert_allclose(estimator.net_.predict(curved), estimator.inverse_transform(encoded), rtol=1e-10)
        assert not estimator.net_.module_.training
        assert [row["epoch"] for row in estimator.net_.history] == [1, 2, 3, 4, 5]
        np.testing.assert_array_equal(estimator.net_.history[:, "train_loss"], estimator.loss_curve_)

    def test_fit_ignores_y(self, curved):
        X = curved
        expected = AutoEncoderTransformer(2, **TRAINED).fit(X).transform(X)
        for y in (["a"] * len(X), np.full(len(X), np.nan), "nonsense", X):
            np.testing.assert_array_equal(AutoEncoderTransformer(2, **TRAINED).fit(X, y).transform(X), expected)

    def test_fit_starts_afresh(self, curved):
        estimator = AutoEncoderTransformer(2, **TRAINED).fit(curved)
        first = estimator.transform(curved)
        estimator.fit(noise_rows()).fit(curved)
        np.testing.assert_array_equal(estimator.transform(curved), first)
        assert estimator.n_features_in_ == 5

    def test_training_changes_the_codes(self, curved):
        estimator = AutoEncoderTransformer(2, **TRAINED).fit(curved)
        assert np.abs(estimator.transform(curved) - PCA(2).fit_transform(curved)).max() > 1e-3
        assert estimator.score(curved) > pca_score(PCA(2).fit(curved), curved)

    def test_early_stopping_chooses_the_best_epoch(self, curved):
        """What is kept is the best of the validation scores, or the start."""
        # Twenty epochs do not order the codes.
        estimator = AutoEncoderTransformer(2, hidden_layer_sizes=32, max_epochs=20, random_state=0, ordered=False)
        estimator.fit(curved_rows(400))
        score_after = dict(zip(estimator.validation_epochs_, estimator.validation_scores_, strict=True))
        assert estimator.best_epoch_ > 0
        assert score_after[estimator.best_epoch_] == max(score_after.values()) > score_after[0]
        assert estimator.n_iter_ == estimator.validation_epochs_[-1]

    def test_score_is_the_share_of_variance(self, curved):
        estimator = AutoEncoderTransformer(2, **TRAINED).fit(curved)
        other = curved_rows(30, seed=1) + 0.1
        reconstruction = estimator.inverse_transform(estimator.transform(other))
        share = 1.0 - np.square(other - reconstruction).sum() / np.square(other - estimator.mean_).sum()
        score = estimator.score(other)
        assert type(score) is float
        assert score == pytest.approx(share, rel=1e-10)
        assert estimator.score(other, y=["ignored"]) == score

    def test_score_of_the_mean_row(self):
        X = noise_rows()
        estimator = AutoEncoderTransformer(2, max_epochs=0).fit(X)
        assert AutoEncoderTransformer(1).fit(np.ones((5, 3))).score(np.ones((2, 3))) == 1.0
        assert estimator.score(X) == pytest.approx(PCA(2).fit(X).explained_variance_ratio_.sum(), abs=1e-12)

    def test_score_samples(self, curved):
        estimator = AutoEncoderTransformer(2, **TRAINED).fit(curved)
        rows = np.vstack([curved, 50 * np.ones((1, 5)) * [1, -1, 1, -1, 1]])
        scores = estimator.score_samples(rows)
        reconstruction = estimator.inverse_transform(estimator.transform(rows))
        np.testing.assert_allclose(scores, -np.square(rows - reconstruction).mean(axis=1), rtol=1e-9)
        assert scores.argmin() == len(curved)
        assert scores.shape == (61,)

    def test_feature_names_out(self, curved):
        estimator = AutoEncoderTransformer(3, max_epochs=0).fit(curved)
        names = estimator.get_feature_names_out()
        assert list(names) == [f"autoencodertransformer{index}" for index in range(3)]
        assert list(estimator.get_feature_names_out(["a"] * 5)) == list(names)

    def test_feature_names_in(self, curved):
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(curved, columns=list("abcde"))
        estimator = AutoEncoderTransformer(2, max_epochs=0).fit(frame)
        assert list(estimator.feature_names_in_) == list("abcde")
        with pytest.raises(ValueError, match="The feature names should match those that were passed during fit"):
            estimator.transform(frame[list("edcba")])

    def test_signature(self):
        names = list(AutoEncoderTransformer().get_params())
        assert "kwargs" not in names
        assert AutoEncoderTransformer(7).n_components == 7
        with pytest.raises(TypeError, match="positional"):
            AutoEncoderTransformer(2, 100)

    def test_unfitted(self, curved):
        for method in ("transform", "inverse_transform", "score", "score_samples"):
            with pytest.raises(NotFittedError):
                getattr(AutoEncoderTransformer(), method)(curved)


class TestSizes:
    @pytest.mark.parametrize("sizes", [7, (7,), [7, 4], np.array([7, 4]), np.int64(7), [], ()])
    def test_sizes_may_be_any_sequence(self, sizes, curved):
        estimator = clone(AutoEncoderTransformer(2, **{**TRAINED, "hidden_layer_sizes": sizes})).fit(curved)
        expected = [7, 4] if np.ndim(sizes) and len(sizes) == 2 else [7] if np.size(sizes) else []
        widths = [
            layer.out_features for layer in estimator.net_.module_.modules() if isinstance(layer, torch.nn.Linear)
        ]
        assert widths == [*expected, 2, *expected[::-1], 5]

    @pytest.mark.parametrize("decoder", [3, (3,), [3]])
    def test_decoder_of_its_own(self, decoder, curved):
        sizes = {"hidden_layer_sizes": (8, 6), "decoder_layer_sizes": decoder}
        estimator = AutoEncoderTransformer(2, **{**TRAINED, **sizes}).fit(curved)
        widths = [
            layer.out_features for layer in estimator.net_.module_.modules() if isinstance(layer, torch.nn.Linear)
        ]
        assert widths == [8, 6, 2, 3, 5]

    @pytest.mark.parametrize("n_features, n_components", [(5, 2), (784, 8), (2000, 100)])
    def test_automatic_sizes_shrink_towards_the_bottleneck(self, n_features, n_components):
        X = np.random.RandomState(0).standard_normal((n_components + 1, n_features))
        module = AutoEncoderTransformer(n_components, max_epochs=0, linear_skip=False).fit(X).net_.module_
        widths = [layer.out_features for layer in module.modules() if isinstance(layer, torch.nn.Linear)]
        middle = widths.index(n_components)
        assert all(a > b for a, b in zip(widths[:middle], widths[1 : middle + 1], strict=True))
        assert widths[:middle] == widths[middle + 1 : -1][::-1]
        assert middle >= 1

    @pytest.mark.parametrize("activation", ["gelu", "relu", "silu", "elu", "tanh", "logistic", "identity"])
    def test_activations_differ(self, activation, curved):
        parameters = {**TRAINED, "linear_skip": False, "max_epochs": 1}
        codes = AutoEncoderTransformer(2, activation=activation, **parameters).fit(curved).transform(curved)
        other = "tanh" if activation != "tanh" else "relu"
        assert not np.allclose(
            codes, AutoEncoderTransformer(2, activation=other, **parameters).fit(curved).transform(curved)
        )

    def test_alpha_shrinks_the_weights(self, curved):
        def size(**parameters):
            parameters = {**TRAINED, "linear_skip": False, "max_epochs": 20, **parameters}
            module = AutoEncoderTransformer(2, **parameters).fit(curved).net_.module_
            return sum(float(weight.detach().square().sum()) for weight in module.parameters())

        for optimizer in ("adam", "adamw", "sgd", "lbfgs"):
            assert size(optimizer=optimizer, alpha=1.0) < 0.99 * size(optimizer=optimizer)


class TestDtypes:
    @pytest.mark.parametrize("fitted", [np.float32, np.float64])
    @pytest.mark.parametrize("given", [np.float32, np.float64])
    def test_kept_in_every_direction(self, fitted, given, curved):
        estimator = AutoEncoderTransformer(2, **TRAINED).fit(curved.astype(fitted))
        codes = estimator.transform(curved.astype(given))
        assert codes.dtype == given
        assert estimator.inverse_transform(codes).dtype == given
        assert estimator.fit_transform(curved.astype(given)).dtype == given
        assert estimator.score_samples(curved.astype(given)).dtype.kind == "f"

    def test_float64_rows_are_not_rounded_by_a_float32_model(self):
        """Where PCA is kept, float64 rows come back to more digits than float32 has."""
        X = noise_rows(30, 4)
        estimator = AutoEncoderTransformer(4, max_epochs=0).fit(X.astype(np.float32))
        shifted = X + np.linspace(0, 1e-9, 30)[:, np.newaxis]
        moved = estimator.transform(shifted) - estimator.transform(X)
        assert np.abs(moved[-1]).max() > 1e-10
        assert np.ptp(moved, axis=0).max() > 1e-10

    def test_the_two_precisions_agree(self, curved):
        double = AutoEncoderTransformer(2, **TRAINED).fit(curved)
        single = AutoEncoderTransformer(2, **TRAINED).fit(curved.astype(np.float32))
        assert single.score(curved) == pytest.approx(double.score(curved), abs=1e-2)

    @pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "bool", "float16", ">f8", ">f4", ">i4", "object"])
    def test_everything_else_becomes_float64(self, dtype):
        numbers = np.random.RandomState(0).randint(0, 2 if dtype == "bool" else 100, (40, 5))
        X = numbers.astype(dtype)
        plain = numbers.astype(np.float64)
        estimator = AutoEncoderTransformer(2, **TRAINED).fit(X)
        codes = estimator.transform(X)
        assert codes.dtype == np.float64
        assert codes.dtype.isnative
        np.testing.assert_array_equal(codes, AutoEncoderTransformer(2, **TRAINED).fit(plain).transform(plain))
        foreign = codes.astype(codes.dtype.newbyteorder())
        np.testing.assert_array_equal(estimator.inverse_transform(foreign), estimator.inverse_transform(codes))

    def test_lists(self, curved):
        codes = AutoEncoderTransformer(2, **TRAINED).fit_transform(curved.tolist())
        np.testing.assert_array_equal(codes, AutoEncoderTransformer(2, **TRAINED).fit_transform(curved))

    def test_layout_does_not_matter(self, curved, tmp_path):
        X = curved
        expected = AutoEncoderTransformer(2, **TRAINED).fit_transform(X)
        file = tmp_path / "rows.bin"
        X.tofile(file)
        wide = np.zeros((120, 10))
        wide[::2, ::2] = X
        layouts = {
            "read-only memory map": np.memmap(file, mode="r", shape=X.shape, dtype=X.dtype),
            "Fortran order": np.asfortranarray(X),
            "negative strides": X[::-1, ::-1].copy()[::-1, ::-1],
            "view with gaps": wide[::2, ::2],
        }
        for name, layout in layouts.items():
            estimator = AutoEncoderTransformer(2, **TRAINED).fit(layout)
            codes = estimator.transform(layout)
            # Sums over another order of the memory may round otherwise.
            np.testing.assert_allclose(codes, expected, rtol=0, atol=1e-6, err_msg=name)
            reconstruction = estimator.inverse_transform(codes)
            backwards = np.ascontiguousarray(codes[::-1, ::-1])[::-1, ::-1]
            np.testing.assert_array_equal(estimator.inverse_transform(backwards), reconstruction, err_msg=name)
            assert estimator.score(layout) == pytest.approx(estimator.score(X), rel=1e-10)

    def test_input_is_left_alone(self, curved):
        before = curved.copy()
        estimator = AutoEncoderTransformer(2, **TRAINED).fit(curved)
        codes = estimator.transform(curved)
        kept = codes.copy()
        estimator.inverse_transform(codes)
        estimator.score(curved)
        np.testing.assert_array_equal(curved, before)
        np.testing.assert_array_equal(codes, kept)


class TestIndependenceOfRows:
    @pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-12), (np.float32, 1e-5)])
    def test_batch_and_order(self, dtype, tolerance, curved):
        X = curved.astype(dtype)
        estimator = AutoEncoderTransformer(2, **TRAINED).fit(X)
        order = np.random.RandomState(0).permutation(len(X))
        for function, rows in [
            (estimator.transform, X),
            (estimator.inverse_transform, estimator.transform(X)),
            (estimator.score_samples, X),
        ]:
            whole = function(rows)
            size = np.abs(whole).max()
            one_by_one = np.concatenate([function(row[np.newaxis]) for row in rows])
            np.testing.assert_allclose(one_by_one, whole, rtol=0, atol=tolerance * size)
            np.testing.assert_allclose(function(rows[order]), whole[order], rtol=0, atol=tolerance * size)

    def test_many_rows_are_mapped_in_pieces(self, curved):
        estimator = AutoEncoderTransformer(2, **TRAINED).fit(curved)
        many = np.tile(curved, (5000, 1))  # more values than one pass takes
        codes = estimator.transform(many)
        np.testing.assert_allclose(codes, np.tile(estimator.transform(curved), (5000, 1)), rtol=0, atol=1e-12)
        assert estimator.score(many) == pytest.approx(estimator.score(curved), rel=1e-10)


class TestAwkwardData:
    def test_one_feature(self):
        X = np.random.RandomState(0).standard_normal((30, 1)) * 5 + 2
        estimator = AutoEncoderTransformer(1, **TINY).fit(X)
        np.testing.assert_allclose(estimator.inverse_transform(estimator.transform(X)), X, rtol=1e-10)
        np.testing.assert_allclose(estimator.transform(X), PCA(1).fit_transform(X), rtol=1e-10)

    @pytest.mark.parametrize("parameters", [{}, {"early_stopping": False}, {"linear_skip": False}])
    def test_constant_columns(self, parameters, curved):
        X = np.insert(curved, [0, 3], [7.1, 1e9], axis=1)
        estimator = AutoEncoderTransformer(2, **{**TINY, **parameters}).fit(X)
        reconstruction = estimator.inverse_transform(estimator.transform(X))
        np.testing.assert_allclose(reconstruction[:, [0, 4]], X[:, [0, 4]], rtol=1e-9)
        X[0, 0] += 1000.0  # a constant column that moves later
        assert np.isfinite(estimator.transform(X)).all()
        assert estimator.score(X) < 1

    @pytest.mark.parametrize("value", [0.0, 0.1, -3e10, 1e-300])
    @pytest.mark.parametrize("parameters", [{}, {"early_stopping": False}, {"linear_skip": False}, {"whiten": True}])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_all_constant(self, value, parameters, dtype):
        X = np.full((25, 4), value, dtype=dtype)
        estimator = AutoEncoderTransformer(2, **{**TINY, **parameters}).fit(X)
        codes = estimator.transform(X)
        assert np.isfinite(codes).all()
        assert np.ptp(codes, axis=0).max() == 0
        np.testing.assert_allclose(estimator.inverse_transform(codes), X, rtol=1e-6)
        assert np.isfinite(estimator.score(X))

    @pytest.mark.parametrize("parameters", [{}, {"early_stopping": False}, {"linear_skip": False}])
    def test_duplicates_only(self, parameters):
        X = np.tile([[1.0, 2.0, 3.0], [3.0, 1.0, 0.0]], (20, 1))
        estimator = AutoEncoderTransformer(2, **{**TINY, **parameters}).fit(X)
        codes = estimator.transform(X)
        np.testing.assert_array_equal(codes[::2], codes[:1].repeat(20, axis=0))
        if parameters.get("linear_skip", True):
            np.testing.assert_allclose(estimator.inverse_transform(codes), X, atol=1e-9)
            assert estimator.score(X) == pytest.approx(1.0)

    @pytest.mark.parametrize("n_samples", [2, 3, 4, 5, 9, 11])
    @pytest.mark.parametrize("parameters", [{}, {"early_stopping": False}, {"linear_skip": False}])
    def test_few_rows(self, n_samples, parameters):
        X = noise_rows(n_samples, 4)
        estimator = AutoEncoderTransformer(2, **{**TINY, **parameters}).fit(X)
        assert estimator.transform(X).shape == (n_samples, 2)
        assert np.isfinite(estimator.score(X))

    @pytest.mark.parametrize("batch_size", [1, 2, 7, 59, 60, 1000])
    def test_batch_sizes(self, batch_size, curved):
        estimator = AutoEncoderTransformer(2, **{**TRAINED, "batch_size": batch_size}).fit(curved)
        assert np.isfinite(estimator.loss_curve_).all()
        assert len(estimator.loss_curve_) == 5

    @pytest.mark.parametrize("fraction", [1e-6, 0.1, 0.5, 0.9, 1 - 1e-6])
    def test_validation_fractions(self, fraction, curved):
        estimator = AutoEncoderTransformer(2, **TINY, validation_fraction=fraction).fit(curved)
        assert np.isfinite(estimator.score(curved))

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("exponent", [-40, 40])
    def test_units_do_not_matter(self, dtype, exponent, curved):
        """Powers of two scale without rounding, so the training is the same; 2**40 is about 1e12."""
        X = curved.astype(dtype)
        scale = dtype(2.0) ** exponent
        plain = AutoEncoderTransformer(2, **TRAINED).fit(X)
        scaled = AutoEncoderTransformer(2, **TRAINED).fit(X * scale)
        size = np.abs(plain.transform(X)).max()
        np.testing.assert_allclose(scaled.transform(X * scale) / scale, plain.transform(X), rtol=0, atol=1e-3 * size)
        assert scaled.score(X * scale) == pytest.approx(plain.score(X), abs=1e-3)
        assert scaled.loss_curve_ == pytest.approx(plain.loss_curve_, rel=1e-2)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("scale", [1e-12, 1e12])
    @pytest.mark.parametrize("parameters", [TINY, TRAINED, {**TRAINED, "linear_skip": False}])
    def test_tiny_and_huge_values(self, dtype, scale, parameters, curved):
        X = (curved * scale).astype(dtype)
        estimator = AutoEncoderTransformer(2, **parameters).fit(X)
        codes = estimator.transform(X)
        assert np.isfinite(codes).all()
        expected = AutoEncoderTransformer(2, **parameters).fit(curved.astype(dtype)).score(curved.astype(dtype))
        assert estimator.score(X) == pytest.approx(expected, abs=0.02)

    def test_columns_of_very_different_scales(self, curved):
        X = curved * np.array([1e-12, 1.0, 1e12, 1e6, 1e-6])
        estimator = AutoEncoderTransformer(2, **TRAINED).fit(X)
        assert estimator.score(X) >= pca_score(PCA(2).fit(X), X) - 1e-9

    def test_an_offset_does_not_matter(self, curved):
        plain = AutoEncoderTransformer(2, **TRAINED).fit(curved).score(curved)
        shifted = AutoEncoderTransformer(2, **TRAINED).fit(curved + 1e6).score(curved + 1e6)
        assert shifted == pytest.approx(plain, abs=1e-3)

    def test_wild_rows_have_about_the_error_of_pca(self, curved):
        """Far outside the training data, where the decoder has learned nothing."""
        estimator = AutoEncoderTransformer(2, **{**TRAINED, "max_epochs": 30}).fit(curved)
        pca = PCA(2).fit(curved)
        wild = np.vstack([curved, 1e4 * np.eye(5)])
        assert estimator.score(wild) == pytest.approx(pca_score(pca, wild), abs=1e-2)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_outliers_with_ordinary_codes(self, dtype):
        """The code moves to where the decoder, which cannot know that the row is wild, makes the least of it."""
        X = curved_rows(200).astype(dtype)
        parameters = {**TRAINED, "max_epochs": 60}
        estimator = AutoEncoderTransformer(2, **parameters).fit(X)
        pca = PCA(2).fit(X)
        wild = np.repeat(X[:20], 5, axis=0)
        wild[np.arange(100), np.tile(np.arange(5), 20)] += 60 * np.tile(X.std(axis=0), 20)
        assert estimator.score(X) > pca_score(pca, X) + 0.05
        assert estimator.score(wild) > AutoEncoderTransformer(2, projection_steps=0, **parameters).fit(X).score(wild)
        assert estimator.score(wild) > pca_score(pca, wild) - 0.1
        codes = estimator.transform(wild)
        one_by_one = np.concatenate([estimator.transform(row[np.newaxis]) for row in wild])
        np.testing.assert_allclose(one_by_one, codes, rtol=0, atol=1e-6 * np.abs(codes).max())

    def test_full_width_is_lossless(self, curved):
        estimator = AutoEncoderTransformer(5, **TINY).fit(curved)
        np.testing.assert_allclose(estimator.inverse_transform(estimator.transform(curved)), curved, atol=1e-10)
        assert estimator.score(curved_rows(20, seed=3)) == pytest.approx(1.0, abs=1e-12)


class TestErrors:
    """Every text says what was given, what is allowed, and what to do."""

    @pytest.mark.parametrize("parameters", [{}, {"linear_skip": False}, {"max_epochs": 0}])
    def test_more_components_than_features(self, parameters, curved):
        with pytest.raises(ValueError, match="n_components=6 must not exceed n_features=5: .* Choose fewer components"):
            AutoEncoderTransformer(6, **parameters).fit(curved)

    def test_fewer_rows_than_components(self, curved):
        expected = (
            r"n_components=4 must be between 1 and min\(n_samples, n_features\)=3: 3 samples .* pass more samples"
        )
        with pytest.raises(ValueError, match=expected):
            AutoEncoderTransformer(4).fit(curved[:3])

    def test_one_row(self, curved):
        with pytest.raises(ValueError, match=r"1 sample.*minimum of 2 is required by AutoEncoderTransformer"):
            AutoEncoderTransformer(1).fit(curved[:1])

    def test_a_missing_device_names_what_there_is(self, curved):
        for device in ("cuda:99", "mps:99", "nonsense", "meta", torch.device("cuda:99"), ""):
            with pytest.raises(
                ValueError, match=r"device='.*' is not available: this machine has 'cpu'.* device='auto'"
            ):
                AutoEncoderTransformer(device=device).fit(curved)

    def test_the_device_is_checked_before_the_data(self):
        with pytest.raises(ValueError, match="is not available"):
            AutoEncoderTransformer(device="cuda:99").fit("no data at all")

    @pytest.mark.parametrize(
        "name, value",
        [
            ("n_components", 0),
            ("n_components", 2.0),
            ("hidden_layer_sizes", 0),
            ("hidden_layer_sizes", "wide"),
            ("decoder_layer_sizes", -3),
            ("activation", "softmax"),
            ("linear_skip", "yes"),
            ("loss", "absolute"),
            ("alpha", -1.0),
            ("whiten", 3),
            ("optimizer", "newton"),
            ("optimizer_params", "fast"),
            ("module_params", 64),
            ("lr", 0.0),
            ("lr", "fast"),
            ("max_epochs", -1),
            ("max_epochs", 2.5),
            ("batch_size", 0),
            ("early_stopping", "no"),
            ("validation_fraction", 0.0),
            ("validation_fraction", 1.0),
            ("tol", -1e-3),
            ("warm_start", "maybe"),
            ("callbacks", 5),
            ("device", 0),
            ("random_state", "luck"),
            ("verbose", -1),
        ],
    )
    def test_parameters_are_checked(self, name, value, curved):
        expected = f"The '{name}' parameter of AutoEncoderTransformer must be"
        with pytest.raises(ValueError, match=expected):
            AutoEncoderTransformer(**{name: value}).fit(curved)

    @pytest.mark.parametrize("sizes", [(0,), (8, -1), (8.0,), ("8",), (None,), ((8,),)])
    @pytest.mark.parametrize("name", ["hidden_layer_sizes", "decoder_layer_sizes"])
    def test_sizes_are_checked_one_by_one(self, name, sizes, curved):
        with pytest.raises(ValueError, match=f"{name} must be 'auto' or hold integers of at least 1, got "):
            AutoEncoderTransformer(**{name: sizes}).fit(curved)

    @pytest.mark.parametrize("optimizer", [dict, torch.nn.Linear, int])
    def test_a_class_that_is_no_optimizer(self, optimizer, curved):
        for max_epochs in (0, 1):
            with pytest.raises((TypeError, ValueError), match="optimizer"):
                AutoEncoderTransformer(optimizer=optimizer, max_epochs=max_epochs).fit(curved)

    @pytest.mark.parametrize("n_features", [1, 3, 5])
    def test_codes_of_another_width(self, n_features, curved):
        estimator = AutoEncoderTransformer(2, max_epochs=0).fit(curved)
        expected = f"X has {n_features} features, but AutoEncoderTransformer has codes of n_components=2"
        with pytest.raises(ValueError, match=expected):
            estimator.inverse_transform(np.ones((4, n_features)))

    @pytest.mark.parametrize("method", ["transform", "score", "score_samples"])
    def test_rows_of_another_width(self, method, curved):
        estimator = AutoEncoderTransformer(2, max_epochs=0).fit(curved)
        with pytest.raises(ValueError, match="X has 1 features, but AutoEncoderTransformer is expecting 5 features"):
            getattr(estimator, method)(curved[:, :1])

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_missing_values(self, bad, curved):
        estimator = AutoEncoderTransformer(2, max_epochs=0).fit(curved)
        codes = estimator.transform(curved)
        curved[3, 2] = codes[3, 1] = bad
        for call, rows in [
            (estimator.fit, curved),
            (estimator.transform, curved),
            (estimator.inverse_transform, codes),
        ]:
            with pytest.raises(ValueError, match="Input X contains (NaN|infinity)"):
                call(rows)

    def test_values_whose_squares_overflow(self, curved):
        with pytest.raises(ValueError, match="X is too large: .* Rescale X, for example with StandardScaler"):
            AutoEncoderTransformer(2).fit(curved * 1e200)

    @pytest.mark.parametrize("parameters", [{"lr": 1e30, "optimizer": "sgd"}, {"lr": 1e30, "early_stopping": False}])
    @pytest.mark.parametrize("linear_skip", [True, False])
    def test_a_loss_that_is_no_number_names_the_epoch(self, parameters, linear_skip, curved):
        estimator = AutoEncoderTransformer(2, **{**TINY, "linear_skip": linear_skip, **parameters})
        with pytest.raises(
            ValueError, match=r"(train|valid)_loss became (nan|inf) in epoch \d, with lr=1e\+30.* smaller lr"
        ):
            estimator.fit(curved)
        assert not hasattr(estimator, "net_")

    def test_a_failed_fit_leaves_the_fit_before(self, curved):
        estimator = AutoEncoderTransformer(2, **TRAINED).fit(curved)
        before, codes = dict(vars(estimator)), estimator.transform(curved)
        for X, parameters in [
            (noise_rows(), {"lr": 1e30, "optimizer": "sgd"}),
            (noise_rows(), {"n_components": 7}),
            (noise_rows(), {"device": "cuda:99"}),
            (noise_rows()[:1], {}),
        ]:
            changed = {name: getattr(estimator, name) for name in parameters}
            with pytest.raises(ValueError):
                estimator.set_params(**parameters).fit(X)
            estimator.set_params(**changed)
            assert vars(estimator) == before
            np.testing.assert_array_equal(estimator.transform(curved), codes)
