"""Tables with named columns, of pandas and polars: in, out, and checked as PCA checks them."""

import warnings

import numpy as np
import pytest
from helpers import TRAINED, curved_rows
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skae import AutoEncoderTransformer

COLUMNS = list("abcde")
CODES = ["autoencodertransformer0", "autoencodertransformer1"]
LIBRARIES = ["pandas", "polars"]
METHODS = ["transform", "score", "score_samples"]


def frame(library, values, columns=COLUMNS):
    return pytest.importorskip(library).DataFrame(dict(zip(columns, np.asarray(values).T, strict=True)))


def start():
    return AutoEncoderTransformer(2, max_epochs=0)


def what_is_said(call):
    """The error or the warnings of a call, in scikit-learn's words, the class of the estimator left out."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            call()
        except (ValueError, TypeError) as error:
            said = [(type(error), str(error))]
        else:
            said = [(warning.category, str(warning.message)) for warning in caught]
    return [(kind, text.replace("AutoEncoderTransformer", "PCA")) for kind, text in said]


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int32])
def test_in(library, dtype, curved):
    """A frame is its values: the same codes, in the same dtype."""
    X = (10 * curved).astype(dtype)
    table = frame(library, X)
    estimator = AutoEncoderTransformer(2, **TRAINED).fit(table)
    assert list(estimator.feature_names_in_) == COLUMNS
    codes = estimator.transform(table)
    assert type(codes) is np.ndarray
    # scikit-learn's validation does not see float32 in polars, here or for PCA.
    assert codes.dtype == PCA(2).fit(table).transform(table).dtype
    X = X.astype(codes.dtype)
    plain = AutoEncoderTransformer(2, **TRAINED).fit(X)
    # Columns lie one after the other in a frame; sums over another order of the memory may round otherwise.
    tolerance = 1e-3 if codes.dtype == np.float32 else 1e-6
    np.testing.assert_allclose(codes, plain.transform(X), rtol=0, atol=tolerance)
    assert estimator.score(table) == pytest.approx(plain.score(X), rel=1e-4)
    np.testing.assert_allclose(estimator.score_samples(table), plain.score_samples(X), rtol=0, atol=tolerance)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("given", ["numpy", *LIBRARIES])
def test_out(library, given, curved):
    """A frame of the library that was asked for, whatever came in."""
    wanted = pytest.importorskip(library)
    X = curved if given == "numpy" else frame(given, curved)
    estimator = AutoEncoderTransformer(2, **TRAINED).set_output(transform=library)
    codes = estimator.fit_transform(X)
    assert isinstance(codes, wanted.DataFrame)
    assert list(codes.columns) == CODES == list(estimator.get_feature_names_out())
    plain = estimator.set_output(transform="default").transform(X)
    np.testing.assert_array_equal(codes.to_numpy(), plain)
    np.testing.assert_array_equal(estimator.inverse_transform(codes), estimator.inverse_transform(plain))


def test_index_is_kept(curved):
    table = frame("pandas", curved).set_index(np.arange(100, 160))
    codes = start().set_output(transform="pandas").fit_transform(table)
    assert list(codes.index) == list(range(100, 160))


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "columns, complaint",
    [
        ("abcde", None),
        ("edcba", "must be in the same order"),
        ("abcd", "seen at fit time, yet now missing"),
        ("abcdef", "unseen at fit time"),
        ("abcdf", "unseen at fit time"),
        ("bcdaf", "unseen at fit time"),
        ("vwxyz", "unseen at fit time"),
    ],
)
def test_columns_are_checked_as_by_pca(library, method, columns, complaint, curved):
    known = frame(library, curved)
    other = frame(library, np.resize(curved, (60, len(columns))), columns)
    estimator, pca = start().fit(known), PCA(2).fit(known)
    said = what_is_said(lambda: getattr(estimator, method)(other))
    # PCA's score_samples has another meaning, but checks X all the same; its transform stands for the others.
    assert said == what_is_said(lambda: pca.transform(other))
    assert [complaint in text for _, text in said] == ([] if complaint is None else [True])


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("lost", [True, False])
def test_names_lost_or_gained(library, method, lost, curved):
    known, other = (frame(library, curved), curved) if lost else (curved, frame(library, curved))
    estimator, pca = start().fit(known), PCA(2).fit(known)
    said = what_is_said(lambda: getattr(estimator, method)(other))
    assert said == what_is_said(lambda: pca.transform(other))
    assert len(said) == 1
    assert said[0][0] is UserWarning
    assert "feature names" in said[0][1]


def test_names_that_are_not_strings(curved):
    pandas = pytest.importorskip("pandas")
    numbered = pandas.DataFrame(curved)
    assert not hasattr(start().fit(numbered), "feature_names_in_")
    mixed = numbered.rename(columns={0: "a"})
    said = what_is_said(lambda: start().fit(mixed))
    assert said == what_is_said(lambda: PCA(2).fit(mixed))
    assert said[0][0] is TypeError


def test_names_of_a_fit_before_are_forgotten(curved):
    estimator = start().fit(frame("pandas", curved)).fit(curved)
    assert not hasattr(estimator, "feature_names_in_")


@pytest.mark.parametrize("dtype", ["Float64", "Float32", "Int64", "boolean", "double[pyarrow]", "int64[pyarrow]"])
def test_nullable_dtypes(dtype):
    """Without missing values they are ordinary numbers."""
    if "pyarrow" in dtype:
        pytest.importorskip("pyarrow")
    X = np.round(10 * curved_rows())
    X = X > 0 if dtype == "boolean" else X
    table = frame("pandas", X).astype(dtype)
    codes = start().fit(table).transform(table)
    assert codes.dtype == PCA(2).fit(table).transform(table).dtype
    expected = PCA(2).fit_transform(X.astype(np.float64))
    np.testing.assert_allclose(codes, expected, rtol=0, atol=1e-4 if dtype == "Float32" else 1e-9)


@pytest.mark.parametrize("dtype", ["Float64", "Int64", "float64"])
def test_missing_values_are_refused(dtype):
    table = frame("pandas", np.round(10 * curved_rows())).astype(dtype)
    table.loc[3, "b"] = None if dtype != "float64" else np.nan
    with pytest.raises(ValueError, match="Input X contains NaN"):
        start().fit(table)


@pytest.mark.parametrize("library", LIBRARIES)
def test_words_are_refused(library, curved):
    pytest.importorskip(library)
    table = frame(library, curved.astype(str)) if library == "polars" else frame(library, curved).assign(a="blue")
    table = table if library == "pandas" else table.with_columns(a=table["a"].str.replace(".*", "blue"))
    with pytest.raises(ValueError, match="could not convert string to float"):
        start().fit(table)


def test_feature_names_out_check_the_names_in(curved):
    estimator, pca = start().fit(frame("pandas", curved)), PCA(2).fit(frame("pandas", curved))
    assert list(estimator.get_feature_names_out()) == CODES
    assert list(pca.get_feature_names_out()) == ["pca0", "pca1"]


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("sparse", [True, False])
def test_mixed_types_in_a_pipeline(library, sparse, curved):
    """Numbers and words through a ColumnTransformer, whose result may be sparse; codes leave as a frame."""
    module = pytest.importorskip(library)
    colours = np.array(["red", "green", "blue"])[np.arange(len(curved)) % 3]
    table = module.DataFrame({**dict(zip(COLUMNS, curved.T, strict=True)), "colour": colours})
    columns = ColumnTransformer(
        [("numbers", StandardScaler(), COLUMNS), ("words", OneHotEncoder(sparse_output=sparse), ["colour"])],
        sparse_threshold=1.0 if sparse else 0.0,
    )
    pipeline = make_pipeline(columns, AutoEncoderTransformer(2, **TRAINED)).fit(table)
    codes = pipeline.transform(table)
    assert codes.shape == (60, 2)
    assert list(pipeline.get_feature_names_out()) == CODES
    rows = columns.fit_transform(table)
    assert hasattr(rows, "toarray") is sparse
    dense = rows.toarray() if sparse else rows
    np.testing.assert_allclose(codes, AutoEncoderTransformer(2, **TRAINED).fit_transform(dense), rtol=0, atol=1e-6)
    if not sparse:
        framed = pipeline.set_output(transform=library).fit_transform(table)
        assert isinstance(framed, module.DataFrame)
        assert list(framed.columns) == CODES
        assert list(pipeline[-1].feature_names_in_[-3:]) == [f"words__colour_{c}" for c in ("blue", "green", "red")]
