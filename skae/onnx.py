"""What is public: the converter for skl2onnx, and the decoder as a model of its own."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skae._archive import replacing
from skae._autoencoder import AutoEncoderTransformer
from skae._onnx.converters import register_converters
from skae._onnx.graph import Graph, Port, model_proto, numbered, onnx_package
from skae._onnx.network import decode, in_precision

__all__ = ["export_decoder", "register"]


def register():
    """Teach skl2onnx to convert autoencoders, wherever they stand in a pipeline, and outlier detectors.

    After this ``skl2onnx.to_onnx`` takes pipelines, feature transformers and unions with fitted autoencoders in them.
    The result computes what `AutoEncoderTransformer.transform` does, for any number of samples, in the precision that it
    would have: of the network or of the input, whichever is higher. Codes have the precision of the input. Calling it
    again changes nothing.

    Raises
    ------
    ImportError
        If skl2onnx is not installed.

    See Also
    --------
    export_decoder : The way back from codes to samples.

    Notes
    -----
    Where `transform` raises an error, on missing values that were not allowed, on infinity and on codes that overflow,
    a model returns NaN or infinity. The operator set must be 18 or higher; a conversion to a lower one raises a
    ValueError. A ``module`` of your own must consist of layers and steps that have a translation, with which it is
    compared on a few samples; a NotImplementedError names the one that has none.

    An `AutoEncoderOutlierDetector` becomes two outputs of shape (n_samples, 1): "label", as `predict` returns it, and
    "scores", which is `decision_function`. Samples that it would refuse are outliers.

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
    register_converters()


def export_decoder(estimator, path):
    """Write `AutoEncoderTransformer.inverse_transform` into a file, as an ONNX model.

    Its input is called "codes" and its output "X", both in the precision of the network.

    Parameters
    ----------
    estimator : AutoEncoderTransformer
        Fitted.
    path : str or path-like
        File to write; one that exists is replaced.

    Raises
    ------
    ImportError
        If onnx is not installed.
    TypeError
        If ``estimator`` is no AutoEncoderTransformer.
    NotImplementedError
        If a step of the estimator's own ``module`` has no translation.

    See Also
    --------
    register : The way from samples to codes, in pipelines.

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
    check_is_fitted(estimator)
    onnx_package()
    module, dtype = in_precision(estimator.net_.module_, np.dtype(np.float32))
    graph = Graph(dtype, numbered("skae"))
    codes = graph.input(Port("codes", dtype, (None, estimator.n_components_)))
    graph.output(decode(graph, module, codes), Port("X", dtype, (None, estimator.n_features_in_)))
    model = model_proto(graph, "decoder")
    with replacing(path) as file:
        file.write(model.SerializeToString())
