"""Samples that come a few at a time, and rows of files that are not read whole."""

import pickle
import re

import numpy as np
import pytest
import scipy.sparse
from helpers import curved_rows, noise_rows, run_python
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.decomposition import PCA, IncrementalPCA

from skae import AutoEncoderTransformer
from skae._data import containers, validation
from skae._data import dataset as dataset_module
from skae._utils import seeded_generator

SHORT = {"n_components": 2, "hidden_layer_sizes": 16, "random_state": 0}


def streamed(X, size, n_passes=1, weights=None, **parameters):
    autoencoder = AutoEncoderTransformer(**{**SHORT, **parameters})
    for _ in range(n_passes):
        for first in range(0, len(X), size):
            chunk = slice(first, first + size)
            autoencoder.partial_fit(X[chunk], sample_weight=None if weights is None else weights[chunk])
    return autoencoder


@pytest.fixture(scope="module")
def rows():
    return curved_rows(1200)


@pytest.fixture(scope="module")
def learnt(rows):
    return streamed(rows[:1000], 100, n_passes=4)


class TestPca:
    """Without a network it is PCA of everything seen, whatever the chunks."""

    @pytest.mark.parametrize("size", [1, 7, 80])
    def test_is_pca(self, size):
        X = noise_rows()
        autoencoder = streamed(X, size, max_epochs=0, early_stopping=False)
        pca = PCA(2).fit(X)
        assert_allclose(autoencoder.transform(X), pca.transform(X), atol=1e-8)
        assert_allclose(autoencoder.mean_, pca.mean_)
        assert autoencoder.n_samples_seen_ == IncrementalPCA(2).fit(X).n_samples_seen_ == len(X)

    def test_many_columns(self):
        """Of more columns than directions are kept the smallest are lost, as in IncrementalPCA."""
        random = np.random.RandomState(0)
        X = random.normal(size=(150, 4)) @ random.normal(size=(4, 300)) + 0.1 * random.normal(size=(150, 300))
        autoencoder = streamed(X, 30, activation="identity", early_stopping=False)
        assert_allclose(autoencoder.transform(X), PCA(2).fit_transform(X), atol=1e-3)

    def test_weights_are_repetitions(self):
        X, counts = noise_rows(), np.random.RandomState(0).randint(0, 3, 80)
        weighted = streamed(X, 9, weights=counts, max_epochs=0, early_stopping=False)
        assert_allclose(weighted.transform(X), PCA(2).fit(np.repeat(X, counts, axis=0)).transform(X), atol=1e-8)

    def test_other_weights_are_relative(self):
        X, weights = noise_rows(), np.random.RandomState(0).uniform(0.1, 2.0, 80)
        first, second = (
            streamed(X, 9, weights=factor * weights, max_epochs=0, early_stopping=False) for factor in (1, 1e6)
        )
        whole = AutoEncoderTransformer(max_epochs=0).fit(X, sample_weight=weights)
        assert_allclose(first.transform(X), second.transform(X), atol=1e-8)
        assert_allclose(first.transform(X), whole.transform(X), atol=1e-8)

    def test_one_row_is_enough(self):
        X = noise_rows()
        autoencoder = AutoEncoderTransformer(3).partial_fit(X[:1])
        assert_array_equal(autoencoder.transform(X[:1]), np.zeros((1, 3)))
        assert_allclose(autoencoder.inverse_transform(np.zeros((1, 3))), X[:1])

    def test_whitened(self):
        codes = streamed(noise_rows(), 10, max_epochs=0, whiten=True, early_stopping=False).transform(noise_rows())
        assert_allclose(codes.std(axis=0, ddof=1), 1.0)


class TestNetwork:
    def test_learns_what_pca_cannot(self, learnt, rows):
        pca = PCA(2).fit(rows[:1000])
        assert learnt.score(rows[1000:]) > pca.explained_variance_ratio_.sum() + 0.05
        assert learnt.best_epoch_ == learnt.n_iter_ == len(learnt.loss_curve_) > 0
        assert len(learnt.validation_scores_) == learnt.n_iter_ + 1
        assert learnt.validation_scores_[-1] > learnt.validation_scores_[0]

    def test_small_chunks_teach_as_much(self, learnt, rows):
        small = streamed(rows[:1000], 7, n_passes=4)
        assert small.score(rows[1000:]) == pytest.approx(learnt.score(rows[1000:]), abs=0.03)

    def test_sorted_rows_are_not_forgotten(self, rows):
        """The first half lies elsewhere than the second."""
        order = np.argsort(rows[:1000, 0])
        in_order = streamed(rows[:1000][order], 100, n_passes=4)
        test, pca = rows[1000:], AutoEncoderTransformer(2, max_epochs=0).fit(rows[:1000])
        for part in (test[test[:, 0] < 0], test[test[:, 0] > 0]):
            assert in_order.score(part) > pca.score(part) + 0.01

    def test_noise_stays_pca(self):
        X = noise_rows(1500)
        autoencoder = streamed(X, 100)
        assert autoencoder.n_iter_ > 0
        assert autoencoder.best_epoch_ == 0
        assert autoencoder.score(X) == pytest.approx(PCA(2).fit(X).explained_variance_ratio_.sum(), abs=0.01)

    @pytest.mark.parametrize(
        "parameters",
        [
            {},
            {"regularizer": "variational", "dropout": 0.1},
            {"linear_skip": False, "normalization": "batch", "optimizer": "sgd"},
            {"loss": "huber", "early_stopping": False, "whiten": True},
        ],
        ids=["defaults", "variational", "no_skip", "huber"],
    )
    def test_going_on_from_a_pickle_is_going_on(self, parameters, rows):
        """To the last bit, wherever it was interrupted, waiting rows and all."""
        there = streamed(rows[:500], 90, **parameters)
        back = pickle.loads(pickle.dumps(there))
        assert_array_equal(there.transform(rows), back.transform(rows))
        for _ in range(2):
            there, back = there.partial_fit(rows[500:950]), pickle.loads(pickle.dumps(back)).partial_fit(rows[500:950])
        assert there.n_iter_ > 0
        assert_array_equal(there.transform(rows), back.transform(rows))
        assert there.validation_scores_ == back.validation_scores_
        assert there.n_samples_seen_ == back.n_samples_seen_ == 1400

    def test_goes_on_after_fit(self, rows):
        fitted = AutoEncoderTransformer(**SHORT, max_epochs=10).fit(rows[:500])
        before = fitted.transform(rows[:10])
        fitted.partial_fit(rows[500:510])
        assert_array_equal(fitted.transform(rows[:10]), before)
        for _ in range(6):
            fitted.partial_fit(rows[500:1000])
        assert fitted.best_epoch_ > 0
        assert fitted.validation_scores_[-1] > fitted.validation_scores_[0]

    def test_fit_starts_afresh(self, rows):
        autoencoder = streamed(rows, 300, max_epochs=5)
        again = autoencoder.fit(rows[:300])
        assert not hasattr(again, "n_samples_seen_")
        assert_array_equal(again.transform(rows), clone(again).fit(rows[:300]).transform(rows))

    def test_sparse_and_float32(self, rows):
        dense = np.where(rows > 0, rows, 0.0).astype(np.float32)
        from_sparse = AutoEncoderTransformer(**SHORT)
        for first in range(0, 1200, 300):
            from_sparse.partial_fit(scipy.sparse.csr_array(dense[first : first + 300]))
        assert_array_equal(from_sparse.transform(dense), streamed(dense, 300).transform(dense))
        assert from_sparse.transform(dense).dtype == np.float32

    def test_missing_values(self, rows):
        holes = np.where(np.random.RandomState(0).uniform(size=rows.shape) < 0.1, np.nan, rows)
        autoencoder = streamed(holes[:1000], 100, n_passes=4, allow_nan=True)
        filled = autoencoder.inverse_transform(autoencoder.transform(holes[1000:]))
        missing = np.isnan(holes[1000:])
        errors = np.square(filled - rows[1000:])[missing].mean()
        assert errors < 0.75 * np.square(rows[:1000].mean(axis=0) - rows[1000:])[missing].mean()


class TestErrors:
    def test_a_bad_chunk_changes_nothing(self, learnt, rows):
        autoencoder, other = pickle.loads(pickle.dumps(learnt)), pickle.loads(pickle.dumps(learnt))
        for bad in (np.full((3, 5), np.nan), rows[:, :4], np.full((3, 5), 1e200), rows[:0]):
            with pytest.raises(ValueError, match="NaN|features|too large|0 sample"):
                autoencoder.partial_fit(bad)
        assert_array_equal(
            autoencoder.partial_fit(rows[:300]).transform(rows), other.partial_fit(rows[:300]).transform(rows)
        )

    def test_a_stop_in_the_middle_of_a_chunk_changes_nothing(self, learnt, rows, monkeypatch):
        autoencoder, other = pickle.loads(pickle.dumps(learnt)), pickle.loads(pickle.dumps(learnt))

        def interrupted(*args, **kwargs):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("skae._training.partial_fit.predicting_net", interrupted)
            with pytest.raises(KeyboardInterrupt):
                autoencoder.partial_fit(rows[:300])
        assert_array_equal(
            autoencoder.partial_fit(rows[:300]).transform(rows), other.partial_fit(rows[:300]).transform(rows)
        )

    @pytest.mark.parametrize("weight", [1e-101, 1e101])
    def test_extreme_weights_are_refused(self, weight, rows):
        message = re.escape(f"sample_weight[2]={weight:.3g} must be 0 or from 1e-100 to 1e+100 in partial_fit.")
        with pytest.raises(ValueError, match=message):
            AutoEncoderTransformer(**SHORT).partial_fit(rows[:3], sample_weight=[0.0, 1.0, weight])

    def test_needs_steps(self, rows):
        estimator = AutoEncoderTransformer(optimizer="lbfgs")
        assert not hasattr(estimator, "partial_fit")
        with pytest.raises(AttributeError) as error:
            estimator.partial_fit(rows)
        assert "partial_fit is not available with optimizer='lbfgs'" in str(error.value.__cause__)

    def test_other_sizes_than_those_of_the_fit_before(self, rows):
        fitted = AutoEncoderTransformer(**SHORT, max_epochs=1).fit(rows)
        with pytest.raises(ValueError, match="needs the network of the previous fit, as partial_fit does"):
            fitted.set_params(n_components=3).partial_fit(rows)

    def test_first_chunk_must_know_every_column(self, rows):
        with pytest.raises(ValueError, match="Feature 1 of X has no observed values"):
            AutoEncoderTransformer(allow_nan=True).partial_fit(np.where(np.arange(5) == 1, np.nan, rows))


class TestFiles:
    """Arrays in files give what arrays in memory give, and are never read whole."""

    @pytest.fixture(autouse=True)
    def everything_is_large(self, monkeypatch):
        monkeypatch.setattr(containers, "LARGE_SIZE", 500)
        monkeypatch.setattr(containers, "BLOCK_VALUES", 200)
        monkeypatch.setattr(containers, "WINDOW_BLOCKS", 4)
        monkeypatch.setattr(dataset_module, "WINDOW_BLOCKS", 4)
        monkeypatch.setattr(dataset_module, "RESIDENT_VALUES", 0)
        monkeypatch.setattr(validation, "CHECKED_VALUES", 300)

    @staticmethod
    def in_file(kind, X, folder):
        if kind == "memmap":
            np.save(folder / "rows.npy", X)
            return np.load(folder / "rows.npy", mmap_mode="r")
        if kind == "h5py":
            return pytest.importorskip("h5py").File(folder / "rows.h5", "w").create_dataset("X", data=X, chunks=(64, 5))
        return pytest.importorskip("zarr").create_array(str(folder / "rows.zarr"), data=X, chunks=(64, 5))

    @pytest.mark.parametrize("kind", ["memmap", "h5py", "zarr"])
    @pytest.mark.parametrize("dtype", [np.float32, np.int16])
    def test_same_as_in_memory(self, kind, dtype, rows, tmp_path):
        X = (rows * 100).astype(dtype)
        stored = self.in_file(kind, X, tmp_path)
        there = AutoEncoderTransformer(**SHORT, max_epochs=4).fit(stored)
        here = AutoEncoderTransformer(**SHORT, max_epochs=4).fit(X)
        assert there.best_epoch_ > 0
        assert_array_equal(there.transform(stored), here.transform(X))
        assert there.score(stored) == here.score(X)

    def test_weights_and_missing_values(self, rows, tmp_path):
        X = np.where(np.random.RandomState(0).uniform(size=rows.shape) < 0.1, np.nan, rows)
        weights = np.random.RandomState(1).uniform(0.5, 2.0, len(X))
        stored = self.in_file("memmap", X, tmp_path)
        there, here = (
            AutoEncoderTransformer(**SHORT, max_epochs=2, allow_nan=True).fit(some, sample_weight=weights)
            for some in (stored, X)
        )
        assert_array_equal(there.transform(stored), here.transform(X))

    def test_bad_values_are_found(self, rows, tmp_path):
        broken = rows.copy()
        broken[-1, 2] = np.inf
        with pytest.raises(ValueError, match="Input X contains infinity"):
            AutoEncoderTransformer().fit(self.in_file("memmap", broken, tmp_path))
        with pytest.raises(ValueError, match="loss='poisson' needs counts of at least 0"):
            AutoEncoderTransformer(loss="poisson").fit(self.in_file("memmap", rows, tmp_path))
        autoencoder = AutoEncoderTransformer(max_epochs=0).fit(rows)
        with pytest.raises(ValueError, match="X has 4 features"):
            autoencoder.transform(self.in_file("memmap", rows[:, :4].copy(), tmp_path))

    def test_few_blocks_are_read_for_a_batch(self, rows, tmp_path):
        """Consecutive rows of a shuffled pass lie in as many blocks as are kept."""
        dataset = dataset_module.SampleDataset(containers.StoredSamples(self.in_file("memmap", rows, tmp_path)))
        batches = dataset_module.SampleBatches(dataset, 40, seeded_generator(0))
        seen = np.concatenate([batch.numpy() for batch, _ in batches])
        numbers = np.argsort(np.lexsort(seen.T)), np.argsort(np.lexsort(rows.T))
        order = np.argsort(numbers[1])[numbers[0]]
        assert_array_equal(np.sort(order), np.arange(len(rows)))
        assert max(len(np.unique(part // 40)) for part in np.split(order, 30)) <= 2 * 4
        assert np.abs(np.diff(order)).mean() > 20


def test_a_large_file_is_never_in_memory(tmp_path):
    """Fitted under a cap on the process's own memory that reading the file whole would break."""
    file = tmp_path / "rows.npy"
    rows = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=(600_000, 200))
    block = np.tile(curved_rows(50_000, noise=0.1), 40)
    for first in range(0, len(rows), 50_000):
        rows[first : first + 50_000] = block
    rows.flush()
    code = (
        "import pathlib, resource, sys, numpy as np\n"
        "from skae import AutoEncoderTransformer\n"
        "from skae._data import containers\n"
        "containers.LARGE_SIZE = 2**22\n"
        "AutoEncoderTransformer(max_epochs=1).fit(np.random.RandomState(0).normal(size=(200, 10)))\n"
        "status = pathlib.Path('/proc/self/status').read_text().splitlines()\n"
        "own = next(int(line.split()[1]) for line in status if line.startswith('VmData'))\n"
        "resource.setrlimit(resource.RLIMIT_DATA, ((own + 350_000) * 1024,) * 2)\n"
        "X = np.load(sys.argv[1], mmap_mode='r')\n"
        "autoencoder = AutoEncoderTransformer(2, max_epochs=1, hidden_layer_sizes=8, batch_size=4096, random_state=0)\n"
        "autoencoder.fit(X)\n"
        "print(autoencoder.n_iter_, autoencoder.transform(X).shape)\n"
        "try:\n"
        "    np.array(X)\n"
        "except MemoryError:\n"
        "    print('capped')\n"
    )
    assert run_python(code, file).splitlines() == ["1 (600000, 2)", "capped"]
