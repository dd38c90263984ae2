"""Torch tensors and other arrays of the array API, in and out."""

import numpy as np
import pytest
import sklearn
import torch
from helpers import TRAINED, curved_rows
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags

from skae import AutoEncoderOutlierDetector, AutoEncoderTransformer, transform_std


@pytest.fixture(autouse=True)
def dispatch():
    with sklearn.config_context(array_api_dispatch=True):
        yield


@pytest.fixture(scope="module")
def rows():
    return curved_rows(120)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def tensor(request, rows):
    return torch.from_numpy(rows).to(request.param)


def test_tensors_give_what_arrays_give(tensor):
    of_tensor = AutoEncoderTransformer(**TRAINED).fit(tensor)
    of_array = AutoEncoderTransformer(**TRAINED).fit(tensor.numpy())
    codes = of_tensor.transform(tensor)
    back = of_tensor.inverse_transform(codes)
    for result in (codes, back, of_tensor.mean_, of_tensor.score_samples(tensor)):
        assert isinstance(result, torch.Tensor)
    assert codes.dtype == back.dtype == tensor.dtype
    assert_array_equal(codes.numpy(), of_array.transform(tensor.numpy()))
    assert_array_equal(back.numpy(), of_array.inverse_transform(codes.numpy()))
    assert of_tensor.score(tensor) == of_array.score(tensor.numpy())
    weights = torch.linspace(0.5, 2.0, 120)
    assert of_tensor.score(tensor, sample_weight=weights) == of_array.score(
        tensor.numpy(), sample_weight=weights.numpy()
    )


def test_transform_does_not_pass_through_the_host(tensor, monkeypatch):
    autoencoder = AutoEncoderTransformer(**TRAINED).fit(tensor)

    def refuse(*args, **kwargs):
        raise RuntimeError("copied")

    for name in ("cpu", "numpy", "__array__", "tolist"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    codes = autoencoder.transform(tensor)
    assert autoencoder.inverse_transform(codes).shape == tensor.shape


def test_tensors_with_gradients_and_strides(tensor):
    autoencoder = AutoEncoderTransformer(**TRAINED).fit(tensor)
    odd = torch.cat([tensor, tensor], dim=1)[:, :5].requires_grad_()
    assert_allclose(autoencoder.transform(odd).numpy(), autoencoder.transform(tensor).numpy(), atol=1e-5)


def test_pipeline_all_in_torch(tensor):
    y = (tensor[:, 2] > 0.3).to(torch.int64)
    pipeline = make_pipeline(StandardScaler(), AutoEncoderTransformer(**TRAINED), LogisticRegression())
    try:
        predicted = pipeline.fit(tensor, y).predict(tensor)
    except (TypeError, ValueError) as error:
        pytest.skip(f"this scikit-learn has no LogisticRegression for tensors: {error}")
    assert isinstance(predicted, torch.Tensor)
    of_arrays = pipeline.fit(tensor.numpy(), y.numpy()).predict(tensor.numpy())
    assert (predicted.numpy() == of_arrays).mean() > 0.95


def test_chunks_of_tensors(tensor):
    of_tensors, of_arrays = AutoEncoderTransformer(random_state=0), AutoEncoderTransformer(random_state=0)
    for chunk in tensor.split(40):
        of_tensors.partial_fit(chunk)
        of_arrays.partial_fit(chunk.numpy())
    assert_array_equal(of_tensors.transform(tensor).numpy(), of_arrays.transform(tensor.numpy()))


def test_missing_values_and_spread_of_codes(tensor):
    holes = tensor.clone()
    holes[::3, 1] = torch.nan
    autoencoder = AutoEncoderTransformer(**TRAINED, allow_nan=True, regularizer="variational").fit(holes)
    assert autoencoder.score_samples(holes).isfinite().all()
    assert transform_std(autoencoder, holes).shape == (120, 2)


def test_another_kind_than_in_fit_is_refused(tensor):
    if not hasattr(sklearn.utils._array_api, "check_same_namespace"):
        pytest.skip("scikit-learn refuses other kinds from 1.9 on")
    autoencoder = AutoEncoderTransformer(**TRAINED).fit(tensor.numpy())
    for method in ("transform", "score", "score_samples"):
        with pytest.raises(ValueError, match=rf"AutoEncoderTransformer.{method}\(\) must use the same namespace"):
            getattr(autoencoder, method)(tensor)
    with pytest.raises(ValueError, match=r"inverse_transform\(\) must use the same namespace"):
        autoencoder.inverse_transform(tensor[:, :2])


def test_without_dispatch_tensors_are_arrays(tensor):
    with sklearn.config_context(array_api_dispatch=False):
        autoencoder = AutoEncoderTransformer(**TRAINED).fit(tensor)
        assert isinstance(autoencoder.transform(tensor), np.ndarray)


@pytest.mark.parametrize("contamination", ["auto", 0.1])
@pytest.mark.parametrize("estimator", [None, AutoEncoderTransformer(**TRAINED)])
def test_outliers_among_tensors(tensor, estimator, contamination):
    tensor = tensor[:, :2] @ tensor[:2] if estimator is None else tensor  # in a plane there is nothing to train
    detector = AutoEncoderOutlierDetector(estimator, n_components=2, contamination=contamination, random_state=0)
    assert get_tags(detector).array_api_support
    of_tensor, of_array = clone(detector).fit(tensor), detector.fit(tensor.numpy())
    assert of_tensor.offset_ == of_array.offset_
    for method in ("score_samples", "decision_function", "predict", "reconstruction_errors"):
        result = getattr(of_tensor, method)(tensor)
        assert isinstance(result, torch.Tensor)
        assert_array_equal(result.numpy(), getattr(of_array, method)(tensor.numpy()))
    assert of_tensor.predict(tensor).dtype == torch.int64
    assert isinstance(clone(detector).fit_predict(tensor), torch.Tensor)
    assert_array_equal(of_tensor.predict(tensor.clone().requires_grad_()), of_tensor.predict(tensor))


def test_outliers_among_tensors_in_a_pipeline(tensor):
    pipeline = make_pipeline(StandardScaler(), AutoEncoderTransformer(**TRAINED))
    detector = AutoEncoderOutlierDetector(pipeline, random_state=0).fit(tensor)
    labels = detector.predict(tensor)
    assert isinstance(labels, torch.Tensor)
    assert (labels == 1).double().mean() > 0.9


def test_outliers_without_dispatch_are_arrays(tensor):
    with sklearn.config_context(array_api_dispatch=False):
        detector = AutoEncoderOutlierDetector(AutoEncoderTransformer(**TRAINED), random_state=0).fit(tensor)
        assert isinstance(detector.predict(tensor), np.ndarray)
