"""What is frozen stays as it is in every training; what changes training acts in every one."""

import numpy as np
import pytest
import torch
from helpers import SEARCHED, TINY, curved_rows
from skorch.callbacks import Callback, Freezer, GradientNormClipping, Initializer, LRScheduler, Unfreezer
from torch import nn

from skae import AutoEncoderTransformer


class Net(nn.Module):
    def __init__(self, n_features, n_components):
        super().__init__()
        self.inside = nn.Sequential(nn.Linear(n_features, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, n_components))
        self.outside = nn.Sequential(nn.Linear(n_components, 16), nn.Tanh(), nn.Linear(16, n_features))

    def encode(self, x):
        return self.inside(x)

    def decode(self, z):
        return self.outside(z)


def frozen_net(dtype=torch.float32):
    """A network whose encoder is trained already, in its way, and must not change."""
    torch.manual_seed(0)
    module = Net(5, 2).to(dtype)
    with torch.no_grad():
        for _ in range(3):
            module.encode(torch.randn(50, 5, dtype=dtype))
    module.inside.requires_grad_(False)
    return module


class Plain(torch.optim.SGD):
    """An optimizer without weight decay, for which the penalty is in the loss."""

    def __init__(self, params, lr):
        super().__init__(params, lr)


X = curved_rows(300)
# So few epochs do not order the codes: if they had to be ordered, searches would keep PCA, in which nothing is trained.
PARAMETERS = {"module": None, "n_components": 2, "max_epochs": 25, "lr": 0.02, "batch_size": 32, "random_state": 0}
PARAMETERS["ordered"] = False
TRAININGS = {
    "searched": {},
    "on all rows": {"early_stopping": False},
    "plain autoencoder": {"linear_skip": False},
    "weight decay": {"alpha": 0.1, "optimizer": "adamw", "linear_skip": False},
    "penalty": {"alpha": 0.1, "optimizer": Plain, "linear_skip": False},
    "momentum": {"optimizer": "sgd", "linear_skip": False},
    "line search": {"optimizer": "lbfgs", "max_epochs": 3, "lr": 1.0, "batch_size": "auto"},
}


def state(estimator, part="inside"):
    """Weights and statistics of a part of the user's network, as they are used."""
    module = estimator.net_.module_.network.encoder.module
    return {name: value.clone() for name, value in getattr(module, part).state_dict().items()}


def assert_same(found, expected):
    for name, value in expected.items():
        if "num_batches" not in name:
            assert torch.equal(found[name], value.to(found[name])), name


class TestFrozenBefore:
    @pytest.mark.parametrize("training", TRAININGS.values(), ids=TRAININGS)
    @pytest.mark.parametrize("dtypes", [(np.float32, torch.float32), (np.float64, torch.float64)])
    def test_stays_in_every_training(self, training, dtypes):
        module = frozen_net(dtypes[1])
        estimator = AutoEncoderTransformer(**{**PARAMETERS, **training, "module": module}).fit(X.astype(dtypes[0]))
        assert estimator.best_epoch_ > 0
        assert_same(state(estimator), module.inside.state_dict())
        assert not torch.equal(state(estimator, "outside")["0.weight"], module.outside[0].weight)

    def test_stays_in_partial_fit_and_warm_starts(self):
        module = frozen_net()
        estimator = AutoEncoderTransformer(**{**PARAMETERS, "module": module, "warm_start": True, "linear_skip": False})
        for chunk in np.split(X, 3):
            assert_same(state(estimator.partial_fit(chunk)), module.inside.state_dict())
        first = state(estimator.set_params(early_stopping=False).fit(X), "outside")
        assert_same(state(estimator.fit(X)), module.inside.state_dict())
        assert not torch.equal(state(estimator, "outside")["0.weight"], first["0.weight"])

    def test_a_warm_start_goes_by_the_module_of_now(self):
        estimator = AutoEncoderTransformer(**{**PARAMETERS, "module": frozen_net(), "linear_skip": False}).fit(X)
        before = state(estimator)
        free = Net(5, 2)
        free.outside.requires_grad_(False)
        outside = state(estimator, "outside")
        estimator.set_params(module=free, warm_start=True).fit(X)
        assert not torch.equal(state(estimator)["0.weight"], before["0.weight"])
        assert_same(state(estimator, "outside"), outside)

    @pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
    def test_nothing_left_to_train(self, optimizer):
        module = frozen_net().requires_grad_(False)
        parameters = {**PARAMETERS, "module": module, "optimizer": optimizer}
        with pytest.raises(ValueError, match=r"Nothing is left to train: all \d+ weights are frozen. Leave some free"):
            AutoEncoderTransformer(**parameters, linear_skip=False).fit(X)
        beside = AutoEncoderTransformer(**{**parameters, "max_epochs": 3}, linear_skip=True).fit(X)
        assert beside.n_iter_ == 3
        found = beside.net_.module_.network.encoder.module.parameters()
        assert all(torch.equal(now.float(), before) for now, before in zip(found, module.parameters(), strict=True))
        with pytest.raises(ValueError, match="Nothing is left to train"):
            AutoEncoderTransformer(**parameters, callbacks=[Freezer("*")]).fit(X)


class TestFreezer:
    @pytest.mark.parametrize("training", TRAININGS.values(), ids=TRAININGS)
    @pytest.mark.parametrize("form", ["instance", "pair"])
    def test_stays_in_every_training(self, training, form):
        freezer = Freezer("*inside*")
        callbacks = [freezer] if form == "instance" else [("net_to_dict", freezer)]
        parameters = {**PARAMETERS, **training, "module": Net}
        start = state(AutoEncoderTransformer(**{**parameters, "max_epochs": 0}).fit(X))
        estimator = AutoEncoderTransformer(**parameters, callbacks=callbacks)
        assert_same(state(estimator.fit(X)), start)
        assert estimator.best_epoch_ > 0
        assert_same(state(estimator.set_params(warm_start=True).fit(X)), start)

    def test_stays_in_partial_fit(self):
        parameters = {**PARAMETERS, "module": Net, "linear_skip": False}
        start = state(AutoEncoderTransformer(**{**parameters, "max_epochs": 0}).fit(X))
        estimator = AutoEncoderTransformer(**parameters, callbacks=[Freezer("*inside*")])
        for chunk in np.split(X, 3):
            assert_same(state(estimator.partial_fit(chunk)), start)

    @pytest.mark.parametrize("early_stopping", [True, False])
    def test_layers_of_ours(self, early_stopping):
        """Their first weights are drawn; then they stay, as long as training may be."""
        parameters = {"hidden_layer_sizes": 8, "random_state": 0, "early_stopping": early_stopping, "n_components": 2}
        found = []
        for max_epochs in (8, 25):
            estimator = AutoEncoderTransformer(
                **parameters, lr=0.02, max_epochs=max_epochs, linear_skip=False, callbacks=[Freezer("encoder*")]
            ).fit(X)
            assert estimator.best_epoch_ > 0
            found.append(estimator.net_.module_.network.encoder.state_dict())
        assert_same(*found)

    def test_frozen_from_a_later_epoch_on(self):
        seen = []

        class Look(Callback):
            def on_epoch_end(self, net, **kwargs):
                seen.append(net.module_.encoder.module.inside[0].weight.detach().clone())

        for optimizer in ("adam", "lbfgs"):
            seen.clear()
            parameters = {**PARAMETERS, "module": Net, "optimizer": optimizer, "max_epochs": 5, "batch_size": "auto"}
            AutoEncoderTransformer(**parameters, callbacks=[Freezer("*inside*", at=3), Look()]).fit(X)
            assert not torch.equal(seen[0], seen[1])
            assert torch.equal(seen[1], seen[4])


class Halving(Callback):
    """Changes gradients, and tells how often; its attributes are not its parameters."""

    def __init__(self):
        self.nets = set()

    def on_grad_computed(self, net, named_parameters, **kwargs):
        CALLED.add(id(net))
        for _, parameter in named_parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(0.5)


CALLED = set()


class TestEveryTraining:
    @pytest.mark.parametrize(
        "callback",
        [
            GradientNormClipping(1e-9),
            ("clip", GradientNormClipping(1e-9)),
            LRScheduler(policy="StepLR", step_size=1, gamma=1e-9),
            ("rate", LRScheduler(policy="StepLR", step_size=1, gamma=1e-9)),
        ],
    )
    def test_acts_on_all_samples_too(self, callback):
        """With next to no steps allowed after the first epoch, all trainings stay near their start."""
        parameters = {**SEARCHED, "hidden_layer_sizes": 8, "optimizer": "sgd", "batch_size": 32}
        moved = []
        for callbacks in ([], [callback]):
            estimator = AutoEncoderTransformer(**parameters, lr=0.1, linear_skip=False, callbacks=callbacks)
            moved.append(estimator.fit(X).score(X))
        assert moved[1] < moved[0] - 0.1

    @pytest.mark.parametrize("entry", [Halving(), Halving, ("half", Halving()), ("half", Halving)])
    def test_gradients_of_every_net(self, entry):
        CALLED.clear()
        rows = curved_rows(200)  # so few that they are held out in several parts
        parameters = {**TINY, "max_epochs": 25, "lr": 0.02, "batch_size": 32, "callbacks": [entry], "ordered": False}
        assert AutoEncoderTransformer(2, **parameters).fit(rows).best_epoch_ > 0
        assert len(CALLED) > 2

    def test_a_method_of_the_instance(self):
        callback, nets = Callback(), set()
        callback.on_grad_computed = lambda net, **kwargs: nets.add(id(net))
        AutoEncoderTransformer(2, **TINY, callbacks=[callback]).fit(curved_rows(100))
        assert len(nets) > 1

    def test_other_callbacks_hear_of_the_first_search_and_its_trial_alone(self):
        heard, epochs = [], []

        class Hears(Callback):
            def on_train_begin(self, net, **kwargs):
                heard.append(net)

            def on_epoch_end(self, net, **kwargs):
                epochs.append(net)

        parameters = {**TINY, "max_epochs": 12, "lr": 0.02, "batch_size": 32, "ordered": False}
        estimator = AutoEncoderTransformer(3, **parameters, callbacks=[Hears()]).fit(X)
        assert len(heard) == len(set(epochs)) == 1
        assert len(epochs) == estimator.n_iter_ > 12

    def test_maps_of_parameters(self):
        """Weights that an Initializer sets are those of every training."""
        callbacks = [Initializer("encoder.0.weight", fn=lambda weight: nn.init.constant_(weight, 0.125))]
        callbacks += [Freezer("encoder.0.weight"), Unfreezer("encoder.0.weight", at=1000)]
        parameters = {**TINY, "max_epochs": 12, "batch_size": 32, "lr": 0.02, "linear_skip": False}
        estimator = AutoEncoderTransformer(2, **parameters, callbacks=callbacks).fit(X)
        assert estimator.best_epoch_ > 0
        assert torch.all(estimator.net_.module_.network.encoder[0].weight == 0.125)
