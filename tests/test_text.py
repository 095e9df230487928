"""Stories from files to rows of tokens: how they are told apart, what is held out, that rows say what the stories say."""

import gzip
import json
import os
import sys
import tracemalloc
import types
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcloop.data import text as room
from mcloop.data.packing import Tally, packed
from mcloop.data.text import Text, corpus, counted, load_text, story_lengths, unpack
from mcloop.data.tokens import END, bpe_tokenizer, byte_tokenizer
from mcloop.errors import InputError

BYTES = byte_tokenizer()
MARK = f"\n{END}\n"


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A machine without any text; returns a folder to put some into."""
    monkeypatch.delenv("MCLOOP_DATA", raising=False)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setenv("MCLOOP_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "texts"
    folder.mkdir()
    return folder


def tales(count, words=8):
    """Different stories of a few lines."""
    return [f"Tale {i}.\nThere was {'a very ' * (i % words)}old fox." for i in range(count)]


def kept(nowhere):
    """The files of the cache."""
    return list((nowhere.parent / "cache").iterdir())


def put(path, stories, mark=MARK):
    path.write_text(mark.join(stories), "utf-8", newline="")
    return path


def everything(text):
    return sorted([*text.train, *text.held_out])


def made(stories=None, held_out=("A hare.", "A hound."), name="tales"):
    """A Text by hand."""
    return Text(name, tales(20) if stories is None else stories, list(held_out), "made up", ("Made up.",))


# How stories are told apart


@pytest.mark.parametrize(
    ("content", "stories"),
    [
        (f"a\n\nb{MARK}c\nd{MARK}", ["a\n\nb", "c\nd"]),  # the marker goes before blank lines
        (f"one{END}two words {END}{END}\n", ["one", "two words"]),  # wherever it stands: it never gets into a story
        ("a\nb\n\nc\n \t\n\n\nd\n", ["a\nb", "c", "d"]),
        ("a\nb\n c \n", ["a", "b", "c"]),
        ("\n\na\nb\n\n", ["a", "b"]),  # blank lines that part nothing
        ("\ufeffa\r\nb\r\n\r\nç\r\n", ["a\nb", "ç"]),
    ],
)
def test_separators(nowhere, content, stories):
    found = load_text(put(nowhere / "my tales.txt", [content]), held_out=0.01)
    assert everything(found) == sorted(stories)
    assert found.name == "my tales" and "my tales.txt" in found.source and found.remarks == ()


def test_a_folder_is_its_text_files_by_name_each_read_by_itself(nowhere):
    put(nowhere / "b.txt", ["b1", "b2"])
    put(nowhere / "a.TXT", ["a1", "a2", "a3"], "\n")
    put(nowhere / "c.md", ["c1"])
    (nowhere / "d.txt").mkdir()
    found = load_text(nowhere, held_out=0.01)
    assert everything(found) == ["a1", "a2", "a3", "b1", "b2"]
    assert [story for story in found.train if story in ("a1", "a2", "a3", "b1", "b2")] == sorted(found.train)
    assert found.name == "texts" and "2 files" in found.source and f"{END} or line ends" in found.source


# What is held out


def test_the_held_out_stories_depend_on_the_stories_alone(nowhere):
    """Not on their order, nor on copies; a tenth of them, as asked; a larger share holds the smaller."""
    stories = tales(500)
    found = load_text(put(nowhere / "a.txt", stories))
    assert len(found.held_out) == 50 and len(found.train) == 450 and everything(found) == sorted(stories)
    order = np.random.default_rng(0).permutation(500)
    mixed = load_text(put(nowhere / "b.txt", [stories[i] for i in order] + stories[:7]))
    assert set(mixed.held_out) == set(found.held_out) and everything(mixed) == sorted(stories)
    assert mixed.remarks == ("Copies of other stories are left out: 7.",)
    assert [s for s in stories if s in set(found.train)] == list(found.train)
    assert [stories[i] for i in order if stories[i] in set(found.held_out)] == list(mixed.held_out)
    larger = load_text(nowhere / "a.txt", held_out=0.3)
    assert len(larger.held_out) == 150 and set(larger.held_out) > set(found.held_out)
    # a fair share of the beginning and of the end: binomial(250, 0.1) has standard deviation 4.7
    assert 25 - 4 * 4.7 < sum(story in set(stories[:250]) for story in found.held_out) < 25 + 4 * 4.7
    assert len(load_text(put(nowhere / "c.txt", stories[:3]), held_out=0.9).train) == 1  # never all, never none


@pytest.mark.parametrize("begin", ["TinyStoriesV2-GPT4-", "TinyStories-"])
def test_a_published_held_out_part_is_taken_as_it_is(nowhere, begin, monkeypatch):
    put(nowhere / "tinystories_sample.txt", ["x", "y", "z"])
    assert everything(load_text("tinystories", folder=nowhere)) == ["x", "y", "z"]
    stories = tales(30)
    put(nowhere / f"{begin}train.txt", stories)
    if begin == "TinyStories-":
        put(nowhere / "TinyStoriesV2-GPT4-train.txt", ["half a pair"])
    put(nowhere / f"{begin}valid.txt", [*stories[:2], "New.", "New.", "Newer."])
    monkeypatch.setenv("MCLOOP_DATA", str(nowhere))
    found = load_text("tinystories")
    assert found.held_out == [*stories[:2], "New.", "Newer."] and found.train == stories[2:]
    assert found.remarks == ("Training stories that are also held out are left out: 2.",)
    assert found.name == "tinystories" and f"{begin}train.txt" in found.source


def test_no_held_out_story_is_trained_on(nowhere, data_folder):
    for name, count in (("tinystories", 1864), ("fairytaleqa", 278)):
        found = load_text(name, folder=data_folder)
        assert len(found.train) + len(found.held_out) == count and not set(found.train) & set(found.held_out)
        assert len(found.held_out) == round(0.1 * count)
        assert not any(END in story for story in everything(found))


# Other sources


def test_prepared_tfds_is_read_without_the_network(nowhere, refused):
    tfds = pytest.importorskip("tensorflow_datasets")

    class Tales(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict({"title": tfds.features.Text(), "story": tfds.features.Text()})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(tales(12)), "validation": self._generate_examples(["Ä.", "B."])}

        def _generate_examples(self, stories):
            for i, story in enumerate(stories):
                yield i, {"title": "T", "story": story}

    with refused("tales", "tfds", "TFDS_DATA_DIR"):
        load_text("tfds:tales")
    Tales(data_dir=os.environ["TFDS_DATA_DIR"], file_format="array_record").download_and_prepare()
    found = load_text("tfds:tales")
    assert sorted(found.train) == sorted(tales(12)) and sorted(found.held_out) == ["B.", "Ä."]
    assert found.name == "tales" and "TensorFlow Datasets" in found.source
    with refused("has not prepared ''"):
        load_text("tfds:")
    (nowhere.parent / "tfds" / "tales" / "1.0.0" / "dataset_info.json").write_text("{")
    with refused("cannot read", "tales"):
        load_text("tfds:tales")


class Split(list):
    """Records, as the library datasets hands them out."""

    def select(self, places):
        return [self[i] for i in places]


def hub(monkeypatch, splits):
    """Puts a library `datasets` in place that knows one set, "tales"."""

    def load_dataset(name):
        if name != "tales":
            raise ConnectionError(f"no {name}\non the hub")
        return {split: Split({"id": i, "text": story} for i, story in enumerate(stories)) for split, stories in splits.items()}

    library = types.ModuleType("datasets")
    library.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", library)


def test_the_hub(nowhere, monkeypatch, refused):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with refused("hf:tales", "pip install 'mcloop[hf]'"):
        load_text("hf:tales")
    hub(monkeypatch, {"train": [*tales(2500), f"Two.{END} More."], "test": ["A.", " "]})
    found = load_text("hf:tales")
    assert found.train == [*tales(2500), "Two.", "More."] and found.held_out == ["A."] and found.name == "tales"
    with refused("hf:other", "no other on the hub"):
        load_text("hf:other")
    hub(monkeypatch, {"train": tales(20)})
    assert len(load_text("hf:tales").held_out) == 2
    hub(monkeypatch, {"test": tales(20)})
    with refused("'train'", "test"):
        load_text("hf:tales")
    hub(monkeypatch, {"train": [1, 2]})
    with refused("'text'", "id, text"):
        load_text("hf:tales")


def test_records_are_read_by_their_text(nowhere, refused):
    """Lines of JSON under any name, JSON, CSV and tabs; a record without a text is left out, and said."""
    records = [{"id": i, "text": story, "topic": "x"} for i, story in enumerate(tales(12))]
    lines = "\n".join(map(json.dumps, [{"id": -1, "text": None, "topic": "x"}, *records]))
    table = "id,text\n" + "".join(f'{i},"{story}"\n' for i, story in enumerate(tales(12)))
    for name, content in (
        ("a.jsonl", lines),
        ("a.txt", lines),
        ("a.json", json.dumps([{"text": None}, *records])),
        ("a.csv", table + "12,\n"),
        ("a.tsv", table.replace(",", "\t") + "12\t\n"),
    ):
        (nowhere / name).write_text(content)
        found = load_text(nowhere / name)
        assert everything(found) == sorted(tales(12)), name
        assert found.remarks == ("Records without a text are left out: 1.",) and "'text'" in found.source
    for name, content, said in (
        ("b.jsonl", '{"id": 1}\n{"id": 2}\n', ("'b.jsonl'", "no column 'text'", "only id")),
        ("b.jsonl", '{"text": "secret"}\n{"text": "sec\n', ("Line 2 of 'b.jsonl'",)),
        ("b.json", '{"text": "secret"}', ("list of records",)),
        ("b.csv", "id,name\n1,secret\n", ("is a table", "'text'")),
        ("b.csv", "", ("is empty",)),
        ("b.jsonl", '["a"]\n3\n', ("no column 'text'", "no record")),
    ):
        (nowhere / name).write_text(content)
        with refused(*said):
            load_text(nowhere / name)


def test_what_a_mac_keeps_beside_every_file_is_not_read(nowhere):
    put(nowhere / "a.txt", tales(5))
    (nowhere / "._a.txt").write_bytes(b"\0\x05\x16\x07\0\x02\0\0Mac OS X")
    assert everything(load_text(nowhere)) == sorted(tales(5))


def test_records_of_none_are_left_out_and_said(nowhere, monkeypatch, refused):
    hub(monkeypatch, {"train": [None, *tales(11), None]})
    found = load_text("hf:tales")
    assert everything(found) == sorted(tales(11)) and found.remarks == ("Records without a text are left out: 2.",)
    assert not found.private
    hub(monkeypatch, {"train": [None, None]})
    with refused("no column 'text' of text", "id, text"):
        load_text("hf:tales")


def test_a_users_own_text_is_known_by_its_name_alone(nowhere):
    found = load_text(put(nowhere / "my tales.txt", tales(20)))
    assert found.private and found.source == f"'my tales.txt', separated by {END}"
    assert corpus(found, BYTES).private
    (nowhere / "t.txt").write_text("secret")
    with pytest.raises(InputError) as caught:
        load_text(nowhere / "t.txt")
    assert str(nowhere) not in str(caught.value) and "secret" not in str(caught.value)


# What is refused


def test_what_is_no_text_is_refused(nowhere, refused):
    cases = [
        (b"", "is empty"),
        (b" \n\n\t\r\n", "is empty"),
        (f" {MARK}".encode(), "is empty"),
        (b"Only one story.\n", "one story only"),
        (b"the same\nthe same\n", "one story only"),
        (b"a\n\nb\0c", "byte 0x00 at place 4"),
        ("\ufeffa\n\nbé".encode() + b"\xe9 c\n\nd", "byte 0xe9 at place 9"),
        ("a\nb\n".encode("utf-16"), "UTF-16 or UTF-32 text; save it as UTF-8"),
        ("a\nb\n".encode("utf-16-be"), "UTF-16 or UTF-32 text"),
        (gzip.compress(b"a\n\nb"), "compressed by gzip: unpack it first"),
        (b"PK\x03\x04\x14\0a.txt", "a zip: unpack it first"),
        (b"PAR1\x15\0", "a Parquet file"),
        (f"a{MARK}b".encode() + "é".encode()[:1], "byte 0xc3 at place 17"),
    ]
    for content, said in cases:
        (nowhere / "bad.txt").write_bytes(content)
        for path in (nowhere / "bad.txt", nowhere):
            with refused(said):
                load_text(path)


def test_what_is_not_there_is_refused_with_where_it_was_sought(nowhere, monkeypatch, refused):
    with refused("MCLOOP_DATA", "--data-dir", "tinystories*.txt"):
        load_text("tinystories")
    with refused(repr(str(nowhere)), "MCLOOP_DATA", "--data-dir", "fairytaleqa*.txt"):
        load_text("fairytaleqa", folder=nowhere)
    with refused("no .txt file", repr(str(nowhere))):
        load_text(nowhere)
    with refused("'none.txt'", "tinystories", "tfds:NAME", "hf:NAME"):
        load_text("none.txt")
    with refused("folder", "'none'"):
        load_text("tinystories", folder="none")
    monkeypatch.setenv("MCLOOP_DATA", str(nowhere / "none"))
    with refused("MCLOOP_DATA must"):
        load_text("tinystories")
    put(nowhere / "tinystories_a.txt", ["a", "b"])
    put(nowhere / "tinystories_b.txt", ["a", "b"])
    with refused("several", "tinystories_a.txt, tinystories_b.txt"):
        load_text("tinystories", folder=nowhere)
    for share in (0, 1, -0.1, 2, True, "0.1", float("nan")):
        with refused("held_out", repr(share)):
            load_text(nowhere / "tinystories_a.txt", held_out=share)


def test_what_cannot_be_packed_is_refused(nowhere, refused):
    text = made()
    for field, bad in (("length", (1, 2.0, True, None)), ("sequences", (0, "9")), ("validation", (-1, 1.5))):
        for value in bad:
            with refused(field, repr(value), ">="):
                corpus(text, BYTES, **{field: value})
    with refused("packing", "'rows'", "'stories' or 'contiguous'"):
        corpus(text, BYTES, packing="rows")
    with refused("sequences asks for 21", "20 rows"):
        corpus(text, BYTES, sequences=21)
    with refused("validation asks for 3", "held-out", "2 rows"):
        corpus(text, BYTES, validation=3)
    with refused("held-out", "0 rows", "one is needed"):
        corpus(made(held_out=()), BYTES)
    with refused("training", "0 rows", "one is needed"):
        corpus(made(stories=["ab"] * 3, held_out=["a" * 20]), BYTES, packing="contiguous", length=10)
    assert len(corpus(made(stories=["ab"] * 3), BYTES, packing="contiguous", length=9).train) == 1  # with the ends
    with refused("sequences asks for 2", "1 rows"):
        corpus(made(stories=["ab"] * 3), BYTES, packing="contiguous", length=9, sequences=2)
    with refused("No training story", "10 tokens", "packing='contiguous'", "length >= 13"):
        corpus(made(stories=["a" * 12, "b" * 10]), BYTES, length=10)  # the shorter would have no end
    made_of = {path.name.rpartition(".")[0] for path in kept(nowhere) if path.suffix == ".json"}
    assert len(made_of) == 1  # of the one corpus that was not refused
    assert all(path.name.split(".")[0] in made_of or ".validation" in path.name for path in kept(nowhere))
    (nowhere / "file").write_text("")
    with refused("cache", "MCLOOP_CACHE"):
        corpus(text, BYTES, cache=nowhere / "file" / "below")


# Packing


encoded = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=9).map(lambda x: np.array(x, np.uint16)), min_size=1)


@given(stories=encoded, batch=st.integers(1, 4), length=st.integers(2, 12))
def test_packing_is_exactly_invertible(stories, batch, length):
    batches = [stories[i : i + batch] for i in range(0, len(stories), batch)]
    tally = Tally()
    rows = np.concatenate(list(packed(batches, length, 9, "stories", tally)))
    assert rows.shape == (len(stories), length) and rows.dtype == np.uint16 and tally.rows == len(stories)
    back = unpack(rows, 9, "stories")
    for story, row in zip(stories, back, strict=True):
        np.testing.assert_array_equal(row, story[:length])
    assert tally.cut == sum(len(story) >= length for story in stories)
    assert tally.tokens == sum(min(len(story) + 1, length) for story in stories) == counted(rows, 9).sum()
    np.testing.assert_array_equal(story_lengths(rows, 9), [min(len(story), length) for story in stories])

    tally = Tally()
    rows = np.concatenate(list(packed(batches, length, 9, "contiguous", tally)))
    stream = np.concatenate([np.append(story, 9) for story in stories])
    np.testing.assert_array_equal(rows.ravel(), stream[: len(stream) // length * length])
    assert tally.tokens == rows.size == counted(rows, 9, "contiguous").sum() and tally.rows == len(rows)
    once = rows.reshape(1, -1)  # in one row no story is cut but the last
    for story, piece in zip(stories, unpack(once, 9, "contiguous"), strict=False):
        np.testing.assert_array_equal(piece, story[: len(piece)])
    assert Counter(np.concatenate([*unpack(rows, 9, "contiguous"), []])) == Counter(rows[rows != 9].ravel())


def test_contiguous_rows_in_which_nothing_is_cut_come_back_whole():
    stories = [np.array(x, np.uint16) for x in ([1, 2, 3], [4, 5], [6, 6, 6, 6, 6, 6], [7], [8], [1, 2])]
    rows = np.concatenate(list(packed([stories], 7, 9, "contiguous", Tally())))
    assert rows.shape == (3, 7)
    for story, back in zip(stories, unpack(rows, 9, "contiguous"), strict=True):
        np.testing.assert_array_equal(back, story)


def test_stories_in_rows_that_a_model_drew():
    """Empty stories, no end, nothing but ends; the pieces that a row begins and ends with count where they are any."""
    rows = np.array([[9, 9, 1, 9], [1, 2, 3, 4], [9, 9, 9, 9], [1, 9, 9, 2], [1, 2, 3, 9]])
    assert [x.tolist() for x in unpack(rows, 9, "stories")] == [[], [1, 2, 3, 4], [], [1], [1, 2, 3]]
    expected = [[], [1], [1, 2, 3, 4], [], [], [], [1], [], [2], [1, 2, 3]]
    assert [x.tolist() for x in unpack(rows, 9, "contiguous")] == expected
    assert story_lengths(rows, 9).tolist() == [0, 4, 0, 1, 3]
    mask = [[1, 0, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]]
    np.testing.assert_array_equal(counted(rows, 9, "stories"), np.array(mask, bool))


# A corpus on disk


@pytest.mark.parametrize("packing", ["stories", "contiguous"])
def test_a_corpus_holds_the_stories(nowhere, packing):
    text = made(stories=tales(2300), held_out=["A hare ran." * 8, "A hound slept." * 6])  # more than are tokenized at once
    found = corpus(text, BYTES, packing=packing, length=90)
    assert isinstance(found.train, np.memmap) and found.train.dtype == found.validation.dtype == np.uint16
    assert not found.train.flags.writeable and found.train.shape[1] == found.validation.shape[1] == found.length == 90
    if packing == "stories":
        assert [BYTES.decode(ids) for ids in unpack(found.train, 256)] == text.train
        assert [BYTES.decode(ids) for ids in found.validation] == text.held_out
        assert found.tokens == sum(len(story) + 1 for story in text.train) and found.first[ord("T")] == 2300
    else:
        joined = "".join(f"{story}\0" for story in text.train).encode()
        stream = np.where(found.train == 256, 0, found.train).astype(np.uint8).tobytes()
        assert joined.startswith(stream) and len(joined) - len(stream) < 90 and found.tokens == len(stream)
    assert found.first.dtype == np.float64 and found.first.shape == (257,)
    assert Counter(found.train[:, 0].tolist()) == {i: n for i, n in enumerate(found.first) if n}
    assert (found.name, found.packing, found.source, found.remarks) == ("tales", packing, "made up", ("Made up.",))
    assert found.held_out == tuple(text.held_out) and found.tokenizer is BYTES
    fewer = corpus(text, BYTES, packing=packing, length=90, sequences=1001, validation=1)
    np.testing.assert_array_equal(fewer.train, found.train[:1001])
    assert len(fewer.validation) == 1 and fewer.first.sum() == 1001 and fewer.tokens < found.tokens


def test_stories_that_do_not_fit_are_cut_and_counted(nowhere):
    text = made(stories=["a" * 9, "b" * 10, "c" * 11], held_out=["d" * 30, "e"])
    found = corpus(text, BYTES, length=10)
    assert story_lengths(found.train, 256).tolist() == [9, 10, 10] and found.tokens == 30
    first, *said = found.remarks
    assert first == "Made up." and "2 of 3 training" in said[0] and "1 of 2 held-out" in said[1] and "have no end" in said[0]
    assert corpus(text, BYTES, length=31).remarks == ("Made up.",)
    (_, remark) = corpus(text, BYTES, length=10, sequences=2, validation=1).remarks[:2]
    assert "1 of 2 training" in remark  # of those that are trained on


def test_no_more_is_tokenized_than_is_wanted(nowhere):
    text = made(stories=tales(3500), held_out=tales(3500))
    tokenizer, asked = counting(BYTES)
    corpus(text, tokenizer, sequences=1100, validation=700)
    assert sum(asked) == 1800
    corpus(text, tokenizer, packing="contiguous", sequences=50, validation=50)
    assert sum(asked) == 1800 + 1000 + 1000  # a batch each


def counting(tokenizer):
    """The tokenizer, and a list of how many stories it was asked for each time."""
    asked = []

    def encode(stories):
        asked.append(len(stories))
        return tokenizer.encode(stories)

    return tokenizer._replace(encode=encode), asked


def test_a_corpus_is_packed_once(nowhere):
    tokenizer, asked = counting(BYTES)
    text = made(held_out=["A hare ran. " * 20, "A hound slept. " * 20])
    found = corpus(text, tokenizer)
    assert sum(asked) == 22
    again = corpus(text._replace(train=tuple(text.train), source="elsewhere"), tokenizer)
    assert sum(asked) == 22 and again.tokens == found.tokens and again.source == "elsewhere"
    np.testing.assert_array_equal(again.train, found.train)
    for other in (
        {"text": text._replace(train=[*text.train[1:], text.train[0]])},
        {"text": text._replace(train=text.train[:-1], held_out=[text.train[-1], *text.held_out])},
        {"text": text._replace(held_out=[text.held_out[0], "A hound slept! " * 20])},
        {"text": text._replace(train=["Tale 0.T", "ale 1.", *text.train[2:]])},
        {"text": text._replace(train=["Tale 0.", "Tale 1.", *text.train[2:]])},  # the same letters, parted elsewhere
        {"length": 255},
        {"packing": "contiguous"},
        {"sequences": 3},
        {"validation": 1},
        {"tokenizer": tokenizer._replace(digest="other")},
    ):
        before = sum(asked)
        corpus(**({"text": text, "tokenizer": tokenizer} | other))
        assert sum(asked) > before, other


@pytest.mark.parametrize("ending", [".json", ".train.npy", ".validation.npy"])
def test_a_damaged_corpus_is_noticed_and_packed_again(nowhere, ending):
    tokenizer, asked = counting(BYTES)
    whole = np.array(corpus(made(), tokenizer).train)
    (path,) = (path for path in kept(nowhere) if path.name.endswith(ending))
    content = path.read_bytes()
    for damaged in (content[:-9], content[:-9] + bytes([content[-9] ^ 1]) + content[-8:], b""):
        path.write_bytes(damaged)
        before = len(asked)
        with pytest.warns(UserWarning, match="tales.*damaged.*packed again"):
            found = corpus(made(), tokenizer)
        np.testing.assert_array_equal(found.train, whole)
        assert len(asked) > before and path.read_bytes() == content
    path.unlink()
    if ending == ".json":  # nothing says that there is a corpus
        np.testing.assert_array_equal(corpus(made(), tokenizer).train, whole)
    else:
        with pytest.warns(UserWarning, match="damaged"):
            corpus(made(), tokenizer)
    corpus(made(), tokenizer)


def test_a_killed_or_failed_packing_leaves_nothing_that_is_used(nowhere, monkeypatch):
    def broken(stories):
        if len(stories) == 20:
            raise KeyboardInterrupt
        return BYTES.encode(stories)

    with pytest.raises(KeyboardInterrupt):
        corpus(made(), BYTES._replace(encode=broken))
    assert [path.name.rpartition(".")[0].rpartition(".")[2] for path in kept(nowhere)] == ["validation"]
    assert len(corpus(made(), BYTES).train) == 20
    monkeypatch.setattr(room, "_VERSION", 0)
    tokenizer, asked = counting(BYTES)
    corpus(made(), tokenizer)
    assert asked


class Endless(Sequence):
    """Stories that are made when they are asked for, so that only packing takes memory."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        return [f"story {j} " * 8 for j in range(*i.indices(self.count))] if isinstance(i, slice) else f"story {i} " * 8

    def __iter__(self):
        return (self[i] for i in range(self.count))


@pytest.mark.parametrize("packing", ["stories", "contiguous"])
def test_memory_does_not_grow_with_the_text(nowhere, packing):
    """16,000 rows of 128 are 4 MB on disk; a block of a thousand rows is a quarter of one."""

    def peak(count):
        tracemalloc.start()
        try:
            assert corpus(made(stories=Endless(count), held_out=["a" * 128]), BYTES, packing=packing, length=128).tokens
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(16000) < peak(2000) + 2**19


def test_real_stories(nowhere, data_folder):
    text = load_text("tinystories", folder=data_folder)
    tokenizer = bpe_tokenizer(text.train, 1024)
    found = corpus(text, tokenizer, length=512)
    rows = [tokenizer.decode(ids) for part in (found.train, found.validation) for ids in unpack(part, tokenizer.end)]
    whole = [*text.train, *text.held_out]
    encoded = tokenizer.encode(whole)
    for row, story, ids in zip(rows, whole, encoded, strict=True):
        assert row == story if len(ids) <= 512 else row == tokenizer.decode(ids[:512])
    long = [sum(len(ids) >= 512 for ids in some) for some in (encoded[:1678], encoded[1678:])]
    assert long[0] > 0 and [int(remark.split()[0]) for remark in found.remarks] == [n for n in long if n]
    assert found.tokens == sum(min(len(ids) + 1, 512) for ids in encoded[:1678]) and len(found.held_out) == 186
    joined = corpus(text, tokenizer, packing="contiguous")
    assert joined.tokens == sum(len(ids) + 1 for ids in encoded[:1678]) // 256 * 256 and joined.remarks == ()
