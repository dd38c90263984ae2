"""Save estimators to files without pickle, and load them."""

import hashlib
import io
import json
import os
import secrets
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from sklearn import model_selection
from sklearn.base import BaseEstimator

from skae._autoencoder import AutoEncoderTransformer
from skae._network.state import IN_FILE
from skae._objectives.columns import COLUMN_LOSSES, BoundLosses, ColumnLosses
from skae._objectives.regularizers import REGULARIZERS
from skae._outliers import AutoEncoderOutlierDetector

# Classes of objects in files, besides those that skops trusts: also the splitters of scikit-learn.
CLASSES = (
    AutoEncoderTransformer,
    AutoEncoderOutlierDetector,
    *COLUMN_LOSSES.values(),
    ColumnLosses,
    BoundLosses,
    *REGULARIZERS.values(),
    torch.device,
    *(cls for cls in vars(torch.optim).values() if isinstance(cls, type)),
    *(cls for name, cls in vars(model_selection).items() if name.endswith(("Fold", "Split", "Out"))),
)
TRUSTED = [
    *(f"{cls.__module__}.{cls.__name__}" for cls in CLASSES),
    # The scorer of a grid search, which calls the method `score` of the estimator, and what it requests.
    "sklearn.metrics._scorer._PassthroughScorer",
    "sklearn.utils._metadata_requests.MetadataRequest",
    "sklearn.utils._metadata_requests.MethodMetadataRequest",
]
SCHEMA = "schema.json"
# Beginning of the comment at the end of the zip file, and length of the digest of all bytes before it, which follows.
SEAL = b"skae sha256 "
DIGEST_LENGTH = 64
# Maximum size of a file.
MOST_BYTES = 2**34
# Fixed dates and modes of members, so that the same estimator gives the same bytes at any time and on any platform.
DATE, UNIX, MODE = (1980, 1, 1, 0, 0, 0), 3, 0o100644 << 16


def save(estimator: BaseEstimator, path: str | os.PathLike) -> None:
    """Save an estimator to a file that holds no code.

    The file is written with skops. It replaces an existing file, and is written completely or not at all.

    Parameters
    ----------
    estimator : estimator
        An estimator of skae or scikit-learn, fitted or not: also a pipeline or a grid search with autoencoders inside.
    path : str or path-like
        File to write, usually with the extension ``.skae``.

    Raises
    ------
    TypeError
        If ``estimator`` is no estimator, or holds a type that is neither trusted by skops nor skae's own, such as a
        ``module``, a callable ``loss`` or ``callbacks``. The message names the parameter.
    ValueError
        If `load` would refuse the file, for example because the network has NaN or the file exceeds 16 GiB.
    OSError
        If the file cannot be written. An existing file is then unchanged.

    See Also
    --------
    load : Load an estimator from a file.

    Notes
    -----
    An estimator trained with `partial_fit` is saved with the samples that it keeps, up to 4,000, so that training can
    be continued with identical results. After `fit` the size of a file does not depend on the number of samples.

    Examples
    --------
    >>> import os, tempfile
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import MinMaxScaler
    >>> from skae import AutoEncoderTransformer, load, save
    >>> X = load_digits().data[:200]
    >>> pipeline = make_pipeline(MinMaxScaler(), AutoEncoderTransformer(4, max_epochs=3, random_state=0)).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "digits.skae")
    ...     save(pipeline, path)
    ...     copy = load(path)
    >>> bool((copy.transform(X) == pipeline.transform(X)).all())
    True
    """
    if not isinstance(estimator, BaseEstimator):
        raise TypeError(f"estimator must be an estimator of skae or scikit-learn, got {_short(estimator)}.")
    token = IN_FILE.set(True)
    try:
        content = _dumped(estimator)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{_culprit(estimator)} cannot be saved: {error}") from error.__cause__
    finally:
        IN_FILE.reset(token)
    if len(content) > MOST_BYTES:
        raise ValueError(f"The estimator takes {len(content)} bytes, but at most {MOST_BYTES} can be saved.")
    with replacing(path) as file:
        file.write(content)


def load(path: str | os.PathLike) -> Any:
    """Load an estimator from a file written by `save`.

    No code in the file is run and nothing is written to disk, even if the file was not written by `save`.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    estimator
        Estimator with the parameters and attributes of the saved one. Autoencoders are on the same device, or on the
        CPU if that device is not available.

    Raises
    ------
    ValueError
        If the file is damaged, was not written by `save`, was written in another format of skae's, or holds a type
        that is not trusted or values that no estimator has.
    OSError
        If the file cannot be opened.

    See Also
    --------
    save : Save an estimator to a file.

    Notes
    -----
    The digest in the file detects damage, but not intentional changes, because the digest can be changed as well. The
    loaded estimator may then have other parameters and weights, but it contains no code.

    Examples
    --------
    >>> import os, tempfile
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoderOutlierDetector, AutoEncoderTransformer, load, save
    >>> X = load_digits().data[:200]
    >>> autoencoder = AutoEncoderTransformer(8, max_epochs=3)
    >>> detector = AutoEncoderOutlierDetector(autoencoder, contamination=0.1, random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "digits.skae")
    ...     save(detector, path)
    ...     copy = load(path)
    >>> bool((copy.predict(X) == detector.predict(X)).all())
    True
    """
    try:
        estimator = _loaded(_unsealed(path))
        if not isinstance(estimator, BaseEstimator):
            raise ValueError(f"it holds {_short(estimator)}, which is no estimator.")
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)!r} cannot be loaded: {error}") from error
    return estimator


def _dumped(value: Any) -> bytes:
    """Return the content of the file for a value.

    Raises
    ------
    TypeError
        If the value holds a type that is not trusted.
    ValueError
        If `load` would refuse the file.
    """
    import skops.io

    try:
        content = skops.io.dumps(value)
        unknown = _untrusted(content)
    except MemoryError:
        raise
    except Exception as cause:  # objects can raise any exception
        unknown = f"what skops cannot take apart ({type(cause).__name__}: {cause})"
    if unknown:
        raise TypeError(
            f"it holds {unknown}, but a file of skae.save has numbers, strings, arrays, estimators of skae and those "
            "of scikit-learn that skops trusts, splitters, torch's optimizers and no other code. Save the estimator "
            "with pickle or joblib, or, where it is fitted and no longer needs this, replace it first, as with "
            "set_params(callbacks=None)."
        )
    content = _sealed(content)
    try:
        _loaded(content)
    except ValueError as cause:
        raise ValueError(f"skae.load would refuse it, since {cause}") from cause
    return content


def _culprit(estimator: BaseEstimator) -> str:
    """Name the parameter or attribute that cannot be saved, of the innermost estimator."""
    by_depth = sorted(estimator.get_params(deep=True).items(), key=lambda item: -item[0].count("__"))
    for name, value in {**dict(by_depth), **vars(estimator)}.items():
        try:
            if name != "net_":
                _dumped(value)
        except (TypeError, ValueError):
            return f"{name}={_short(value)}"
    return _short(estimator)


def _untrusted(content: bytes) -> str:
    """Return the names of the types in a file that are not trusted."""
    import skops.io

    return ", ".join(sorted(set(skops.io.get_untrusted_types(data=content)).difference(TRUSTED)))


def _loaded(content: bytes) -> Any:
    """Load the value in a file, and check before that all types are trusted.

    Raises
    ------
    ValueError
        If it names other types, or skops cannot load it.
    """
    import skops.io

    try:
        _check_members(content)
        unknown = _untrusted(content)
        if unknown:
            raise ValueError(
                f"it holds types that are not trusted: {unknown}. Only those of skae, torch's optimizers, splitters "
                "and what skops trusts are."
            )
        return skops.io.loads(content, trusted=TRUSTED)
    except ValueError:
        raise
    except Exception as error:  # skops does not check the schema
        raise ValueError(f"its content is broken: {type(error).__name__}: {error}.") from error


def _check_members(content: bytes) -> None:
    """Raise a ValueError for members that are compressed or overlap, which could take more memory than the file."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
        name, count = Counter(member.filename for member in members).most_common(1)[0]
        if count > 1:
            raise ValueError(f"it has the member {name!r} more than once.")
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED or archive.open(member).read(2) == b"PK":
                raise ValueError(f"its member {member.filename!r} is compressed or an archive, which is not allowed.")
        if sum(member.file_size for member in members) > len(content):
            raise ValueError(f"its members overlap: they take more than the {len(content)} bytes of the file.")


def _sealed(content: bytes) -> bytes:
    """Add the digest, and remove addresses, names and dates, which differ between calls."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(members.pop(SCHEMA))
    nodes = list(_nodes(schema))
    # Whether equal immutable objects are one object differs between calls.
    shared = Counter(node.get("__id__") for node in nodes if node["__loader__"] not in ("JsonNode", "TypeNode"))
    numbers: dict[int, int] = {}
    names: dict[str, str] = {}
    for node in nodes:
        address = node.pop("__id__", None)
        if shared[address] > 1:
            node["__id__"] = numbers.setdefault(address, len(numbers) + 1)
        if "file" in node:
            node["file"] = names.setdefault(node["file"], f"{len(names) + 1}{Path(node['file']).suffix}")
    members = {names[name]: members[name] for name in names}
    members[SCHEMA] = json.dumps(schema, separators=(",", ":")).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.comment = SEAL + b"0" * DIGEST_LENGTH
        for name, member in members.items():
            entry = zipfile.ZipInfo(name, DATE)
            entry.create_system, entry.external_attr = UNIX, MODE
            archive.writestr(entry, member)
    body = buffer.getvalue()[:-DIGEST_LENGTH]
    return body + hashlib.sha256(body).hexdigest().encode()


def _nodes(tree: Any) -> Iterator[dict]:
    """Yield the descriptions of objects in a schema of skops, in order."""
    if isinstance(tree, dict) and isinstance(tree.get("__loader__"), str):
        yield tree
    for child in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _nodes(child)


def _unsealed(path: str | os.PathLike) -> bytes:
    """Return the content of a file, and check its size and its digest.

    Raises
    ------
    ValueError
        If the file is too large, or its digest is missing or wrong.
    """
    n_bytes = os.path.getsize(path)
    if n_bytes > MOST_BYTES:
        raise ValueError(f"it has {n_bytes} bytes, but at most {MOST_BYTES} are allowed.")
    with open(path, "rb") as file:
        content = file.read(n_bytes)
    body, expected = memoryview(content)[:-DIGEST_LENGTH], content[-DIGEST_LENGTH:]
    if bytes(body[:4]) != b"PK\x03\x04" or bytes(body[-len(SEAL) :]) != SEAL:
        raise ValueError(
            f"it has {n_bytes} bytes, begins with {content[:4]!r} and does not end with the digest of skae.save. It is "
            "cut off, or something else has written it."
        )
    found = hashlib.sha256(body).hexdigest().encode()
    if found != expected:
        raise ValueError(
            f"its bytes have the SHA-256 digest {found.decode()}, but it was saved with {expected!r}. It has been "
            "damaged or changed since: save the estimator again."
        )
    return content


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces the target at the end of the block, or is deleted if the block fails."""
    target = Path(os.path.realpath(os.fsdecode(path)))
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _short(value: Any) -> str:
    """Return the representation of a value, shortened to 100 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 100 else f"{text[:97]}..."
