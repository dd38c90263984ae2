"""What notebooks show of an estimator, and what its tags say of it."""

import re
from pathlib import Path

import numpy as np
import pytest
import sklearn
from helpers import TINY, curved_rows
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_html_repr, get_tags
from sklearn.utils.fixes import parse_version

import skae
from skae import AutoEncoderOutlierDetector, AutoEncoderTransformer, Denoising, Poisson

API = Path(__file__).resolve().parents[1] / "docs" / "api.rst"
of_1_9 = pytest.mark.skipif(
    parse_version(sklearn.__version__) < parse_version("1.9.dev0"), reason="tooltips and attributes are new in 1.9"
)


@pytest.fixture(scope="module")
def fitted():
    return AutoEncoderTransformer(2, regularizer=Denoising(), **TINY).fit(curved_rows(60))


def described(html):
    """Names that have a link and a text to show."""
    return set(re.findall(r'--doc-link-(\w+);"\s+rel="noreferrer" target="_blank" href="https', html))


class TestPicture:
    @of_1_9
    def test_every_parameter_and_attribute_is_described(self, fitted):
        html = estimator_html_repr(fitted)
        attributes = {name for name in vars(fitted) if name.endswith("_") and not name.startswith("_")}
        assert {"net_", "loss_curve_", "n_features_in_"} <= attributes
        assert described(html) == set(fitted.get_params(deep=False)) | attributes

    @of_1_9
    def test_network_in_short(self, fitted):
        assert repr(fitted.net_) == "<5-8-2-8-5>"
        assert "&lt;5-8-2-8-5&gt;" in estimator_html_repr(fitted)
        # Longer representations lose their middle there.
        wide = AutoEncoderTransformer(16, hidden_layer_sizes=(128, 64), max_epochs=0)
        assert len(repr(wide.fit(np.random.RandomState(0).standard_normal((20, 100))).net_)) <= 30

    def test_links(self, fitted):
        reference = API.read_text(encoding="utf-8") if API.exists() else None
        for one in (fitted, AutoEncoderOutlierDetector(), Poisson(), Denoising()):
            name = type(one).__name__
            link = one._get_doc_link()
            assert link == f"https://skae.readthedocs.io/en/stable/api.html#skae.{name}"
            assert reference is None or f".. autoclass:: {name}\n" in reference
        assert f'href="{fitted._get_doc_link()}"' in estimator_html_repr(make_pipeline(StandardScaler(), fitted))

    def test_a_class_of_ones_own_has_no_link(self):
        class Own(AutoEncoderTransformer):
            pass

        assert Own()._get_doc_link() == ""


class TestTags:
    @pytest.mark.parametrize("loss", ["squared_error", "poisson", Poisson(), skae.Huber()])
    @pytest.mark.parametrize("allow_nan", [True, False])
    def test_of_every_configuration(self, loss, allow_nan):
        estimator = AutoEncoderTransformer(loss=loss, allow_nan=allow_nan)
        counts = loss == "poisson" or isinstance(loss, Poisson)
        for tags in (get_tags(estimator), get_tags(AutoEncoderOutlierDetector(estimator))):
            assert tags.input_tags.allow_nan is allow_nan
            assert tags.input_tags.positive_only is counts
            assert tags.input_tags.sparse
            assert not tags.target_tags.required
        assert get_tags(estimator).transformer_tags.preserves_dtype == ["float64", "float32"]
        assert get_tags(AutoEncoderOutlierDetector(estimator)).estimator_type == "outlier_detector"

    def test_detector_takes_nan_where_its_autoencoder_does(self):
        X = curved_rows(80)
        X[::7, 1] = np.nan
        with pytest.raises(ValueError, match="NaN"):
            AutoEncoderOutlierDetector().fit(X)
        detector = AutoEncoderOutlierDetector(AutoEncoderTransformer(2, allow_nan=True, **TINY), random_state=0).fit(X)
        wild = np.array([[np.nan, 50.0, -50.0, 50.0, 50.0]])
        assert detector.predict(wild) == -1
        assert (detector.predict(X) == 1).mean() > 0.8
