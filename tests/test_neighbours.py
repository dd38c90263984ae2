"""Libraries that take any transformer: searches, tables, resampling, topics, clusters of machines."""

import pickle
import warnings
from itertools import islice

import numpy as np
import pytest
from helpers import TINY, curved_rows
from joblib import parallel_config
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.cluster import HDBSCAN, MiniBatchKMeans
from sklearn.decomposition import PCA
from sklearn.dummy import DummyRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

from skae import AutoEncoderTransformer, Denoising
from skae._data import containers

SUBJECTS = (
    ("cat", "dog", "horse", "bird", "fish", "mouse"),
    ("sun", "moon", "star", "planet", "comet", "orbit"),
    ("bread", "milk", "salt", "sugar", "rice", "butter"),
)


@pytest.fixture(scope="module")
def subject():
    """Which of the subjects each of the texts is about."""
    return np.arange(150) % 3


@pytest.fixture(scope="module")
def texts(subject):
    random = np.random.RandomState(0)
    return [" ".join(random.choice(SUBJECTS[number], 8)) for number in subject]


@pytest.fixture(scope="module")
def embeddings(texts):
    return TfidfVectorizer().fit_transform(texts)


@pytest.fixture(scope="module")
def client():
    """A cluster of two processes."""
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        yield client


class TestOptuna:
    @pytest.fixture
    def optuna(self):
        pytest.importorskip("optuna_integration")
        optuna = pytest.importorskip("optuna")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        return optuna

    @pytest.fixture
    def search(self, optuna):
        """Search for an estimator's parameters; Optuna's own warnings, experimental and deprecated, are not ours."""

        def search(estimator, X, distributions, **options):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                from optuna_integration import OptunaSearchCV

                return OptunaSearchCV(estimator, distributions, cv=2, random_state=0, **options).fit(X)

        return search

    def test_bottleneck_and_regularizer(self, optuna, search, curved):
        distributions = {
            "n_components": optuna.distributions.IntDistribution(1, 3),
            "regularizer__noise": optuna.distributions.FloatDistribution(0.01, 1.0, log=True),
        }
        estimator = AutoEncoderTransformer(regularizer=Denoising(), **TINY)
        found = search(estimator, curved, distributions, n_trials=4)
        tried = found.trials_dataframe()
        assert found.best_params_["n_components"] == tried["params_n_components"].max() > 1
        best = found.best_estimator_
        assert best.regularizer.noise == found.best_params_["regularizer__noise"] != Denoising().noise
        assert estimator.regularizer.noise == Denoising().noise
        again = clone(estimator).set_params(**found.best_params_)
        assert found.best_score_ == cross_val_score(again, curved, cv=found.cv).mean()
        assert_array_equal(found.transform(curved), again.fit(curved).transform(curved))

    def test_search_by_partial_fit_prunes(self, optuna, search):
        """It hands the same rows over again and again, and gives up where others had come further by then."""
        study = optuna.create_study(
            direction="maximize", pruner=optuna.pruners.MedianPruner(n_startup_trials=1, n_warmup_steps=0)
        )
        for k in (3, 1, 2):
            study.enqueue_trial({"n_components": k})
        distributions = {"n_components": optuna.distributions.IntDistribution(1, 3)}
        options = {"study": study, "n_trials": 3, "enable_pruning": True, "max_iter": 2}
        found = search(AutoEncoderTransformer(**TINY), curved_rows(200), distributions, **options)
        states = [(trial.params["n_components"], trial.state.name) for trial in found.trials_]
        assert states == [(3, "COMPLETE"), (1, "PRUNED"), (2, "PRUNED")]
        assert [len(trial.intermediate_values) for trial in found.trials_] == [2, 1, 1]
        assert found.best_params_ == {"n_components": 3}

    def test_pruning_callback(self, optuna):
        """A trial is given up after the first epochs; the error that says so passes through `fit`."""
        from optuna_integration import SkorchPruningCallback

        X, left = curved_rows(200), []

        def objective(trial):
            lr = trial.suggest_float("lr", 1e-9, 1.0)
            callback = SkorchPruningCallback(trial, "valid_loss")
            estimator = AutoEncoderTransformer(lr=lr, hidden_layer_sizes=16, max_epochs=12, callbacks=[callback])
            left.append(estimator.set_params(random_state=0))
            return estimator.fit(X).score(X)

        pruner = optuna.pruners.MedianPruner(n_startup_trials=1, n_warmup_steps=3)
        study = optuna.create_study(direction="minimize", pruner=pruner)
        for lr in (1e-2, 1e-9):
            study.enqueue_trial({"lr": lr})
        study.optimize(objective, n_trials=2)
        good, bad = study.trials
        assert [good.state.name, bad.state.name] == ["COMPLETE", "PRUNED"]
        assert len(good.intermediate_values) == left[0].n_iter_ >= 12
        assert good.intermediate_values[left[0].n_iter_ - 1] == left[0].net_.history[-1, "valid_loss"]
        assert len(bad.intermediate_values) == 4
        assert not hasattr(left[1], "net_")


class TestSkrub:
    @pytest.fixture
    def skrub(self):
        return pytest.importorskip("skrub")

    @pytest.fixture
    def diamonds(self):
        return pytest.importorskip("plotnine.data").diamonds.sample(400, random_state=0)

    def test_prices_of_diamonds(self, skrub, diamonds):
        """Words and numbers become columns, these become codes, and the codes tell the price."""
        X, price = diamonds.drop(columns="price"), np.log(diamonds["price"])
        autoencoder = AutoEncoderTransformer(4, **TINY)
        pipeline = make_pipeline(skrub.TableVectorizer(), autoencoder, Ridge())
        assert cross_val_score(pipeline, X, price, cv=2).min() > 0.5
        assert cross_val_score(DummyRegressor(), X, price, cv=2).max() < 0.01
        encoder, autoencoder, _ = pipeline.fit(X, price)
        assert_array_equal(autoencoder.feature_names_in_, encoder.get_feature_names_out())
        assert {"carat", "cut_Ideal"} <= set(autoencoder.feature_names_in_)
        back = autoencoder.inverse_transform(autoencoder.transform(encoder.transform(X)))
        assert back.shape == (400, autoencoder.n_features_in_)

    def test_codes_beside_other_columns(self, skrub, diamonds):
        """As a step for some columns of a frame, which gets columns named after the estimator."""
        few, sizes = diamonds.head(60), ["x", "y", "z", "carat"]
        table = skrub.ApplyToCols(AutoEncoderTransformer(2, **TINY), cols=sizes).fit_transform(few)
        assert list(table.columns) == [*few.columns.drop(sizes), "autoencodertransformer0", "autoencodertransformer1"]
        assert_allclose(table.iloc[:, -2:], AutoEncoderTransformer(2, **TINY).fit_transform(few[sizes]))

    def test_bottleneck_as_a_choice_in_a_plan(self, skrub, diamonds):
        """Of skrub's data operations, which search over the choices that they hold."""
        sizes = diamonds[["x", "y", "z", "carat", "depth", "price"]]
        X, price = skrub.X(sizes).skb.drop("price"), skrub.y(np.log(sizes["price"]))
        codes = X.skb.apply(AutoEncoderTransformer(skrub.choose_from([1, 3], name="size"), **TINY))
        search = codes.skb.apply(Ridge(), y=price).skb.make_grid_search(cv=2)
        search.fit({"X": sizes, "y": np.log(sizes["price"])})
        tried = search.results_.set_index("size")["mean_test_score"]
        assert set(tried.index) == {1, 3}
        assert search.best_score_ == tried.max() > 0.5


class TestImbalancedLearn:
    """One class of 60 rows, one of 12."""

    @pytest.fixture
    def labelled(self):
        X, y = curved_rows(72), np.repeat([0, 1], [60, 12])
        return X + 0.7 * y[:, None], y

    @pytest.mark.parametrize("sampler", ["RandomOverSampler", "SMOTE"])
    @pytest.mark.parametrize("first", ["sampler", "autoencoder"])
    def test_pipeline(self, sampler, first, labelled):
        """The autoencoder learns from the rows added, or they are added among its codes; all rows are predicted."""
        X, y = labelled
        over_sampling = pytest.importorskip("imblearn.over_sampling")
        from imblearn.pipeline import make_pipeline

        sampler = getattr(over_sampling, sampler)(random_state=0)
        autoencoder = AutoEncoderTransformer(2, **TINY)
        steps = [sampler, autoencoder] if first == "sampler" else [autoencoder, sampler]
        pipeline = make_pipeline(*(clone(step) for step in steps), LogisticRegression()).fit(X, y)

        fitted = pipeline.named_steps["autoencodertransformer"]
        more, labels = sampler.fit_resample(X, y)
        assert np.bincount(labels).tolist() == [60, 60]
        seen = more if first == "sampler" else X
        assert_array_equal(fitted.transform(X), clone(autoencoder).fit(seen).transform(X))
        assert pipeline.predict(X).shape == y.shape
        plain = make_pipeline(clone(autoencoder), LogisticRegression()).fit(X, y)
        found, found_plainly = (np.mean(each.predict(X)[y == 1]) for each in (pipeline, plain))
        assert found > max(found_plainly, 0.6)

    def test_search_over_both(self, labelled):
        X, y = labelled
        over_sampling = pytest.importorskip("imblearn.over_sampling")
        from imblearn.pipeline import make_pipeline

        pipeline = make_pipeline(
            over_sampling.SMOTE(random_state=0), AutoEncoderTransformer(**TINY), LogisticRegression()
        )
        grid = {"autoencodertransformer__n_components": [1, 3], "smote__k_neighbors": [2, 4]}
        search = GridSearchCV(pipeline, grid, cv=2, scoring="balanced_accuracy").fit(X, y)
        assert search.best_score_ > 0.6
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()


class TestTopics:
    """The reducer's place in BERTopic, which takes any object with `fit` and `transform`."""

    @pytest.mark.parametrize("sparse", [True, False])
    def test_called_as_by_bertopic(self, embeddings, subject, sparse):
        """With y by name, None or labels; several ways to fit; on a copy of what is stored sparse, or in float32."""
        X = embeddings if sparse else embeddings.toarray().astype(np.float32)
        whole = AutoEncoderTransformer(2, **TINY).fit_transform(X, y=subject)
        reducer = AutoEncoderTransformer(2, **TINY)
        assert reducer.fit(X, y=None) is reducer
        assert_array_equal(reducer.transform(X), whole)
        assert not np.isnan(whole).any()
        assert_allclose(reducer.transform(X[:5]), whole[:5], rtol=1e-4, atol=1e-6)
        online = AutoEncoderTransformer(2, **TINY)
        assert online.partial_fit(X[:100]) is online
        assert online.partial_fit(X[100:]).transform(X).shape == (150, 2)

    def test_clusters_are_the_subjects(self, embeddings, subject):
        """With scikit-learn's HDBSCAN, which BERTopic falls back on."""
        pipeline = make_pipeline(AutoEncoderTransformer(2, **TINY), HDBSCAN(min_cluster_size=10, copy=True))
        labels = pipeline.fit_predict(embeddings)
        assert adjusted_rand_score(subject[labels >= 0], labels[labels >= 0]) > 0.95
        assert np.mean(labels >= 0) > 0.8

    @pytest.mark.parametrize("online", [False, True])
    def test_bertopic(self, texts, embeddings, subject, online):
        """Without its transformers and hdbscan: `pip install --no-deps bertopic`."""
        with warnings.catch_warnings():  # its import changes the filters of warnings
            bertopic = pytest.importorskip("bertopic")
        from bertopic.vectorizers import OnlineCountVectorizer

        model = bertopic.BERTopic(
            umap_model=AutoEncoderTransformer(2, **TINY),
            hdbscan_model=MiniBatchKMeans(3, n_init=3, random_state=0),
            vectorizer_model=OnlineCountVectorizer(),
        )
        X = embeddings.toarray()
        if online:
            model.partial_fit(texts, embeddings=X)
            topics = model.topics_
        else:
            topics, _ = model.fit_transform(texts, embeddings=X)
        assert isinstance(model.umap_model, AutoEncoderTransformer)
        assert adjusted_rand_score(subject, topics) > 0.95
        words = {tuple(sorted(word for word, _ in model.get_topic(topic)[:6])) for topic in range(3)}
        assert words == {tuple(sorted(words)) for words in SUBJECTS}


class TestDask:
    @pytest.fixture
    def dask_array(self):
        return pytest.importorskip("dask.array")

    def test_grid_search_on_a_cluster(self, client, curved):
        grid = {"regularizer": [None, Denoising(0.5)]}
        here = GridSearchCV(AutoEncoderTransformer(**TINY), grid, cv=2).fit(curved)
        with parallel_config(backend="dask"):
            there = GridSearchCV(AutoEncoderTransformer(**TINY), grid, cv=2).fit(curved)
        assert_array_equal(there.cv_results_["mean_test_score"], here.cv_results_["mean_test_score"])
        assert_array_equal(there.transform(curved), here.transform(curved))
        ran = client.run(lambda: "skae" in __import__("sys").modules)
        assert len(ran) == 2
        assert any(ran.values())

    def test_partitions_on_a_cluster(self, client, dask_array, curved):
        """A fitted estimator goes to the workers; each maps its own rows."""
        autoencoder = AutoEncoderTransformer(2, **TINY).fit(curved)
        rows = dask_array.from_array(curved, chunks=(25, 5))
        options = {"dtype": curved.dtype, "chunks": (rows.chunks[0], (2,))}
        codes = rows.map_blocks(autoencoder.transform, **options)
        assert codes.shape == (60, 2)
        assert_array_equal(codes.compute(scheduler=client), autoencoder.transform(curved))

    @pytest.mark.parametrize("large", [False, True])
    def test_dask_array_is_an_array(self, dask_array, large, monkeypatch):
        """What has blocks of its own is read as a file is, where it is too large to be held."""
        if large:
            monkeypatch.setattr(containers, "LARGE_SIZE", 400)
            monkeypatch.setattr(containers, "BLOCK_VALUES", 300)
        X = curved_rows(90)
        rows = dask_array.from_array(X, chunks=(50, 3))
        there, here = (AutoEncoderTransformer(2, **TINY).fit(some) for some in (rows, X))
        for method in ("transform", "score", "score_samples"):
            result = getattr(there, method)(rows)
            assert isinstance(result, np.ndarray | float)
            assert_array_equal(result, getattr(here, method)(X))

    def test_unknown_number_of_rows(self, dask_array, curved):
        """After a choice by their values nobody knows how many rows there are before they are counted."""
        rows = dask_array.from_array(curved, chunks=(20, 5))
        chosen = rows[rows[:, 0] > 0]
        assert np.isnan(chosen.shape[0])
        positive = curved[curved[:, 0] > 0]
        autoencoder = AutoEncoderTransformer(2, **TINY).fit(chosen)
        assert_array_equal(autoencoder.transform(chosen), autoencoder.transform(positive))
        assert_allclose(autoencoder.mean_, positive.mean(axis=0))

    def test_partition_by_partition(self, dask_array, curved):
        rows = dask_array.from_array(curved, chunks=(20, 5))
        autoencoder = AutoEncoderTransformer(2, max_epochs=0, early_stopping=False)
        for block in rows.blocks:
            autoencoder.partial_fit(block.compute())
        assert autoencoder.n_samples_seen_ == 60
        assert_allclose(autoencoder.transform(rows), PCA(2).fit_transform(curved), atol=1e-8)

    @pytest.mark.parametrize("method", ["fit", "partial_fit"])
    def test_dask_frame_is_an_array(self, curved, method):
        """Its values are taken; of its names scikit-learn knows nothing, so the fitted estimator has none."""
        dataframe, pandas = pytest.importorskip("dask.dataframe"), pytest.importorskip("pandas")
        table = dataframe.from_pandas(pandas.DataFrame(curved, columns=list("abcde")), npartitions=3)
        there, here = (getattr(AutoEncoderTransformer(2, **TINY), method)(some) for some in (table, curved))
        assert_array_equal(there.transform(table), here.transform(curved))
        assert there.score(table) == here.score(curved)
        assert not hasattr(there, "feature_names_in_")

    def test_partitions_of_a_frame(self, curved):
        """Each is a pandas frame, so names are checked, and the codes have theirs."""
        dataframe, pandas = pytest.importorskip("dask.dataframe"), pytest.importorskip("pandas")
        table = pandas.DataFrame(curved, columns=list("abcde"))
        autoencoder = AutoEncoderTransformer(2, **TINY).set_output(transform="pandas").fit(table)
        codes = dataframe.from_pandas(table, npartitions=3).map_partitions(autoencoder.transform)
        assert list(codes.columns) == list(autoencoder.get_feature_names_out())
        pandas.testing.assert_frame_equal(codes.compute(), autoencoder.transform(table))


def test_stream_of_parquet_files(tmp_path):
    """What is pickled between two chunks and goes on with the rest ends where the stream that was not stopped does."""
    dataset = pytest.importorskip("pyarrow.dataset")
    pyarrow = pytest.importorskip("pyarrow")
    X = curved_rows(300)
    table = pyarrow.table({"part": np.arange(300) % 3, **dict(zip("abcde", X.T, strict=True))})
    options = {"partitioning": ["part"], "partitioning_flavor": "hive"}
    dataset.write_dataset(table, tmp_path, format="parquet", **options)

    def chunks():
        for batch in dataset.dataset(tmp_path, partitioning="hive").to_batches(columns=list("abcde"), batch_size=40):
            yield batch.to_pandas()

    autoencoder, pickled = AutoEncoderTransformer(2, **TINY), None
    for number, chunk in enumerate(chunks()):
        if number == 4:
            pickled = pickle.dumps(autoencoder)
        autoencoder.partial_fit(chunk)
    assert autoencoder.n_samples_seen_ == 300
    resumed = pickle.loads(pickled)
    for chunk in islice(chunks(), 4, None):
        resumed.partial_fit(chunk)
    assert list(resumed.feature_names_in_) == list("abcde")
    table = table.select(list("abcde")).to_pandas()
    assert_array_equal(resumed.transform(table), autoencoder.transform(table))
