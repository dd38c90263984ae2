"""Export to ONNX: a converter for skl2onnx, and the decoder as a separate model."""

from os import PathLike
from typing import Any

from sklearn.utils.validation import check_is_fitted

from skae._autoencoder import AutoEncoderTransformer
from skae._utils import check_inherited
from skae.persistence import replacing

__all__ = ["export_decoder", "register"]


def register() -> None:
    """Register converters for autoencoders and outlier detectors with skl2onnx.

    After the call, ``skl2onnx.to_onnx`` converts fitted autoencoders and outlier detectors, also as steps of pipelines,
    column transformers and feature unions. The model computes `AutoEncoderTransformer.transform` for any number of
    samples. It computes in double precision, as `transform` does. Codes have the precision of the input. Further calls
    have no effect.

    Raises
    ------
    ImportError
        If skl2onnx is not installed.

    See Also
    --------
    export_decoder : Export `AutoEncoderTransformer.inverse_transform`.

    Notes
    -----
    `AutoEncoderTransformer.transform` raises an error for infinity, for missing values unless ``allow_nan=True``, and
    if codes overflow. In these cases, the model returns NaN or infinity. The operator set must be 18 or higher; the
    conversion raises a ValueError for a lower one. What a custom ``module`` computes is traced, and compared with the
    original on a few samples. The conversion raises a NotImplementedError that names the operation if that has no
    translation, and one that says why if the module cannot be traced, as where it chooses by values.

    A subclass is converted like the class it inherits from, unless it overrides `transform` or `predict`: then a
    TypeError asks for a converter of its own. Converters that were registered before are kept.

    The model of an `AutoEncoderOutlierDetector` has two outputs of shape (n_samples, 1): "label", the result of
    `predict`, and "scores", the result of `decision_function`. Samples for which these methods raise an error are
    outliers.

    Examples
    --------
    >>> import numpy as np
    >>> import skae.onnx
    >>> from onnxruntime import InferenceSession
    >>> from skl2onnx import to_onnx
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> X = load_digits().data[:200]
    >>> pipeline = make_pipeline(StandardScaler(), skae.AutoEncoderTransformer(4, max_epochs=3, random_state=0)).fit(X)
    >>> skae.onnx.register()
    >>> session = InferenceSession(to_onnx(pipeline, X[:1]).SerializeToString())
    >>> (codes,) = session.run(None, {"X": X})
    >>> bool(np.allclose(codes, pipeline.transform(X)))
    True
    """
    from skae._onnx.converters import register_converters

    register_converters()


def export_decoder(estimator: Any, path: str | PathLike) -> None:
    """Write `AutoEncoderTransformer.inverse_transform` to a file as an ONNX model.

    The input of the model is named "codes" and the output "X". Both have the precision of the network.

    Parameters
    ----------
    estimator : AutoEncoderTransformer
        Fitted autoencoder.
    path : str or path-like
        File to write. An existing file is replaced.

    Raises
    ------
    ImportError
        If onnx is not installed.
    TypeError
        If ``estimator`` is not an AutoEncoderTransformer, or a subclass that overrides `inverse_transform`.
    NotFittedError
        If ``estimator`` is not fitted.
    NotImplementedError
        If a layer or operation of a custom ``module`` is not supported.

    See Also
    --------
    register : Convert `AutoEncoderTransformer.transform` and pipelines.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> import skae.onnx
    >>> from onnxruntime import InferenceSession
    >>> from sklearn.datasets import load_digits
    >>> X = load_digits().data[:200]
    >>> autoencoder = skae.AutoEncoderTransformer(4, max_epochs=3, random_state=0).fit(X)
    >>> codes = autoencoder.transform(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "decoder.onnx"
    ...     skae.onnx.export_decoder(autoencoder, path)
    ...     (X_hat,) = InferenceSession(path).run(["X"], {"codes": codes})
    >>> bool(np.allclose(X_hat, autoencoder.inverse_transform(codes)))
    True
    """
    if not isinstance(estimator, AutoEncoderTransformer):
        raise TypeError(f"estimator must be an AutoEncoderTransformer, got {estimator!r}.")
    check_inherited(type(estimator), AutoEncoderTransformer, "inverse_transform")
    check_is_fitted(estimator)
    from skae._onnx.graph import decoder_model

    with replacing(path) as file:
        file.write(decoder_model(estimator.net_.module_).SerializeToString())
