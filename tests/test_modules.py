"""Networks of a user's own: random numbers, lazy layers, layers without second derivatives, what is refused before."""

import copy
import pickle
import threading

import numpy as np
import pytest
import torch
from helpers import TINY, TRAINED, curved_rows
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from skorch.callbacks import Callback
from torch import nn

from skae import AutoEncoderTransformer, Denoising, LatentLoadingsDisplay


class Net(nn.Module):
    """Two small stacks, for subclasses that change a step."""

    def __init__(self, n_features, n_components, width=8):
        super().__init__()
        self.inside = nn.Sequential(nn.Linear(n_features, width), nn.Tanh(), nn.Linear(width, n_components))
        self.outside = nn.Sequential(nn.Linear(n_components, width), nn.Tanh(), nn.Linear(width, n_features))

    def encode(self, x):
        return self.inside(x)

    def decode(self, z):
        return self.outside(z)


class Dropping(Net):
    def __init__(self, n_features, n_components):
        super().__init__(n_features, n_components)
        self.drop = nn.Dropout(0.3)

    def encode(self, x):
        return self.inside(self.drop(x))


class Noisy(Net):
    """Noise while training, in both directions and of several kinds."""

    def encode(self, x):
        return super().encode(x + 0.1 * torch.randn_like(x) if self.training else x)

    def decode(self, z):
        if not self.training:
            return super().decode(z)
        kept = torch.rand(z.shape, dtype=z.dtype) > 0.1
        return super().decode(z * kept + torch.distributions.Normal(0.0, 0.1).sample(z.shape).to(z.dtype))


class AlwaysNoisy(Net):
    def encode(self, x):
        return super().encode(x + 0.01 * torch.randn_like(x))

    def decode(self, z):
        return super().decode(z) + 0.01 * torch.rand(len(z), 1)


class OwnGenerator(AlwaysNoisy):
    def __init__(self, n_features, n_components):
        super().__init__(n_features, n_components)
        self.generator = torch.Generator().manual_seed(5)

    def encode(self, x):
        return self.inside(x + torch.empty_like(x).normal_(generator=self.generator))


class DroppingAttention(nn.Module):
    """Its dropout has no generator to hand in where torch takes it as one operation."""

    def __init__(self, n_features, n_components):
        super().__init__()
        self.grow = nn.Linear(1, 4)
        self.attend = nn.MultiheadAttention(4, 2, dropout=0.2, batch_first=True)
        self.down, self.up = nn.Linear(4 * n_features, n_components), nn.Linear(n_components, n_features)

    def encode(self, x):
        h = self.grow(x[:, :, None])
        return self.down(self.attend(h, h, h)[0].flatten(1))

    def decode(self, z):
        return self.up(z)


class Lazy(nn.Module):
    def __init__(self, n_features, n_components):
        super().__init__()
        self.inside = nn.Sequential(nn.LazyLinear(8), nn.Tanh(), nn.LazyLinear(n_components))
        self.outside = nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.Dropout(0.1), nn.LazyLinear(n_features))

    encode, decode = Net.encode, Net.decode


class LazyNet(Net):
    def __init__(self, n_features, n_components):
        super().__init__(n_features, n_components)
        self.inside[0], self.outside[0] = nn.LazyLinear(8), nn.LazyLinear(8)


DRAWING = [Dropping, Noisy, AlwaysNoisy, OwnGenerator, DroppingAttention, Lazy]


def codes_of(module, X, **parameters):
    estimator = AutoEncoderTransformer(**{**TINY, "module": module, **parameters})
    codes = estimator.fit_transform(X)
    return np.hstack([codes, estimator.inverse_transform(codes)])


class TestRandomNumbers:
    @pytest.mark.parametrize("module", DRAWING)
    @pytest.mark.parametrize("parameters", [{}, {"linear_skip": False, "early_stopping": False}])
    def test_same_seed_same_codes_and_global_generator_untouched(self, module, parameters):
        X = curved_rows(100)
        torch.manual_seed(1)
        before = torch.get_rng_state()
        first = codes_of(module, X, **parameters)
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(2)
        second = codes_of(module, X, **parameters)
        np.testing.assert_array_equal(first, second)
        if not parameters.get("linear_skip", True):  # else PCA may have been kept
            assert not np.array_equal(first, codes_of(module, X, **parameters, random_state=1))

    @pytest.mark.parametrize("module", DRAWING)
    def test_an_instance(self, module):
        X = curved_rows(60)
        torch.manual_seed(0)
        instance = module(5, 2)
        before = torch.get_rng_state()
        first = codes_of(instance, X, **TRAINED)
        np.testing.assert_array_equal(codes_of(instance, X, **TRAINED), first)
        assert torch.equal(torch.get_rng_state(), before)

    @pytest.mark.parametrize("module", [Dropping, AlwaysNoisy, Lazy])
    def test_partial_fit_also_after_a_pickle(self, module):
        X = curved_rows(300)
        whole, parts = (AutoEncoderTransformer(2, module=module, random_state=0) for _ in range(2))
        before = torch.get_rng_state()
        for chunk in np.split(X, 3):
            whole.partial_fit(chunk)
            parts = pickle.loads(pickle.dumps(parts.partial_fit(chunk)))
            torch.manual_seed(3)
        torch.set_rng_state(before)
        np.testing.assert_array_equal(whole.transform(X), parts.transform(X))
        assert torch.equal(torch.get_rng_state(), before)

    def test_dropout_acts_while_training_alone(self):
        X = curved_rows(100)
        estimator, plain = (
            AutoEncoderTransformer(module=module, linear_skip=False, **TINY).fit(X) for module in (Dropping, Net)
        )
        assert not np.array_equal(estimator.transform(X), plain.transform(X))
        np.testing.assert_array_equal(estimator.transform(X), estimator.transform(X))

    @pytest.mark.parametrize("module", [AlwaysNoisy, OwnGenerator])
    def test_noise_in_evaluation_is_the_same_each_time(self, module):
        X = curved_rows(100)
        estimator = AutoEncoderTransformer(module=module, linear_skip=False, **TINY).fit(X)
        before = torch.get_rng_state()
        codes = estimator.transform(X)
        np.testing.assert_array_equal(estimator.transform(X), codes)
        np.testing.assert_array_equal(estimator.inverse_transform(codes), estimator.inverse_transform(codes))
        assert estimator.score(X) == estimator.score(X)
        assert torch.equal(torch.get_rng_state(), before)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(estimator)).transform(X), codes)

    @pytest.mark.parametrize("module", [Noisy, DroppingAttention])
    def test_threads_do_not_disturb_each_other(self, module):
        X = curved_rows(100)
        expected = codes_of(module, X)
        results = {}

        def work(index):
            results[index] = codes_of(module, X)

        threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
        before = torch.get_rng_state()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for index in range(3):
            np.testing.assert_array_equal(results[index], expected)
        assert torch.equal(torch.get_rng_state(), before)

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    @pytest.mark.parametrize("module", [Dropping, AlwaysNoisy])
    def test_on_a_gpu(self, module):
        X = curved_rows(100)
        before = torch.cuda.get_rng_state()
        first = codes_of(module, X, device="cuda")
        torch.cuda.manual_seed(4)
        again = torch.cuda.get_rng_state()
        np.testing.assert_array_equal(codes_of(module, X, device="cuda"), first)
        assert torch.equal(torch.cuda.get_rng_state(), again)
        torch.cuda.set_rng_state(before)


class TestLazyLayers:
    def test_an_instance_stays_lazy(self):
        module = Lazy(5, 2)
        module.outside[1] = nn.Identity()  # clone copies as torch does: no buffers without values
        X = curved_rows(60)
        codes = codes_of(module, X, linear_skip=False)
        assert isinstance(module.inside[0].weight, nn.parameter.UninitializedParameter)
        np.testing.assert_array_equal(
            codes_of(clone(AutoEncoderTransformer(module=module)).module, X, linear_skip=False), codes
        )

    def test_it_learns(self):
        X = curved_rows(300)
        # Codes that are cut learn more slowly.
        estimator = AutoEncoderTransformer(2, module=LazyNet, ordered=False, **{**TRAINED, "max_epochs": 100}).fit(X)
        assert estimator.score(X) > PCA(2).fit(X).explained_variance_ratio_.sum() + 0.01

    def test_a_lazy_layer_that_nothing_calls(self):
        module = Lazy(5, 2)
        module.left_over = nn.LazyLinear(3)
        with pytest.raises(ValueError, match="lazy layer 'left_over' of module Lazy has no weights .* calls it"):
            codes_of(module, curved_rows())


class Recurrent(nn.Module):
    """The first state is made without a dtype."""

    def __init__(self, n_features, n_components):
        super().__init__()
        self.down = nn.Linear(n_features, n_components)
        self.cell = nn.GRU(1, 6, batch_first=True)
        self.up = nn.Linear(6 * n_components, n_features)

    def encode(self, x):
        return self.down(x)

    def state(self, z):
        return torch.zeros(1, len(z), 6)

    def decode(self, z):
        return self.up(self.cell(z[:, :, None], self.state(z))[0].flatten(1))


class SinglePrecision(Recurrent):
    def state(self, z):
        return torch.zeros(1, len(z), 6, dtype=torch.float32)


class Distances(Net):
    def __init__(self, n_features, n_components):
        super().__init__(n_features, n_components)
        self.centers = nn.Parameter(torch.randn(4, n_components))
        self.up = nn.Linear(4, n_features)

    def decode(self, z):
        return self.up(torch.cdist(z, self.centers))


class Attending(DroppingAttention):
    def __init__(self, n_features, n_components):
        super().__init__(n_features, n_components)
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)
        self.out = nn.Linear(4 * n_components, n_features)

    def decode(self, z):
        h = self.grow(z[:, :, None])
        return self.out(self.attend(h, h, h)[0].flatten(1))


class ScaledProducts(Attending):
    def decode(self, z):
        h = self.grow(z[:, :, None])[:, None]  # torch's fused attention takes heads
        return self.out(nn.functional.scaled_dot_product_attention(h, h, h).flatten(1))


class Transformer(Attending):
    def __init__(self, n_features, n_components):
        super().__init__(n_features, n_components)
        self.attend = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True)

    def encode(self, x):
        return self.down(self.attend(self.grow(x[:, :, None])).flatten(1))

    def decode(self, z):
        return self.out(self.attend(self.grow(z[:, :, None])).flatten(1))


class Mixing(Attending):
    def encode(self, x):
        h = self.grow(x[:, :, None])[:, None]  # torch's fused attention takes heads
        return self.down(nn.functional.scaled_dot_product_attention(h, h, h).flatten(1))


ASKING_MUCH = [Recurrent, Distances, Attending, ScaledProducts, Transformer]


class TestLayersThatLackSomething:
    @pytest.mark.parametrize("module", ASKING_MUCH)
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("parameters", [{}, {"linear_skip": False, "early_stopping": False}])
    def test_every_row_in_every_precision(self, module, dtype, parameters):
        X = curved_rows(100).astype(dtype)
        estimator = AutoEncoderTransformer(module=module, **TINY, **parameters).fit(X)
        far = np.vstack([X[:3], 30 * X[:3]])
        for rows in (far.astype(np.float32), far.astype(np.float64), far[:1], far[-1:]):
            codes = estimator.transform(rows)
            assert codes.dtype == rows.dtype
            assert np.isfinite(estimator.inverse_transform(codes)).all()
        singly = np.vstack([estimator.transform(row[None]) for row in far])
        np.testing.assert_allclose(
            singly, estimator.transform(far), rtol=1e-4, atol=1e-5 if dtype == np.float32 else 1e-11
        )

    @pytest.mark.parametrize("module", ASKING_MUCH)
    def test_line_search_and_partial_fit(self, module):
        X = curved_rows(150)
        estimator = AutoEncoderTransformer(module=module, **{**TINY, "max_epochs": 2}, optimizer="lbfgs").fit(X)
        assert np.isfinite(estimator.transform(X)).all()
        assert np.isfinite(estimator.set_params(optimizer="adam").partial_fit(X).transform(30 * X)).all()

    def test_units_of_codes_by_differences(self):
        """Where second derivatives lack, a step of one in a code moves the reconstruction by one all the same."""
        X = curved_rows(300)
        for module in (Distances, Attending):
            estimator = AutoEncoderTransformer(module=module, linear_skip=False, **TINY).fit(X)
            codes, step = estimator.transform(X[:256]), 1e-4
            for index in range(2):
                moved = codes + step * np.eye(2)[index]
                steps = (estimator.inverse_transform(moved) - estimator.inverse_transform(codes)) / step
                assert np.sqrt(np.square(steps).sum(axis=1).mean()) == pytest.approx(1.0, abs=0.05)

    def test_second_derivatives_for_a_penalty(self):
        with pytest.raises(ValueError, match="'contractive' needs second derivatives of encode, .* module Mixing does"):
            codes_of(Mixing, curved_rows(), regularizer="contractive")
        assert np.isfinite(codes_of(Distances, curved_rows(), regularizer="contractive")).all()


class FailsAlone(Net):
    def encode(self, x):
        return super().encode(x).squeeze()


class OneSampleSqueezed(Net):
    def decode(self, z):
        if len(z) == 1:
            raise RuntimeError("no such batch")
        return super().decode(z)


class Rounding(Net):
    def decode(self, z):
        return super().decode(z).float()


class Normalizing(Net):
    def __init__(self, n_features, n_components):
        super().__init__(n_features, n_components)
        self.inside[1] = nn.BatchNorm1d(8)


class HoldsATensor(Net):
    def __init__(self, n_features, n_components):
        super().__init__(n_features, n_components)
        self.product = self.inside[0].weight * 2.0


class TestRefusedBeforeTraining:
    @pytest.mark.parametrize(
        ("module", "parameters", "message"),
        [
            (
                SinglePrecision,
                {},
                "for 2 samples in float64 in evaluation mode: .*dtype.* Make new tensors",
            ),
            (
                OneSampleSqueezed,
                {},
                "for 1 sample in float32 in evaluation mode: RuntimeError: no such batch. It ",
            ),
            (FailsAlone, {}, r"encode of module FailsAlone returned \(2,\) for an input of shape \(1, 5\)"),
            (Rounding, {}, "returned float32 for an input in float64, but must return the dtype of its input"),
            (Normalizing, {"batch_size": 1}, "1 sample in float32 while training: .* batch_size=1 makes batches of"),
            (HoldsATensor(5, 2), {}, "HoldsATensor cannot be copied, .* Register its tensors as parameters or buffers"),
        ],
    )
    def test_what_a_network_cannot_do(self, module, parameters, message):
        estimator = AutoEncoderTransformer(module=module, **TINY, **parameters)
        with pytest.raises(ValueError, match=message):
            estimator.fit(curved_rows())
        assert not hasattr(estimator, "net_")

    def test_nothing_is_asked_that_is_not_needed(self):
        """Without training no batch of one is asked of a layer that cannot take it."""
        assert codes_of(Normalizing, curved_rows(), batch_size=1, max_epochs=0).shape == (60, 7)

    def test_the_instance_is_as_before(self):
        module = Normalizing(5, 2).train()
        before = copy.deepcopy(module.state_dict())
        codes_of(module, curved_rows())
        assert module.training
        assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    "parameters", [{}, {"early_stopping": False}, {"optimizer": "lbfgs"}, {"architecture": "tied"}]
)
def test_batches_of_one_sample_cannot_be_normalized(parameters):
    estimator = AutoEncoderTransformer(normalization="batch", batch_size=1, **{**TINY, **parameters})
    message = "normalization='batch' needs batches of at least 2 samples, got batch_size=1. Choose a larger batch_size"
    with pytest.raises(ValueError, match=message):
        estimator.fit(curved_rows())
    if "optimizer" not in parameters:
        with pytest.raises(ValueError, match=message):
            estimator.partial_fit(curved_rows())
    rows = curved_rows(61)  # a last batch of one sample joins the one before
    assert estimator.set_params(batch_size=2, linear_skip=False).fit(rows).transform(rows).shape == (61, 2)
    assert estimator.set_params(batch_size=1, max_epochs=0).fit(rows).transform(rows).shape == (61, 2)


class TestOptions:
    def test_of_a_module_class(self):
        X = curved_rows()
        estimator = AutoEncoderTransformer(module=Net, module_params={"width": 3}, **TINY).fit(X)
        assert estimator.net_.module_.network.encoder.module.inside[0].out_features == 3
        assert clone(estimator).module_params == {"width": 3}
        copied = pickle.loads(pickle.dumps(estimator))
        assert copied.module_params == {"width": 3}
        np.testing.assert_array_equal(copied.transform(X), estimator.transform(X))
        search = GridSearchCV(
            estimator, {"module_params": [{"width": 3}, {"width": 4}, None]}, cv=2, error_score="raise"
        )
        assert search.fit(X).best_params_["module_params"] in ({"width": 3}, {"width": 4}, None)

    @pytest.mark.parametrize(
        ("module", "params", "message"),
        [
            (Net, {"widht": 3}, r"Net\(n_features, n_components, width=8\) cannot be called .* 'widht'"),
            (
                Net,
                {"n_components": 3},
                "{'n_components': 3}: multiple values for argument 'n_components'",
            ),
            (Net, {3: 3}, "keys of module_params must be strings"),
            (Net(5, 2), {"width": 3}, "module is an instance of Net. Pass the class, or build the instance with these"),
            (None, {"width": 3}, "but module is None. Pass the class"),
        ],
    )
    def test_that_a_module_does_not_take(self, module, params, message):
        with pytest.raises(ValueError, match=message):
            AutoEncoderTransformer(module=module, module_params=params, **TINY).fit(curved_rows())

    @pytest.mark.parametrize(
        ("optimizer", "params", "expected"),
        [
            ("sgd", {"momentum": 0.5}, {"momentum": 0.5, "nesterov": True}),
            ("sgd", {"momentum": 0.0}, {"momentum": 0.0, "nesterov": False}),
            ("adam", {"betas": (0.8, 0.9)}, {"betas": (0.8, 0.9), "fused": True, "weight_decay": 0.01}),
            ("adamw", {"foreach": True, "weight_decay": 0.5}, {"foreach": True, "fused": None, "weight_decay": 0.5}),
            ("lbfgs", {"history_size": 3}, {"history_size": 3, "line_search_fn": "strong_wolfe"}),
            (torch.optim.RMSprop, {"alpha": 0.9, "momentum": 0.1}, {"alpha": 0.9, "momentum": 0.1}),
        ],
    )
    @pytest.mark.parametrize("early_stopping", [True, False])
    def test_of_the_optimizer(self, optimizer, params, expected, early_stopping):
        seen = []

        class Look(Callback):
            def on_train_end(self, net, **kwargs):
                seen.append(net.optimizer_.param_groups[0])

        parameters = {"optimizer": optimizer, "optimizer_params": params, "early_stopping": early_stopping}
        estimator = AutoEncoderTransformer(**TINY, lr=0.01, alpha=0.01, callbacks=[Look()], **parameters)
        estimator.fit(curved_rows())
        assert {name: seen[0][name] for name in expected} == expected
        assert estimator.optimizer_params is params

    @pytest.mark.parametrize("max_epochs", [0, 2])
    @pytest.mark.parametrize(
        ("optimizer", "params", "message"),
        [
            (
                "adam",
                {"momentum": 0.9},
                "has 'momentum', which Adam does not take. It takes betas, eps",
            ),
            (
                "sgd",
                {"momentum": -1},
                "not take optimizer_params={'momentum': -1} with lr=0.1: Invalid mom",
            ),
            ("sgd", {"lr": 0.3}, "has 'lr', which is a parameter of its own: set lr=0.3"),
            ("sgd", {"params": []}, "has 'params', which SGD does not take"),
            ("lbfgs", {"line_search_fn": 3, "weight_decay": 1}, "has 'weight_decay', which LBFGS does not take"),
            (torch.optim.RMSprop, {"alpha": "large"}, "RMSprop does not take optimizer_params={'alpha': 'large'} with"),
        ],
    )
    def test_that_an_optimizer_does_not_take(self, optimizer, params, message, max_epochs):
        parameters = {**TINY, "max_epochs": max_epochs, "optimizer": optimizer, "optimizer_params": params}
        with pytest.raises(ValueError, match=message):
            AutoEncoderTransformer(**parameters).fit(curved_rows())
        if optimizer != "lbfgs":
            with pytest.raises(ValueError, match=message):
                AutoEncoderTransformer(**parameters).partial_fit(curved_rows())

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("optimizer__momentum", 0.9, r"'optimizer__momentum' .* optimizer_params=\{'momentum': 0.9\}"),
            ("module__width", 64, r"'module__width' .* module_params=\{'width': 64\}"),
            ("loss__delta", 0.3, r"loss='squared_error' has no parameters. Pass .* loss=skae.Huber\(delta=0.5\)"),
            ("regularizer__noise", 0.3, r"regularizer='denoising' has no parameters. .* regularizer=skae.Denoising"),
            ("lr__decay", 0.3, "'lr__decay' for AutoEncoderTransformer: lr='auto' has no parameters. Set lr itself"),
            ("speed", 3, "Invalid parameter 'speed' for estimator AutoEncoderTransformer"),
        ],
    )
    def test_set_params_in_skorchs_manner(self, name, value, message):
        estimator = AutoEncoderTransformer(regularizer="denoising")
        with pytest.raises(ValueError, match=message):
            estimator.set_params(**{name: value})
        for wrong in (torch.optim.SGD, Net):
            with pytest.raises(ValueError, match="Invalid parameter"):
                AutoEncoderTransformer(optimizer=wrong, module=wrong).set_params(**{name: value})
        if "__" in name:
            with pytest.raises(ValueError, match=message):
                make_pipeline(estimator).set_params(**{f"autoencodertransformer__{name}": value})

    def test_set_params_of_an_object(self):
        estimator = AutoEncoderTransformer().set_params(regularizer=Denoising(), regularizer__noise=0.3, lr=0.1)
        assert (estimator.regularizer.noise, estimator.lr) == (0.3, 0.1)
        assert estimator.set_params(regularizer__noise=0.2).regularizer.noise == 0.2
        assert estimator.set_params() is estimator

    def test_in_the_repr(self):
        estimator = AutoEncoderTransformer(optimizer="sgd", optimizer_params={"momentum": 0.5}, module_params={"a": 1})
        text = repr(estimator)
        assert "optimizer_params={'momentum': 0.5}" in text
        assert "module_params={'a': 1}" in text

    def test_warm_start_needs_the_same_network(self):
        estimator = AutoEncoderTransformer(module=Net, warm_start=True, **TINY).fit(curved_rows())
        estimator.fit(curved_rows())
        with pytest.raises(ValueError, match="needs the network of the previous fit, .* module Net now has"):
            estimator.set_params(module_params={"width": 4}).fit(curved_rows())


class TestWithoutGradients:
    """The caller's no_grad and inference_mode are for the caller's own tensors."""

    CONTEXTS = (torch.no_grad, torch.inference_mode)

    @pytest.mark.parametrize("context", CONTEXTS)
    @pytest.mark.parametrize(
        "parameters",
        [
            {},
            {"module": Noisy},
            {"module": Lazy},
            {"module": Distances},
            {"optimizer": "lbfgs"},
            {"regularizer": "contractive"},
        ],
    )
    def test_fit(self, context, parameters):
        X = curved_rows(100)
        parameters = {**TINY, "max_epochs": 2, "linear_skip": False, **parameters}
        expected = AutoEncoderTransformer(**parameters).fit(X).transform(30 * X)
        with context():
            estimator = AutoEncoderTransformer(**parameters).fit(X)
            np.testing.assert_array_equal(estimator.transform(30 * X), expected)
            assert torch.is_inference_mode_enabled() == (context is torch.inference_mode)
            assert not torch.is_grad_enabled()
        np.testing.assert_array_equal(estimator.transform(30 * X), expected)

    @pytest.mark.parametrize("context", CONTEXTS)
    def test_from_inside_to_outside_and_back(self, context):
        X = curved_rows(150)
        chunks = np.split(X, 3)
        parameters = {"hidden_layer_sizes": 16, "max_epochs": 10, "warm_start": True, "random_state": 0}
        reference = AutoEncoderTransformer(2, **parameters)
        for chunk in chunks:
            reference.partial_fit(chunk)
        with context():
            estimator = AutoEncoderTransformer(2, **parameters).partial_fit(chunks[0])
            estimator = pickle.loads(pickle.dumps(estimator))
        estimator = estimator.partial_fit(chunks[1])
        with context():
            estimator.partial_fit(torch.from_numpy(chunks[2]).clone().numpy())
        np.testing.assert_array_equal(estimator.transform(X), reference.transform(X))
        with context():
            inside = estimator.fit(X).transform(X)
        np.testing.assert_array_equal(reference.fit(X).transform(X), inside)

    @pytest.mark.parametrize("context", CONTEXTS)
    def test_instances_and_tensors_that_were_made_there(self, context):
        with context():
            module = Net(5, 2)
            rows = torch.from_numpy(curved_rows(60)).clone()
            codes = AutoEncoderTransformer(module=module, linear_skip=False, **TINY).fit_transform(rows)
        again = AutoEncoderTransformer(module=module, linear_skip=False, **TINY).fit_transform(rows.clone())
        np.testing.assert_array_equal(codes, again)

    @pytest.mark.parametrize("context", CONTEXTS)
    def test_derivatives_for_pictures(self, context):
        pytest.importorskip("matplotlib")
        X = curved_rows(60)
        estimator = AutoEncoderTransformer(2, **TINY).fit(X)
        expected = LatentLoadingsDisplay.from_estimator(estimator, X)
        with context():
            found = LatentLoadingsDisplay.from_estimator(estimator, X)
        np.testing.assert_array_equal(found.encoder, expected.encoder)
        np.testing.assert_array_equal(found.decoder, expected.decoder)
