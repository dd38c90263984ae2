"""Files of one document and some arrays: a zip that is sealed by a digest, written at once or not at all."""

import hashlib
import io
import json
import math
import os
import re
import secrets
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

DOCUMENT = "skae.json"
SUFFIX = ".npy"
DTYPES = (
    "float64",
    "float32",
    "float16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint64",
    "uint32",
    "uint16",
    "uint8",
    "bool",
)
# The comment of the zip, which is the end of the file: this, and the digest of everything before it in hexadecimal.
SEAL = b"skae sha256 "
DIGEST_LENGTH = 64
# What is refused for its size alone, in bytes.
MOST_BYTES = 2**34
MOST_DOCUMENT_BYTES = 2**26
# The start of a .npy file of version 1.0, and its header; the header names dtype and shape and nothing else.
NPY_START = struct.Struct("<8sH")
NPY_MAGIC = b"\x93NUMPY\x01\x00"
NPY_HEADER = re.compile(
    rb"\{'descr': '([<|][fiub]\d)', 'fortran_order': False, 'shape': \(((?:\d{1,18}, )*(?:\d{1,18},?)?)\), \} *\n"
)
# The same for the same content: no clock, no platform.
DATE, UNIX, MODE = (1980, 1, 1, 0, 0, 0), 3, 0o100644 << 16
# What the standard library raises for a broken zip or document.
BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ValueError,
    RuntimeError,
    LookupError,
    EOFError,
    OverflowError,
    MemoryError,
)
_CODES = {np.dtype(name).str[1:].encode() for name in DTYPES}


def write_archive(path: str | os.PathLike, document: dict, arrays: Mapping[str, NDArray]) -> None:
    """Write a document and arrays to a file, which is then complete or as it was before.

    Raises
    ------
    ValueError
        If the document or all together are larger than `read_archive` would take.
    OSError
        If the folder cannot be written to.
    """
    text = json.dumps(document, allow_nan=False, separators=(",", ":")).encode()
    if len(text) > MOST_DOCUMENT_BYTES:
        raise ValueError(f"All but the arrays takes {len(text)} bytes, but at most {MOST_DOCUMENT_BYTES} can be saved.")
    n_bytes = len(text) + sum(array.nbytes for array in arrays.values())
    if n_bytes > MOST_BYTES:
        raise ValueError(f"The estimator takes {n_bytes} bytes, but at most {MOST_BYTES} can be saved.")
    with replacing(path) as file:
        with zipfile.ZipFile(file, "w") as archive:
            archive.comment = SEAL + b"0" * DIGEST_LENGTH
            archive.writestr(_member(DOCUMENT, zipfile.ZIP_DEFLATED), text)
            for name, array in arrays.items():
                archive.writestr(_member(name + SUFFIX, zipfile.ZIP_STORED), _npy(array))
        n_sealed = file.seek(-DIGEST_LENGTH, os.SEEK_END)
        file.seek(0)
        digest = _digest(file, n_sealed)
        file.seek(n_sealed)
        file.write(digest)


def read_archive(path: str | os.PathLike) -> tuple[dict, dict[str, NDArray]]:
    """Read the document and the arrays of a file, in memory alone; nothing in the file is run.

    Raises
    ------
    ValueError
        If the file is not one that `write_archive` has written and nobody has changed.
    OSError
        If it cannot be opened.
    """
    with open(path, "rb") as file:
        n_bytes = os.fstat(file.fileno()).st_size
        if n_bytes > MOST_BYTES:
            raise ValueError(f"it has {n_bytes} bytes, but at most {MOST_BYTES} are allowed.")
        n_sealed = _sealed_size(file, n_bytes)
        file.seek(0)
        content = io.BytesIO(file.read(n_bytes))
    _check_seal(content, n_sealed)
    with _blamed("zip"):
        archive = zipfile.ZipFile(content)
    names = _checked_members(archive, n_bytes)
    with _blamed("zip"):
        members = {name: archive.read(name) for name in names}
    document = _document(members.pop(DOCUMENT))
    return document, {name.removesuffix(SUFFIX): _array(name, member) for name, member in members.items()}


@contextmanager
def _blamed(what: str) -> Iterator[None]:
    """Say that it is the file's fault, whatever the standard library makes of its bytes."""
    try:
        yield
    except BROKEN as error:
        raise ValueError(f"its {what} is broken: {type(error).__name__}: {error}.") from error


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of the target when the block is left in peace, and vanishes otherwise."""
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
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Have the new name of a file outlive a power cut, where the system can do that for a folder."""
    with suppress(OSError, AttributeError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _digest(file: BinaryIO, n_bytes: int) -> bytes:
    """SHA-256 of the next bytes of a file, in hexadecimal."""
    digest = hashlib.sha256()
    while n_bytes > 0 and (part := file.read(min(n_bytes, 2**20))):
        digest.update(part)
        n_bytes -= len(part)
    return digest.hexdigest().encode()


def _sealed_size(file: BinaryIO, n_bytes: int) -> int:
    """Number of bytes before the digest, once it is clear from both ends that there is one."""
    n_sealed = n_bytes - DIGEST_LENGTH
    start = file.read(4)
    file.seek(max(n_sealed - len(SEAL), 0))
    if start != b"PK\x03\x04" or n_sealed < len(SEAL) or file.read(len(SEAL)) != SEAL:
        raise ValueError(
            f"it has {n_bytes} bytes, begins with {start!r} and does not end with the digest of skae.save. It is cut "
            "off, or something else has written it."
        )
    return n_sealed


def _check_seal(content: BinaryIO, n_sealed: int) -> None:
    """Compare the digest at the end with that of everything before it."""
    found, expected = _digest(content, n_sealed), content.read(DIGEST_LENGTH)
    if found != expected:
        raise ValueError(
            f"its bytes have the SHA-256 digest {found.decode()}, but it was saved with {expected!r}. It has been "
            "damaged or changed since: save the estimator again."
        )


def _member(name: str, compression: int) -> zipfile.ZipInfo:
    """The entry of a member."""
    member = zipfile.ZipInfo(name, DATE)
    member.compress_type, member.create_system, member.external_attr = compression, UNIX, MODE
    return member


def _checked_members(archive: zipfile.ZipFile, n_bytes: int) -> list[str]:
    """Names of the members, once what they say of themselves is within limits."""
    members = archive.infolist()
    names = [member.filename for member in members]
    (most_frequent, count), *_ = Counter(names).most_common(1) or [("", 0)]
    if count > 1:
        raise ValueError(f"it has {most_frequent!r} more than once.")
    if sum(member.compress_size for member in members) > n_bytes:
        raise ValueError(f"its members overlap: they say that they take more than the {n_bytes} bytes of the file.")
    for member in members:
        if member.filename == DOCUMENT:
            allowed, most = zipfile.ZIP_DEFLATED, MOST_DOCUMENT_BYTES
        elif member.filename.endswith(SUFFIX):
            allowed, most = zipfile.ZIP_STORED, member.compress_size
        else:
            raise ValueError(f"it has a member {member.filename!r}, but only {DOCUMENT!r} and arrays are allowed.")
        if member.compress_type != allowed or member.file_size > most or member.flag_bits & 1:
            raise ValueError(
                f"its member {member.filename!r} says that it has {member.file_size} bytes in "
                f"{member.compress_size}, by method {member.compress_type}: at most {most} are allowed, by "
                f"{allowed}, without encryption."
            )
    if DOCUMENT not in names:
        raise ValueError(f"it has no member {DOCUMENT!r}.")
    return names


def _npy(array: NDArray) -> bytes:
    """The content of a .npy file."""
    buffer = io.BytesIO()
    little = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
    np.lib.format.write_array(buffer, little, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def _array(name: str, content: bytes) -> NDArray:
    """The array of a .npy file, whose header is compared with the one that can be written before anything reads it."""
    if len(content) < NPY_START.size:
        raise ValueError(f"{name!r} is no .npy file: it has {len(content)} bytes.")
    magic, length = NPY_START.unpack_from(content)
    header = NPY_HEADER.fullmatch(content, NPY_START.size, NPY_START.size + length)
    dtype = np.dtype(header[1].decode()) if header and header[1][1:] in _CODES else None
    if magic != NPY_MAGIC or header is None or dtype is None:
        raise ValueError(
            f"{name!r} is no .npy file of version 1.0 with one of {', '.join(DTYPES)}: it begins with {content[:80]!r}."
        )
    shape = tuple(int(side) for side in header[2].replace(b",", b" ").split())
    expected, found = math.prod(shape) * dtype.itemsize, len(content) - header.end()
    if expected != found:
        raise ValueError(f"{name!r} says that it has shape {shape} of {dtype}, {expected} bytes, but {found} follow.")
    with _blamed(repr(name)):
        array = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _document(content: bytes) -> dict:
    """Read strict JSON: no number that is none, no name twice."""
    with _blamed("document"):
        text = content.decode()
        hooks = {"parse_constant": _refuse, "parse_float": _finite, "object_pairs_hook": _without_doubles}
        document = json.loads(text, **hooks)  # type: ignore[arg-type]
    if not isinstance(document, dict):
        raise ValueError(f"{DOCUMENT} holds {type(document).__name__}, but must hold an object.")
    return document


def _refuse(text: str) -> Any:
    raise ValueError(f"{DOCUMENT} has {text}, which is no number.")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict:
    names = dict(pairs)
    if len(names) < len(pairs):
        raise ValueError(f"{DOCUMENT} has an object with a name more than once, among {sorted(names)[:20]}.")
    return names
