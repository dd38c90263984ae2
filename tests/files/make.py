"""Writes the files that later versions must still be able to read. Run once for each new protocol:

    PYTHONPATH=. python tests/files/make.py

Never write those of an earlier protocol again. Samples and expected results are in the .npz.
"""

import pickle
from pathlib import Path

import numpy as np

from skae import AutoEncoderOutlierDetector, AutoEncoderTransformer, Huber, Sparse, save
from skae.persistence import PROTOCOL


def rows():
    u, v = np.random.RandomState(0).uniform(-1.0, 1.0, (2, 80))
    return np.stack([u, v, u**2, u * v, np.sin(3 * v)], axis=1)


def detector():
    """Every kind of value that needs no accelerator, and a network that has left PCA."""
    autoencoder = AutoEncoderTransformer(
        2,
        hidden_layer_sizes=(8,),
        decoder_layer_sizes=[6, 4],
        loss=Huber(delta=np.float64(2.0)),
        regularizer=[Sparse(weight=0.01), "denoising"],
        allow_nan=True,
        normalization="layer",
        max_epochs=4,
        early_stopping=False,
        random_state=0,
    )
    return AutoEncoderOutlierDetector(autoencoder, contamination=0.1, random_state=0)


if __name__ == "__main__":
    start = Path(__file__).parent / f"protocol-{PROTOCOL}"
    X = rows()
    fitted = detector().fit(X)
    save(fitted, start.with_suffix(".skae"))
    start.with_suffix(".pickle").write_bytes(pickle.dumps(fitted, protocol=4))
    codes = fitted.estimator_.transform(X)
    rebuilt = fitted.estimator_.inverse_transform(codes)
    scores = fitted.decision_function(X)
    np.savez_compressed(start.with_suffix(".npz"), rows=X, codes=codes, rebuilt=rebuilt, scores=scores)
