"""Stories read from files, from TensorFlow Datasets and from the Hugging Face hub."""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from mcloop.data.foreign import refuse, wide
from mcloop.data.records import field, holds_records, left_out, read_records
from mcloop.data.tokens import END
from mcloop.errors import InputError
from mcloop.storage.files import one_line, show
from mcloop.storage.places import user_home

_END = re.compile(re.escape(END.encode()))
_BLANK = re.compile(rb"\n[ \t\r]*\n")
_LINE = re.compile(rb"\n")
_HELD_OUT = ("validation", "valid", "test")  # what the part that is not trained on is called, the first that is there
_AT_ONCE = 1000  # records
NAMES = {  # published texts: pairs of files, and how the name of a sample begins
    "tinystories": (
        ("TinyStoriesV2-GPT4-train.txt", "TinyStoriesV2-GPT4-valid.txt"),
        ("TinyStories-train.txt", "TinyStories-valid.txt"),
    ),
    "fairytaleqa": (),
}


class Found(NamedTuple):
    """Stories as they were found: the training set, or all; the held-out part where they came apart; where they were.

    `source` and `remarks` are words for reports: files and folders by their names, and nothing of what is in them.
    """

    stories: list[str]
    held_out: list[str] | None
    source: str
    remarks: tuple[str, ...] = ()


def find(asked: str, folder: str | os.PathLike[str] | None) -> tuple[str, Found]:
    """A text's name and its stories, by path, by a name in `NAMES` or by a name with "tfds:" or "hf:" before it.

    Raises:
        InputError: it is not there, with where it was looked for, or it cannot be read.
    """
    for prefix, read in (("tfds:", _from_tfds), ("hf:", _from_hub)):
        if asked.startswith(prefix):
            return asked.removeprefix(prefix), read(asked.removeprefix(prefix))
    if asked in NAMES:
        return asked, _from_named(asked, folder)
    path = Path(asked)
    if path.is_dir():
        return path.resolve().name, _from_folder(path)
    if path.is_file():
        return path.stem, _from_file(path)
    known = ", ".join([*NAMES, "tfds:NAME", "hf:NAME"])
    raise InputError(f"There is no text {asked!r}: give a file, a folder of .txt files, or one of {known}.")


def published(asked: str) -> bool:
    """Whether a text is asked for by a name that others know, and is not the user's own."""
    return asked in NAMES or asked.startswith(("tfds:", "hf:"))


def _from_named(name: str, folder: str | os.PathLike[str] | None) -> Found:
    """A published text: the first pair of files that is whole, else the one file that is called NAME*.txt."""
    named = os.environ.get("MCLOOP_DATA") if folder is None else os.fspath(folder)
    if not named:
        raise InputError(f"To find {name}, set MCLOOP_DATA or --data-dir to the folder that holds {name}*.txt.")
    home = Path(named)
    if not home.is_dir():
        raise InputError(f"{'MCLOOP_DATA' if folder is None else 'folder'} must name a folder, and {named!r} is none.")
    for train, held_out in NAMES[name]:
        if (home / train).is_file() and (home / held_out).is_file():
            return _from_file(home / train)._replace(held_out=_from_file(home / held_out).stories)
    files = sorted(path for path in home.iterdir() if re.fullmatch(rf"(?i){name}.*\.txt", path.name))
    if not files:
        said = f"There is no {name}*.txt in the folder {named!r}"
        raise InputError(f"{said}: put one there, or set MCLOOP_DATA or --data-dir to the folder that holds it.")
    if len(files) > 1:
        some = one_line(", ".join(path.name for path in files), 80)
        raise InputError(f"The folder {named!r} has several texts called {name}*.txt ({some}): give the path of one.")
    return _from_file(files[0])


def _from_file(path: Path) -> Found:
    """The stories of one file of UTF-8 text.

    They are separated by `<|endoftext|>` if it is anywhere in the file, else by blank lines if that gives more than one,
    else they are its lines. Of JSON, lines of JSON and CSV a story is the text of a record.

    Raises:
        InputError: the file cannot be read, is empty, or is no UTF-8 text.
    """
    shown = _name(path)
    try:
        with open(path, "rb") as file:
            # mapped, so that a file of gigabytes is in memory once, as stories; not closed: an error may still look at it
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if os.fstat(file.fileno()).st_size else b""
    except OSError as error:
        raise InputError(f"The text {shown} cannot be read ({one_line(error.strerror or error)}).") from error
    refuse(data[:4096], f"The file {shown}", "a file of UTF-8 text is needed")
    if wide(data[:64]):
        raise InputError(f"The file {shown} is UTF-16 or UTF-32 text; save it as UTF-8.")
    suffix = path.suffix.lower()
    if len(data) and holds_records(suffix, data):
        texts, without, where = read_records(suffix, data[:], shown)
        stories = [story for text in texts for part in text.split(END) if (story := _clean(part))]
        return Found(stories, None, f"{shown}, {where}", left_out(without))
    if (place := data.find(b"\0")) >= 0:
        raise InputError(f"The file {shown} is no text (byte 0x00 at place {place}); UTF-8 text is needed.")
    if _END.search(data):
        stories, words = list(_split(data, _END, shown)), END
    else:
        stories, words = list(_split(data, _BLANK, shown)), "blank lines"
        if len(stories) < 2:
            stories, words = list(_split(data, _LINE, shown)), "line ends"
    if not stories:
        raise InputError(f"The file {shown} is empty: it has no story.")
    return Found(stories, None, f"{shown}, separated by {words}")


def _from_folder(folder: Path) -> Found:
    """The stories of all .txt files of a folder, in the order of their names; each is read by itself, hidden ones are not.

    Raises:
        InputError: there is none, or one cannot be read.
    """
    shown = (path for path in folder.iterdir() if not path.name.startswith("."))  # a Mac keeps a ._NAME beside every NAME
    paths = sorted(path for path in shown if path.suffix.lower() == ".txt" and path.is_file())
    if not paths:
        raise InputError(f"The folder {show(folder)} has no .txt file.")
    found = [_from_file(path) for path in paths]
    ways = sorted({each.source.rpartition("separated by ")[2] for each in found})
    stories = [story for each in found for story in each.stories]
    remarks = tuple(remark for each in found for remark in each.remarks)
    return Found(stories, None, f"{len(paths)} files in {_name(folder)}, separated by {' or '.join(ways)}", remarks)


def _from_tfds(name: str) -> Found:
    """The stories of a text that TensorFlow Datasets has prepared on this machine, a record each; nothing is downloaded.

    Only the folder is looked at before the (slow) import, and the builder is made from that folder: one made from the
    name might try the network.

    Raises:
        InputError: it is not prepared, cannot be read, or has no column of text.
    """
    home = Path(os.environ.get("TFDS_DATA_DIR") or user_home() / "tensorflow_datasets")
    versions = [path.parent for path in (home / name).glob("*/dataset_info.json")]
    missing = InputError(
        f"TensorFlow Datasets has not prepared {name!r} in {show(home)}: prepare it there, or set TFDS_DATA_DIR (NAME/CONFIG "
        "where it comes in several; nothing is downloaded)."
    )
    if not name or not versions:
        raise missing
    folder = max(versions, key=lambda path: [int(part) if part.isdecimal() else -1 for part in path.name.split(".")])
    try:
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(str(folder))
        if not builder.is_prepared():
            raise missing
        splits = {split: builder.as_data_source(split) for split in builder.info.splits}  # pyright: ignore[reportCallIssue]
        return _of_splits(splits, f"{name!r}, prepared by TensorFlow Datasets", lambda x, i, j: x.__getitems__(range(i, j)))
    except InputError:
        raise
    except Exception as error:  # a reader of foreign files, with many ways to fail
        said = f"TensorFlow Datasets cannot read what it has prepared in {show(folder)}"
        raise InputError(f"{said} ({one_line(error, 80)}).") from error


def _from_hub(name: str) -> Found:
    """The stories of a text by its name at the Hugging Face hub, a record each; `datasets` reads it, from its cache or the hub.

    Raises:
        InputError: the extra `hf` is not installed, the text cannot be read or has no column of text.
    """
    try:
        from datasets import load_dataset  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(f"hf:{name} needs the library datasets: pip install 'mcloop[hf]'.") from error
    try:
        splits = load_dataset(name)
        return _of_splits(dict(splits), f"{name!r}, read by the library datasets", lambda x, i, j: x.select(range(i, j)))
    except InputError:
        raise
    except Exception as error:  # the network, the hub and foreign files
        raise InputError(f"hf:{name} cannot be read ({one_line(error, 120)}).") from error


def _of_splits(splits: dict[str, Any], source: str, read: Callable[[Any, int, int], Iterable[Any]]) -> Found:
    """Stories of records in splits; `read` gives the records from i to before j of one."""
    if "train" not in splits:
        raise InputError(f"{source} has no split 'train', only {one_line(', '.join(splits), 80)}.")
    train = splits["train"]
    column = field(read(train, 0, min(_AT_ONCE, len(train))) if len(train) else (), source)
    without = 0

    def stories(split) -> list[str]:
        nonlocal without
        found = []
        for i in range(0, len(split), _AT_ONCE):
            for record in read(split, i, min(i + _AT_ONCE, len(split))):
                text = record[column]
                text = text.decode() if isinstance(text, bytes) else text
                if not isinstance(text, str):
                    without += 1
                    continue
                found += [story for part in text.split(END) if (story := _clean(part))]
        return found

    held_out = next((split for split in _HELD_OUT if split in splits), None)
    parts = stories(train), stories(splits[held_out]) if held_out else None
    return Found(*parts, source, left_out(without))


def _name(path: Path) -> str:
    """How a file or a folder is called in reports: without the folders that it is in."""
    return repr(path.name or path.resolve().name)


def _split(data, pattern: re.Pattern[bytes], shown: str) -> Iterator[str]:
    """What stands between the separators, without spaces around it; an ASCII byte is never a part of another character."""
    begin = 3 if data[:3] == b"\xef\xbb\xbf" else 0  # a byte order mark
    for stop, after in chain((match.span() for match in pattern.finditer(data)), [(len(data), 0)]):
        try:
            story = _clean(data[begin:stop].decode())
        except UnicodeDecodeError as error:
            place = begin + error.start
            said = f"byte 0x{data[place]:02x} at place {place}"
            raise InputError(f"The file {shown} is no UTF-8 text ({said}); convert it to UTF-8.") from error
        begin = after
        if story:
            yield story


def _clean(text: str) -> str:
    return text.replace("\r\n", "\n").strip()
