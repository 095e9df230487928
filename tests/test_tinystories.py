"""The study of language models: where its stories come from, its arms, its laws, and what a report shows of it."""

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from mcloop.cli import main
from mcloop.data.text import Corpus
from mcloop.data.tokens import byte_tokenizer
from mcloop.experiment.own_data import digest
from mcloop.laws import unsaid
from mcloop.nets.transformer import GPT2_9M
from mcloop.report.cells import Cell
from mcloop.report.sample_texts import as_texts
from mcloop.report.story import verdict
from mcloop.studies import tinystories
from mcloop.studies.story_models import story_panel
from mcloop.types import Learner


@pytest.mark.parametrize("regime", ["replace", "accumulate", "replace_multiple"])
def test_the_law_of_what_is_no_longer_said(regime):
    """Against resampled vocabularies; the law of the wrong regime, and that of one generation off, must fail."""
    p, n, fits, replicas = np.arange(1, 201) ** -1.0, 600, 5, 300
    p, rng, found = p / p.sum(), np.random.default_rng(0), np.zeros((300, 5))
    for row in found:
        counts = rng.multinomial(n, p)
        for g in range(1, fits + 1):
            said = counts / counts.sum()
            row[g - 1] = (rng.multinomial(n, said) == 0).mean()
            new = rng.multinomial(n * (g + 1 if regime == "replace_multiple" else 1), said)
            counts = counts + new if regime == "accumulate" else new
    error = found.std(0, ddof=1) / replicas**0.5
    g = np.arange(1, fits + 1)
    assert np.abs((found.mean(0) - unsaid(g, p=p, N=n, regime=regime)) / error).max() < 4
    assert np.abs((found.mean(0) - unsaid(g + 1, p=p, N=n, regime=regime)) / error).max() > 8
    others = {"replace", "accumulate", "replace_multiple"} - {regime}
    for other in others:
        assert np.abs((found.mean(0) - unsaid(g, p=p, N=n, regime=other)) / error)[1:].max() > 8


def test_where_the_stories_come_from(tmp_path, monkeypatch, refused):
    monkeypatch.delenv("MCLOOP_DATA", raising=False)
    assert tinystories.stories(None).text is None
    assert "stand in" in tinystories.stories(None).remarks[0]
    monkeypatch.setenv("MCLOOP_DATA", str(tmp_path))
    assert tinystories.stories(None).text is None
    (tmp_path / "TinyStories_few.txt").write_text("\n<|endoftext|>\n".join(f"Story {i}." for i in range(30)))
    found = tinystories.stories(None)
    assert found.text is not None and len(found.text.train) == 27
    assert "TinyStories_few.txt" in found.source
    mine = tmp_path / "mine.txt"
    mine.write_text("One.\n\nTwo.\n\nThree.")
    own = tinystories.stories(mine).text
    assert own is not None and {*own.train, *own.held_out} == {"One.", "Two.", "Three."}
    with refused("nothing.txt"):
        tinystories.stories(tmp_path / "nothing.txt")


def test_equal_steps_share_everything_but_the_later_budget():
    table = tinystories.Source(None, "a grammar")
    make = tinystories.study(GPT2_9M, {}, {}).make
    options = {k: v for k, v in tinystories.TINY.items() if k not in ("vocabulary", "length")}
    free, equal = (make(arm, table=table, **options) for arm in ("accumulate", f"accumulate{tinystories.EQUAL}"))
    assert free.model.observe is equal.model.observe
    assert free.model.sample is equal.model.sample
    assert equal.model.fit.keywords["later"].steps == 3  # 60 stories in batches of 20
    assert make("accumulate", share=0.5, table=table, **options).model.n == 30


def test_a_run_on_the_users_own_text(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MCLOOP_CACHE", str(tmp_path / "cache"))
    words = "the cat sat on a mat and saw the dog run to its red ball".split()
    rng = np.random.default_rng(0)
    text = tmp_path / "own.txt"
    text.write_text("\n\n".join(" ".join(rng.choice(words, 90)) + "." for _ in range(80)))
    arguments = ["run", "gerstgrasser/tinystories_gpt2_9m", "--size", "tiny", "--data", str(text), "--set", "arm=replace"]
    main([*arguments, "--generations", "2", "--seeds", "2", "--out", str(tmp_path / "run")])
    said = (tmp_path / "run" / "report.md").read_text()
    assert "own.txt" in said
    # a user's own text is not quoted: all stories that are shown are the model's
    assert "## Stories" in said and "*real stories*" not in said and "*replace, generation 2*" in said
    assert str(tmp_path) not in said
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("<blockquote>") == 6 and str(tmp_path) not in page
    assert "The paper's cross-entropies" in said
    capsys.readouterr()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_held_out_stories_are_shown_beside_what_a_model_tells(count, refused):
    """A text of a few stories has fewer to hold out than a report shows; those of a user are not shown at all."""
    tokenizer = byte_tokenizer()
    rows = np.frombuffer(b"abcdefgh" * 6, np.uint8).astype(np.uint16).reshape(6, 8)
    data = Corpus("", tokenizer, "contiguous", 8, rows, rows[:4], np.ones(257), ("One.",) * count, "", (), 48)
    blind = Learner("", lambda key: (), lambda *_: (), lambda *_: (), lambda *_: (), lambda v, x: jnp.zeros(len(x["tokens"])))
    for private in (False, True):
        panel = story_panel(data._replace(private=private), blind, 6, inclusive=True)
        seen = panel.see({"tokens": rows}, ())
        grid = {"arm": ["replace"], "seed": [0], "generation": [1]}
        values = {k: ((*grid, *("story", "byte")[: np.ndim(v)]), np.asarray(v)[None, None, None]) for k, v in seen.items()}
        ds = panel.annotate(xr.Dataset(values, grid))
        assert ("real_stories" in ds) == (not private)
        if not private:
            assert as_texts(ds["real_stories"].values) == (["One."] * count + [""] * 3)[:3]
    with refused("held-out", "fill 3 rows of 8 tokens", "4 are needed"):
        story_panel(data._replace(validation=rows[:3]), blind, 6, inclusive=True)


def test_a_folder_of_text_counts_by_what_is_in_it(tmp_path, refused):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.txt").write_text("One.")
    (tmp_path / "a" / "two.txt").write_text("Two.")
    first = digest(tmp_path / "a")
    assert first == digest(tmp_path / "a") != digest(tmp_path / "a" / "one.txt")
    (tmp_path / "a" / "two.txt").write_text("Too.")
    changed = digest(tmp_path / "a")
    (tmp_path / "a" / "two.txt").rename(tmp_path / "a" / "three.txt")
    assert len({first, changed, digest(tmp_path / "a")}) == 3
    with refused("data", "missing"):
        digest(tmp_path / "missing")


def test_nats_get_worse_by_what_they_add():
    """A cross-entropy that rises by .7 nats doubles the perplexity, however large it is; one that rises by .05 does not."""

    def said(path):
        y = np.array(path)
        flat = {"cross_entropy": np.full(len(y), 0.01)}
        cell = Cell({}, "", np.arange(1, len(y) + 1), {"cross_entropy": y}, flat, {}, {}, {}, seeds=3)
        return verdict(cell, "cross_entropy", "up")

    assert said([7.0, 7.2, 7.4, 7.55, 7.7]).startswith("is getting worse")
    assert "in exp(cross_entropy)" in said([7.0, 7.2, 7.4, 7.55, 7.7])
    assert said([0.1, 0.3, 0.5, 0.65, 0.8]).startswith("is getting worse")
    assert said([7.0, 7.02, 7.03, 7.04, 7.05]).startswith(("held", "is a little worse"))
    assert said([7.0, 6.5, 6.0, 5.8, 5.6]).startswith("improved")


def test_a_story_is_shown_from_its_first_token():
    """Of contiguous rows: all of one that has no end, and of another the longest story that begins in it."""
    tokenizer = byte_tokenizer()
    rows = np.frombuffer(b"abcdefgh" * 4, np.uint8).astype(np.uint16).reshape(4, 8)
    data = Corpus("", tokenizer, "contiguous", 8, rows, rows, np.ones(257), (), "", (), 32)
    blind = Learner("", lambda key: (), lambda *_: (), lambda *_: (), lambda *_: (), lambda v, x: jnp.zeros(len(x["tokens"])))
    drawn = rows[:3].copy()
    drawn[1, 2], drawn[2, [1, 6]] = tokenizer.end, tokenizer.end
    seen = story_panel(data, blind, 4, inclusive=True).see({"tokens": drawn}, ())
    assert as_texts(seen["stories"]) == ["abcdefgh", "defgh", "cdef"]
    assert seen["cross_entropy"] == 0 and seen["own_perplexity"] == 1
