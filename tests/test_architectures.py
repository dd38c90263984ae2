"""How networks are built: tied weights, convolutions, normalisation, dropout, a user's own network."""

import numpy as np
import pytest
import torch
from helpers import TRAINED, curved_rows, pca_score
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from torch import nn

from skae import AutoEncoderTransformer


def images(shape, n_samples=40, seed=0):
    """Samples that are images of a soft spot somewhere."""
    random = np.random.RandomState(seed)
    channels, height, width = shape
    y, x = np.mgrid[:height, :width]
    centres = random.uniform(0, 1, (n_samples, 2, 1, 1)) * np.array([height, width]).reshape(1, 2, 1, 1)
    spots = np.exp(-(np.square(y - centres[:, 0]) + np.square(x - centres[:, 1])) / 8)
    return np.repeat(spots[:, None], channels, axis=1).reshape(n_samples, -1).astype(np.float32)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 8), (1, 11, 14), (2, 17, 10), (1, 28, 28)])
@pytest.mark.parametrize("sizes", ["auto", (4, 12), (4, 6, 8, 12)])
def test_convolutions_return_to_any_height_and_width(shape, sizes):
    X = images(shape)
    model = AutoEncoderTransformer(
        3, architecture="conv", input_shape=shape, hidden_layer_sizes=sizes, linear_skip=False, **SHORT
    ).fit(X)
    assert model.inverse_transform(model.transform(X)).shape == X.shape


SHORT = {"max_epochs": 1, "early_stopping": False, "random_state": 0}


@pytest.mark.parametrize("sizes", [("auto", (16, 4)), ((4, 6, 16), (16, 8))])
def test_convolutional_decoder_need_not_mirror_the_encoder(sizes):
    X = images((1, 12, 12))
    encoder, decoder = sizes
    model = AutoEncoderTransformer(
        2,
        architecture="conv",
        input_shape=(1, 12, 12),
        hidden_layer_sizes=encoder,
        decoder_layer_sizes=decoder,
        **SHORT,
    )
    assert model.fit(X).inverse_transform(model.transform(X)).shape == X.shape


def test_convolutions_beat_pca_on_spots():
    X, test = images((1, 16, 16), 600), images((1, 16, 16), 200, seed=1)
    parameters = {"architecture": "conv", "input_shape": (1, 16, 16), "hidden_layer_sizes": (8, 16, 32)}
    model = AutoEncoderTransformer(2, **{**SHORT, **parameters, "max_epochs": 12}, batch_size=32).fit(X)
    assert model.score(test) > pca_score(PCA(2).fit(X), test) + 0.2


def bumps(n_samples, seed=0):
    """Series of two channels with a bump somewhere, of either sign."""
    random = np.random.RandomState(seed)
    places, signs = random.uniform(4, 36, (n_samples, 1)), random.choice([-1.0, 1.0], (n_samples, 1))
    bump = signs * np.exp(-np.square(np.arange(40) - places) / 8)
    return np.hstack([bump, 0.5 * np.roll(bump, 3, axis=1)]) + 0.01 * random.standard_normal((n_samples, 80))


def test_convolutions_of_series_beat_pca_and_find_unusual_windows():
    X, test = bumps(600), bumps(200, seed=1)
    parameters = {"architecture": "conv", "input_shape": (2, 40), "hidden_layer_sizes": (8, 16, 32)}
    model = AutoEncoderTransformer(2, **{**SHORT, **parameters, "max_epochs": 20}, batch_size=32).fit(X)
    assert model.score(test) > pca_score(PCA(2).fit(X), test) + 0.2
    unusual = np.hstack([test[:, :40], -test[:, 40:]])
    assert np.median(model.score_samples(unusual)) < np.quantile(model.score_samples(test), 0.05)


@pytest.mark.parametrize("normalization", ["batch", "layer", None])
def test_series_of_any_length(normalization):
    X = np.random.RandomState(0).standard_normal((30, 3 * 11)).astype(np.float32)
    parameters = {"architecture": "conv", "input_shape": (3, 11), "hidden_layer_sizes": (4, 6, 12), **SHORT}
    model = AutoEncoderTransformer(2, linear_skip=False, normalization=normalization, dropout=0.1, **parameters).fit(X)
    assert model.inverse_transform(model.transform(X)).shape == X.shape


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, r"architecture='conv' needs input_shape=\(channels, height, width\).* n_features=64"),
        ({"input_shape": (8, 9)}, r"input_shape=\(8, 9\) must be .* with a product of n_features=64"),
        ({"input_shape": (64,)}, r"input_shape=\(64,\) must be .* with a product of n_features=64"),
        ({"input_shape": (16, 4)}, "has a side below 8, too small for convolutions"),
        ({"input_shape": (1, 8, 9)}, "with a product of n_features=64"),
        ({"input_shape": (1, 4, 16)}, "has a side below 8, too small for convolutions. Use architecture='dense'"),
        ({"input_shape": (1, 8, 8), "hidden_layer_sizes": 16}, r"hidden_layer_sizes=\(16,\) must be the channels of"),
        ({"input_shape": (1, 8, 8), "hidden_layer_sizes": (2, 2, 2, 2, 9)}, "channels of 1 to 3 convolutions"),
        ({"input_shape": (1, 8, 8), "decoder_layer_sizes": 16}, r"decoder_layer_sizes=\(16,\) must be"),
    ],
)
def test_images_that_cannot_be(parameters, message):
    with pytest.raises(ValueError, match=message):
        AutoEncoderTransformer(2, architecture="conv", **parameters).fit(load_digits().data[:50])


def test_tied_weights_are_shared():
    X = curved_rows()
    tied = AutoEncoderTransformer(2, architecture="tied", **TRAINED).fit(X)
    names = [name for name, _ in tied.net_.module_.network.named_parameters()]
    # Each matrix once, a bias on either side.
    assert sum("weight" in name for name in names) == 2
    dense = AutoEncoderTransformer(2, **TRAINED).fit(X)
    count = [sum(p.numel() for p in model.net_.module_.network.parameters()) for model in (tied, dense)]
    assert count[0] < 0.6 * count[1]
    assert tied.score(X) > pca_score(PCA(2).fit(X), X)


def test_tied_weights_have_no_decoder_of_their_own():
    with pytest.raises(ValueError, match=r"must be 'auto' with architecture='tied', whose decoder is .* \(8, 16\)"):
        model = AutoEncoderTransformer(2, architecture="tied", hidden_layer_sizes=(16, 8), decoder_layer_sizes=4)
        model.fit(curved_rows())


@pytest.mark.parametrize("name", ["tied", "module", "conv", "batch", "dropout"])
def test_every_architecture_starts_at_pca(name):
    X = load_digits().data[:200]
    parameters = {
        "tied": {"architecture": "tied"},
        "module": {"module": Halves},
        "conv": {"architecture": "conv", "input_shape": (1, 8, 8)},
        "batch": {"normalization": "batch"},
        "dropout": {"dropout": 0.5},
    }[name]
    model = AutoEncoderTransformer(4, max_epochs=0, **parameters).fit(X)
    pca = PCA(4, svd_solver="full").fit(X)
    np.testing.assert_allclose(model.transform(X), pca.transform(X), atol=1e-8)
    assert model.best_epoch_ == 0


class Halves(nn.Module):
    def __init__(self, n_features, n_components):
        super().__init__()
        self.inside = nn.Sequential(nn.Linear(n_features, 16), nn.GELU(), nn.Linear(16, n_components))
        self.outside = nn.Sequential(nn.Linear(n_components, 16), nn.GELU(), nn.Linear(16, n_features))

    def encode(self, x):
        return self.inside(x)

    def decode(self, z):
        return self.outside(z)


class OnlyEncodes(nn.Module):
    def encode(self, x):
        return x


class WrongShape(Halves):
    def decode(self, z):
        return self.outside(z)[:, :-1]


@pytest.mark.parametrize("linear_skip", [True, False])
def test_a_users_network_learns(linear_skip):
    X = curved_rows(300)
    model = AutoEncoderTransformer(2, module=Halves, linear_skip=linear_skip, **{**TRAINED, "max_epochs": 150}).fit(X)
    assert model.score(X) > pca_score(PCA(2).fit(X), X) + 0.02


def test_an_instance_is_copied_and_kept_as_it_was():
    torch.manual_seed(0)
    module = Halves(5, 2)
    before = [parameter.detach().clone() for parameter in module.parameters()]
    X = curved_rows()
    first, second = (AutoEncoderTransformer(2, module=module, **TRAINED).fit(X) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    np.testing.assert_array_equal(first.transform(X), second.transform(X))


@pytest.mark.parametrize(
    ("module", "error", "message"),
    [
        (OnlyEncodes(), TypeError, r"OnlyEncodes lacks decode. It needs encode\(x\), from shape \(n, 5\) to \(n, 2\)"),
        (nn.Linear(5, 2), TypeError, "Linear lacks encode and decode"),
        (np.sum, TypeError, "module must be a torch.nn.Module, class or instance"),
        (WrongShape, ValueError, r"decode of module WrongShape returned \(2, 4\).* must return .*shape \(2, 5\)"),
    ],
)
def test_modules_that_cannot_be(module, error, message):
    with pytest.raises(error, match=message):
        AutoEncoderTransformer(2, module=module, **TRAINED).fit(curved_rows())


def test_running_statistics_belong_to_the_weights_that_are_kept():
    """Other runs, which were not kept, had others."""
    X = curved_rows(400)
    model = AutoEncoderTransformer(2, normalization="batch", max_epochs=30, batch_size=32, random_state=0).fit(X)
    assert model.best_epoch_ > 0
    assert model.score(X) > pca_score(PCA(2).fit(X), X) + 0.02


def test_dropout_is_off_after_training():
    X = curved_rows()
    model = AutoEncoderTransformer(2, dropout=0.5, **TRAINED).fit(X)
    np.testing.assert_array_equal(model.transform(X), model.transform(X))


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
@pytest.mark.parametrize("regularizer", [None, "contractive"])
def test_fast_products_train_as_those_of_torch_do(monkeypatch, regularizer):
    X, codes = load_digits().data[:300].astype(np.float32), []
    for fast in (True, False):
        monkeypatch.setattr("skae._network.layers.HAS_FAST_PRODUCTS", fast)
        model = AutoEncoderTransformer(4, linear_skip=False, regularizer=regularizer, random_state=0)
        model.set_params(max_epochs=3, early_stopping=False, projection_steps=0).fit(X)
        assert model.best_epoch_ == 3
        codes.append(model.transform(X))
    np.testing.assert_allclose(*codes, atol=1e-4 * codes[0].std())
