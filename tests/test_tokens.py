"""Tokenizers: every text comes back, no text becomes the end of a story, and a file holds a tokenizer exactly."""

import json
import signal
import string
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mcloop.data.bpe import encoder
from mcloop.data.tokens import END, bpe_tokenizer, byte_tokenizer, load_tokenizer, save_tokenizer, word_tokenizer

TALES = [
    "Once upon a time there was a little red hen. She lived with a cat, a dog and a goose.",
    "The hen found a grain of wheat. “Who will plant this wheat?” asked the hen.",
    '"Not I," said the dog. "Not I," said the cat. "Not I," said the goose.\n\n"Then I will," said the little red hen.',
    "The naïve goose ate crêpes 🥞 with the hen, the cat and the dog, once upon a time.",
] * 2
WORDS = [
    "Tom",
    "said",
    ",",
    '"',
    ".",
    '."',
    "...",
    "moon",
    "moon-boat",
    "Mr",
    "Mr.",
    "'s",
    "(",
    ")",
    "“",
    "”",
    "-",
    "boat",
    "5",
]
ANYTHING = st.text(st.characters(exclude_categories=["Cs"]))

BYTES = byte_tokenizer()
BPE = bpe_tokenizer(TALES, 320)
WORD = word_tokenizer(WORDS)
both = pytest.mark.parametrize("tokenizer", [BYTES, BPE], ids=["bytes", "bpe"])
every = pytest.mark.parametrize("tokenizer", [BYTES, BPE, WORD], ids=["bytes", "bpe", "words"])


@both
@given(story=ANYTHING)
@example(story=END)
@example(story=" \r\n\x00 é\u0301 👩‍👩‍👧 \ufeff")
@settings(max_examples=200)
def test_any_text_comes_back(tokenizer, story):
    (ids,) = tokenizer.encode([story])
    assert ids.dtype == np.uint16 and not np.any(ids == tokenizer.end)
    assert tokenizer.decode(ids) == story
    assert tokenizer.decode(np.append(ids, [tokenizer.end, 65, tokenizer.end])) == story


@both
def test_stories_are_encoded_one_by_one_in_order(tokenizer):
    """More of them than go to the library at once, empty ones among them."""
    stories = [f"{i} hens. {TALES[i % 4][: i % 90]}" if i % 7 else "" for i in range(2100)]
    together = tokenizer.encode(tuple(stories))
    assert [tokenizer.decode(ids) for ids in together] == stories
    for i in (0, 1, 999, 1000, 2099):
        np.testing.assert_array_equal(together[i], tokenizer.encode([stories[i]])[0])


@both
def test_bytes_that_are_no_text_are_shown_as_such(tokenizer):
    """Both give ids below 256 to the bytes themselves."""
    assert tokenizer.decode(np.array([72, 0xC3, 0x28, 0xE2, 0x82])) == "H\ufffd(\ufffd"
    assert tokenizer.pieces[72] == "H" and tokenizer.pieces[0xC3] == "\\xc3"


@every
def test_ids_and_pieces_count_up_to_the_end(tokenizer):
    assert tokenizer.vocabulary == len(tokenizer.pieces) == tokenizer.end + 1
    assert tokenizer.pieces[tokenizer.end] == END
    used = np.unique(np.concatenate(tokenizer.encode(["Tom said moon."])))
    assert used.max() < tokenizer.vocabulary


def test_bpe_agrees_with_the_library_that_trained_it():
    """The library numbers the bytes otherwise; what the tokens stand for must be the same."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=319, min_frequency=2, show_progress=False, initial_alphabet=alphabet)
    library.train_from_iterator(TALES, trainer)
    for story in [*TALES, "the goose sailed a moon-boat, hen hen hen", " \n"]:
        theirs = [library.decode([i]) for i in library.encode(story).ids]
        ours = [BPE.decode(np.array([i])) for i in BPE.encode([story])[0]]
        assert ours == theirs
    learned = range(256, BPE.end)
    assert [library.decode([i]) for i in learned] == [BPE.decode(np.array([i])) for i in learned]


def test_a_token_that_is_made_in_two_ways_has_one_id():
    texts, encode = encoder([[97, 98], [98, 99], [256, 99], [97, 257], [258, 100]])
    assert texts[256:] == [b"ab", b"bc", b"abc", b"abcd"]
    assert [ids.tolist() for ids in encode(["abcd", "bcab"])] == [[259], [257, 256]]


def test_bpe_is_the_same_each_time_and_of_the_size_asked_for():
    assert bpe_tokenizer(iter(TALES), 320)[-2:] == BPE[-2:]
    assert BPE.name == "BPE of 320 tokens trained on 8 stories" and BPE.vocabulary == 320
    assert bpe_tokenizer(TALES, 319).digest != BPE.digest
    alone = bpe_tokenizer(TALES, 257)
    np.testing.assert_array_equal(alone.encode(["crêpe"])[0], BYTES.encode(["crêpe"])[0])
    script = "import sys, json; from mcloop.data.tokens import bpe_tokenizer as b; print(b(json.load(sys.stdin), 320).digest)"
    again = subprocess.run([sys.executable, "-c", script], input=json.dumps(TALES), capture_output=True, text=True, check=True)
    assert again.stdout.strip() == BPE.digest


@every
def test_a_file_holds_a_tokenizer_exactly(tokenizer, tmp_path):
    save_tokenizer(tokenizer, tmp_path / "tokenizer.json")
    again = load_tokenizer(tmp_path / "tokenizer.json")
    assert (again.name, again.vocabulary, again.end, again.pieces) == tuple(tokenizer[i] for i in (0, 1, 2, 5))
    assert (again.digest, again.recipe) == (tokenizer.digest, tokenizer.recipe)
    (ids,), (same,) = (each.encode(["Tom said moon-boat."]) for each in (tokenizer, again))
    np.testing.assert_array_equal(ids, same)


def test_a_changed_file_is_refused(tmp_path, refused):
    path = tmp_path / "tokenizer.json"
    save_tokenizer(BPE, path)
    whole = path.read_bytes()
    pair = f"[{json.loads(BPE.recipe)['merges'][-1][0]},".encode()
    for damaged in (whole[:-40], whole.replace(pair, b"[7,"), whole.replace(b"BPE of", b"BPE or"), b"[]", b"\xff", b"{}"):
        assert damaged != whole
        path.write_bytes(damaged)
        with refused("tokenizer.json", "damaged"):
            load_tokenizer(path)
    with refused("none.json", "No such file"):
        load_tokenizer(tmp_path / "none.json")
    with refused("tokenizer.json"):
        save_tokenizer(BPE, path / "below.json")


@given(ids=st.lists(st.integers(0, len(WORDS) - 1)))
@example(ids=[WORDS.index("."), WORDS.index('"')])  # together they would be read as one word
@example(ids=[WORDS.index("Mr"), WORDS.index(".")])
@example(ids=[WORDS.index("moon"), WORDS.index("5"), WORDS.index("boat")])
@settings(max_examples=300)
def test_any_words_come_back(ids):
    text = WORD.decode(np.array(ids, np.uint16))
    np.testing.assert_array_equal(WORD.encode([text])[0], ids)


def test_words_are_written_as_print_has_them():
    text = 'Tom said, "moon (boat)." "Tom\'s moon-boat..." “Mr. Tom”'
    (ids,) = WORD.encode([text])
    assert [WORDS[i] for i in ids] == ('Tom said , " moon ( boat ) ." " Tom \'s moon-boat ... " “ Mr. Tom ”'.split())
    assert WORD.decode(ids) == text
    assert WORD.decode(np.append(ids, [WORD.end, 0])) == text
    np.testing.assert_array_equal(WORD.encode(["  " + " ".join(WORDS[i] for i in ids) + "\n"])[0], ids)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Tom said moonlight.", "moonlight"),
        ("moon-car", "moon-car"),
        ("Tom!", "!"),
        ("moonboat", "moonboat"),
        ("boat, Ann.", "Ann"),
        (END, "<"),
    ],
)
def test_an_unknown_word_is_refused_by_name(text, word, refused):
    with refused(repr(word), f"the {len(WORDS)} of"):
        WORD.encode(["Tom", text])


def test_what_cannot_be_a_tokenizer_is_refused(refused):
    for vocabulary in (256, 65537, 300.0, True, "1024"):
        with refused("vocabulary", "257 to 65536", repr(vocabulary)):
            bpe_tokenizer(TALES, vocabulary)
    short = ["abab abab", "cd"]  # pairs twice or more: ab, abab, then nothing (" abab" is there once)
    with refused("vocabulary", "at most 259", "not 400"):
        bpe_tokenizer(short, 400)
    assert bpe_tokenizer(short, 259).pieces[256:258] == ("ab", "abab")
    with refused("vocabulary", "at most 257"):
        bpe_tokenizer([], 258)
    with refused("U+D83D", "place 1"):
        bpe_tokenizer(["a\ud83d"], 257)
    for tokenizer in (BYTES, BPE):
        with refused("U+D83D", "place 2"):
            tokenizer.encode(["fine", "no\ud83d"])
    for words in ([], ["a", "a"], ["a b"], [""], [" a"], [3]):
        with refused("words must be"):
            word_tokenizer(words)
    with refused("65535", "65536"):
        word_tokenizer([f"w{i}" for i in range(65536)])
    assert word_tokenizer([f"w{i}" for i in range(65535)]).end == 65535  # still a uint16


def test_real_stories_come_back_and_are_shorter(data_folder):
    stories = (data_folder / "tinystories_sample.txt").read_text("utf-8").split(END)
    assert len(stories) == 1864
    tokenizer = bpe_tokenizer(stories, 1024)
    encoded = tokenizer.encode(stories)
    assert [tokenizer.decode(ids) for ids in encoded] == stories
    tokens = sum(map(len, encoded))
    assert 2.9 < sum(len(story.encode()) for story in stories) / tokens < 3.3
    assert len(np.unique(np.concatenate(encoded))) > 0.75 * 1024
    letters = [piece.strip() for piece in tokenizer.pieces[-200:-1]]
    assert np.mean([set(piece) <= set(string.ascii_letters) for piece in letters]) > 0.9  # no token spans two words


def test_unbroken_lines_are_learned_in_seconds_and_ctrl_c_is_heard():
    """Pairs of a word that never ends cost its length for every merge: what is longer than any word is cut."""
    code = (
        "import random, string\nfrom mcloop.data.tokens import bpe_tokenizer\nrandom.seed(0)\nprint('ready', flush=True)\n"
        "bpe_tokenizer([''.join(random.choices(string.ascii_letters, k=2_000_000)) for _ in range(2)], 8000)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode != 0 and "KeyboardInterrupt" in said
    letters = "".join(np.random.default_rng(0).choice(list("abcdefgh"), 20_000))
    tokenizer = bpe_tokenizer([letters], 500)
    (ids,) = tokenizer.encode([letters])
    assert tokenizer.decode(ids) == letters
    ends = np.cumsum([len(tokenizer.pieces[i]) for i in ids])
    assert set(range(256, 20_000, 256)) <= set(ends.tolist())  # no token goes over a cut
