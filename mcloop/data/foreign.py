"""Files that are something else than was asked for, known by how they begin."""

from __future__ import annotations

from mcloop.errors import InputError

_BEGINNINGS = {
    b"\x1f\x8b": "compressed by gzip: unpack it first",
    b"BZh": "compressed by bzip2: unpack it first",
    b"\xfd7zXZ\x00": "compressed by xz: unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: unpack it first",
    b"7z\xbc\xaf": "an archive of 7z: unpack it first",
    b"\xd0\xcf\x11\xe0": "a file of an older Excel: save it as CSV",
    b"%PDF": "a PDF",
    b"\x89HDF": "an HDF5 file",
    b"ARROW1": "an Arrow file: save it as Parquet",
    b"FEA1": "a Feather file: save it as Parquet",
    b"SQLite format 3": "a database of SQLite",
    b"PAR1": "a Parquet file",
    b"\x93NUMPY": "an array of NumPy",
    b"\x80\x04": "a pickle, which is never opened",
    b"\x89PNG": "a picture",
    b"\x00\x05\x16\x07": "what a Mac keeps beside a file: give the file without ._ before its name",
}
_SPREADSHEET, _ARRAYS = b"xl/", b".npy"


def kind(data: bytes) -> str:
    """What a file is by its first bytes, with a cure where there is one; "" for what may be text."""
    for begin, words in _BEGINNINGS.items():
        if data[: len(begin)] == begin:
            return words
    if data[:4] == b"PK\x03\x04":
        inside = bytes(data[:4096])
        if _SPREADSHEET in inside or b"[Content_Types].xml" in inside:
            return "a file of Excel: save it as CSV"
        if _ARRAYS in inside:
            return "an archive of NumPy arrays: save the one that is meant by numpy.save"
        return "a zip: unpack it first"
    return ""


def wide(data: bytes) -> bool:
    """Whether a file is UTF-16 or UTF-32, by its byte order mark or by a zero in every other of its first bytes."""
    some = bytes(data[:64])
    halves = some[0::2], some[1::2]
    return some[:2] in (b"\xff\xfe", b"\xfe\xff") or (len(some) > 3 and any(not any(half) for half in halves) and any(some))


def refuse(data: bytes, what: str, allowed: str) -> None:
    """Refuses a file that is something else.

    Args:
        data: its first bytes.
        what: how it is called, such as "The table 'a.csv'".
        allowed: what it may be, in words.

    Raises:
        InputError: with what it is.
    """
    if words := kind(data):
        raise InputError(f"{what} is {words}; {allowed}.")
