"""Where the pages about a class are, for the links in scikit-learn's pictures of estimators."""

from collections.abc import Callable

REFERENCE = "https://skae.readthedocs.io/en/stable/api.html"


class Documented:
    """Goes before BaseEstimator: the question mark and the tooltips of parameters lead to our reference."""

    _doc_link_module = "skae"
    _doc_link_template = REFERENCE + "#skae.{estimator_name}"
    _doc_link_url_param_generator: Callable | None = None
