"""Other autoencoders with the layers that skae chooses, each used as its documentation says."""

import numpy as np
import torch
from sklearn.neural_network import MLPRegressor
from skorch import NeuralNetRegressor
from torch import nn

HIDDEN = (256, 128)


def perceptron(X, k):
    """scikit-learn's multilayer perceptron, trained to repeat its input."""
    return MLPRegressor(hidden_layer_sizes=(*HIDDEN, k, *HIDDEN[::-1]), random_state=0).fit(X, X).predict


def skorch_net(X, k):
    """A plain network in skorch with its defaults and Adam, fitted with the rows as their targets."""
    torch.manual_seed(0)
    sizes = (X.shape[1], *HIDDEN, k, *HIDDEN[::-1], X.shape[1])
    layers = [part for a, b in zip(sizes[:-1], sizes[1:], strict=True) for part in (nn.Linear(a, b), nn.GELU())]
    net = NeuralNetRegressor(
        nn.Sequential(*layers[:-1]), optimizer=torch.optim.Adam, lr=1e-3, max_epochs=50, batch_size=128, verbose=0
    )
    return net.fit(X, X).predict


def pyod_detector(X, k):
    """The outlier detector of pyod; its network is asked for the reconstruction."""
    from pyod.models.auto_encoder import AutoEncoder

    detector = AutoEncoder(hidden_neuron_list=[*HIDDEN, k], verbose=0, random_state=0).fit(X)
    mean, std = getattr(detector, "X_mean", 0.0), getattr(detector, "X_std", 1.0)

    @torch.no_grad()
    def predict(rows):
        detector.model.eval()
        inputs = (rows - mean) / np.maximum(std, 1e-8)  # a constant column has no spread
        return detector.model(torch.from_numpy(inputs.astype(np.float32))).numpy() * std + mean

    return predict


def hypertools_reducer(X, k):
    """The deep autoencoder of hypertools with its defaults."""
    from hypertools.reduce.autoencoders import DeepAutoencoder

    reducer = DeepAutoencoder(n_components=k, hidden_dims=list(HIDDEN), random_state=0).fit(X)
    return lambda rows: reducer.inverse_transform(reducer.transform(rows))


PEERS = {
    "MLPRegressor": perceptron,
    "skorch": skorch_net,
    "pyod": pyod_detector,
    "hypertools": hypertools_reducer,
}
