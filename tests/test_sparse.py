"""Sparse rows: the same results as dense ones, in the memory of a few batches."""

import numpy as np
import pytest
import scipy.sparse
from helpers import TINY, TRAINED, run_python
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.decomposition import PCA

from skae import AutoEncoderOutlierDetector, AutoEncoderTransformer
from skae._data.containers import as_samples
from skae._data.sample import Sample
from skae._pca.exact import principal_components

CONTAINERS = [
    scipy.sparse.csr_array,
    scipy.sparse.csr_matrix,
    scipy.sparse.csc_array,
    scipy.sparse.csc_matrix,
    scipy.sparse.coo_array,
    scipy.sparse.coo_matrix,
]


def counts(n_samples=60, n_words=30, seed=0):
    """Counts of words in texts of three subjects, most of them zero."""
    random = np.random.RandomState(seed)
    subjects = random.dirichlet(np.full(n_words, 0.1), 3)
    return np.array([random.multinomial(20, subjects[random.randint(3)]) for _ in range(n_samples)], dtype=np.float64)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_same_to_the_last_bit_as_dense(container, dtype):
    X = counts().astype(dtype)
    dense = AutoEncoderTransformer(3, **TRAINED).fit(X)
    sparse = AutoEncoderTransformer(3, **TRAINED).fit(container(X))
    assert sparse.best_epoch_ > 0
    assert_array_equal(sparse.transform(container(X)), dense.transform(X))
    assert sparse.transform(container(X)).dtype == dtype
    assert sparse.score(container(X)) == dense.score(X)
    assert_array_equal(sparse.score_samples(container(X)), dense.score_samples(X))


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"regularizer": "denoising"},
        {"loss": "poisson", "early_stopping": False},
        {"linear_skip": False},
        {"whiten": True},
        {"optimizer": "lbfgs", "early_stopping": False},
    ],
    ids=str,
)
def test_the_same_with_other_parameters(parameters):
    X = counts()
    estimators = [AutoEncoderTransformer(2, **TINY, **parameters).fit(kind) for kind in (X, scipy.sparse.csr_array(X))]
    assert_array_equal(*(estimator.transform(X) for estimator in estimators))
    assert estimators[0].loss_curve_ == estimators[1].loss_curve_


def test_rows_too_many_to_be_made_dense_at_once(monkeypatch):
    """Batches and directions that are made dense piece by piece give the same as the whole."""
    X = counts(150)
    whole = AutoEncoderTransformer(3, **TRAINED).fit(X)
    monkeypatch.setattr("skae._data.dataset.RESIDENT_VALUES", 100)
    pieces = AutoEncoderTransformer(3, **TRAINED).fit(scipy.sparse.csr_array(X))
    assert_array_equal(pieces.transform(X), whole.transform(X))
    monkeypatch.setattr("skae._pca.exact.EXACT_SIZE", 100)
    monkeypatch.setattr("skae._pca.exact.CHUNK_VALUES", 200)
    for data in (X, X[:20]):
        of_sparse = principal_components(Sample(as_samples(scipy.sparse.csr_array(data))), 3)
        assert_array_equal(of_sparse.components, principal_components(Sample(data), 3).components)


@pytest.mark.parametrize("rows", [None, np.arange(0, 90, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_iterated_directions_are_pcas(monkeypatch, rows, dtype):
    monkeypatch.setattr("skae._pca.exact.EXACT_SIZE", 100)
    monkeypatch.setattr("skae._pca.exact.ITERATED_SIDE", 10)
    X = counts(90).astype(dtype)
    pca = PCA(2).fit(X.astype(np.float64) if rows is None else X[rows].astype(np.float64))
    found = principal_components(Sample(as_samples(scipy.sparse.csr_array(X)), rows), 2)
    assert_allclose(found.components, pca.components_, atol=1e-10)
    assert_allclose(found.explained_variance, pca.explained_variance_, rtol=1e-10)
    assert_allclose(found.mean, pca.mean_, atol=1e-12)


def test_iterated_directions_of_nothing(monkeypatch):
    monkeypatch.setattr("skae._pca.exact.EXACT_SIZE", 100)
    monkeypatch.setattr("skae._pca.exact.ITERATED_SIDE", 10)
    empty = scipy.sparse.csr_array((40, 40))
    estimator = AutoEncoderTransformer(2, **TINY).fit(empty)
    assert_array_equal(estimator.transform(empty), np.zeros((40, 2)))


def test_memory_is_that_of_a_few_batches():
    """40 MB of values, 500 MB if they were dense."""
    code = (
        "import sys, numpy, scipy.sparse\n"
        "from skae import AutoEncoderTransformer\n"
        "def memory(key):\n"
        "    return int(open('/proc/self/status').read().split(key + ':')[1].split()[0]) / 1024\n"
        "estimator = AutoEncoderTransformer(2, hidden_layer_sizes=8, max_epochs=1, random_state=0)\n"
        "estimator.fit(numpy.eye(50))\n"
        "n_samples, n_features, n_values = 25_000, 2500, 2_500_000\n"
        "random = numpy.random.RandomState(0)\n"
        "where = random.randint(0, n_features, n_values), numpy.arange(0, n_values + 1, n_values // n_samples)\n"
        "X = scipy.sparse.csr_array((random.uniform(size=n_values), *where), (n_samples, n_features))\n"
        "before = memory('VmRSS')\n"
        "open('/proc/self/clear_refs', 'w').write('5')\n"
        "estimator.fit(X).transform(X)\n"
        "sys.stdout.write(str((memory('VmHWM') - before) / (X.data.nbytes + X.indices.nbytes) * 2**20))"
    )
    try:
        with open("/proc/self/clear_refs", "w") as peak:
            peak.write("5")
    except OSError:
        pytest.skip("the peak of resident memory cannot be reset here")
    assert float(run_python(code)) < 4  # beside the matrix itself; the basis comes from a Gram matrix


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_refused(value):
    X = counts()
    X[3, 4] = value
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        AutoEncoderTransformer(2, **TINY).fit(scipy.sparse.csr_array(X))


def test_negative_counts_are_refused():
    with pytest.raises(ValueError, match="loss='poisson' needs counts of at least 0"):
        AutoEncoderTransformer(2, loss="poisson", **TINY).fit(scipy.sparse.csr_array(-counts()))


def test_codes_come_back_dense():
    X = scipy.sparse.csr_array(counts())
    estimator = AutoEncoderTransformer(2, **TINY).fit(X)
    with pytest.raises(TypeError, match="dense data is required"):
        estimator.inverse_transform(scipy.sparse.csr_array(estimator.transform(X)))


def test_outliers_among_sparse_rows():
    X = counts(100)
    detectors = [
        AutoEncoderOutlierDetector(AutoEncoderTransformer(2, **TINY), random_state=0).fit(kind)
        for kind in (X, scipy.sparse.csr_array(X))
    ]
    assert_array_equal(detectors[1].decision_function(scipy.sparse.csr_array(X)), detectors[0].decision_function(X))
