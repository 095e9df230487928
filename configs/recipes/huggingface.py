"""GPT-2 of transformers: a language model that reads its own stories (a recipe)

Paper: beyond the papers; GPT2LMHeadModel of transformers, from a config and without a download, by a plain loop of torch
Claim: Trained on its own stories alone, a language model tells of fewer and fewer things, and more of its stories are none
    that the grammar of the real ones could have said; where the real stories are kept, both stay where they were.
Command: mcloop run recipes/huggingface
Minutes: tiny 1, small 15, paper 120
Expected: at size small the first fit is usable: 13 % of its stories are none of the grammar's (1 seed); its loops
    have not been run to their end, and the minutes are a guess
"""

from functools import cache, partial

import numpy as np

from mcloop import make_loop, regimes
from mcloop.data.grammar import Slot, grammar, zipf
from mcloop.data.words import thing_words
from mcloop.experiment import Accept, Experiment, Size, once
from mcloop.own.external import external
from mcloop.own.floor import with_floor
from mcloop.own.measures import text_metrics
from mcloop.own.optional import optional

ARMS = {"replace": regimes.replace(), "accumulate": regimes.accumulate(), "augment": regimes.augment(1.0)}

NAMES = ["Anna", "Ben", "Clara", "David", "Emma", "Finn"]
FRIENDS = ["cat", "dog", "fox", "hen", "goat", "mouse"]
PLACES = ["garden", "wood", "kitchen", "barn", "river"]
PLOTS = (  # (weight, beats), and a beat is lines with their weights
    (
        3,
        (
            ((2, "{hero} lost a {thing} in the {place}."), (1, "In the {place} {hero} lost a {thing}.")),
            ((2, "The {friend} found it."), (1, "Nobody ever found it.")),
            ((1, "{hero} was happy again."), (2, "All was well again."), (2, "")),
        ),
    ),
    (
        2,
        (
            ((1, "{hero} wanted to buy a {thing} for the {friend}."), (1, "{hero} saw a {thing} near the {place}.")),
            ((1, "It was too dear."), (1, "It was very old.")),
        ),
    ),
)


@cache
def stories(things):
    """A grammar of short stories about one of `things` things, of which the i-th is told of as often as 1/i."""
    even = {name: Slot(np.full(len(w), 1 / len(w)), {"": w}) for name, w in _slots().items()}
    return grammar("short stories", PLOTS, even | {"thing": zipf(thing_words(things), 1.0)}, "thing")


def _slots():
    return {"hero": NAMES, "friend": FRIENDS, "place": PLACES}


@cache
def real_texts(count, things):
    told = stories(things)
    drawn = told.sample(np.random.default_rng(0), count)
    return [" ".join(told.words[i] for i in story) for story in drawn]


class LanguageModel:
    """GPT-2 over the words of its training texts, which spaces part; a text that nobody told it has words that it has not.

    Args:
        layers, width, heads: of the network.
        steps, batch, rate: optimiser steps of AdamW, texts in each, and the highest learning rate, which falls to nothing.
    """

    def __init__(self, layers, width, heads, steps, batch, rate):
        self.shape = {"n_layer": layers, "n_embd": width, "n_head": heads}
        self.steps, self.batch, self.rate = steps, batch, rate
        self.torch, self.library = optional("torch", "hf"), optional("transformers", "hf")

    def fit(self, texts, seed):
        """Trains a new network; id 0 begins and ends every text."""
        torch = self.torch
        torch.set_num_threads(1)  # a network so small gains nothing by more, and its numbers would depend on them
        torch.manual_seed(seed)
        self.words = ["", *sorted({word for text in texts for word in text.split()})]
        number = {word: i for i, word in enumerate(self.words)}
        told = [[number[word] for word in text.split()] for text in texts]
        self.longest = max(map(len, told)) + 1
        # what follows the end of a text is -100, which the loss leaves out and no word before it sees
        rows = torch.full((len(told), 1 + self.longest), -100)
        for row, ids in zip(rows, told, strict=True):
            row[: len(ids) + 2] = torch.tensor([0, *ids, 0])
        config = self.library.GPT2Config(
            vocab_size=len(self.words),
            n_positions=1 + self.longest,
            **{**dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0), **self.shape},
            bos_token_id=0,
            eos_token_id=0,
        )
        self.network = self.library.GPT2LMHeadModel(config)
        optimiser = torch.optim.AdamW(self.network.parameters(), lr=self.rate, weight_decay=0.01)
        falling = torch.optim.lr_scheduler.OneCycleLR(optimiser, self.rate, total_steps=self.steps + 1, pct_start=0.1)
        self.network.train()
        for _ in range(self.steps):
            ids = rows[torch.randint(len(rows), (self.batch,))]
            logits = self.network(ids.clamp(min=0)).logits[:, :-1]
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=-100)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            optimiser.step()
            falling.step()
        self.network.eval()

    def sample(self, n, seed):
        """n texts, of at most as many words as the longest that it was trained on."""
        torch = self.torch
        torch.manual_seed(seed)
        begin = torch.zeros(n, 1, dtype=torch.long)
        drawn = self.network.generate(
            begin,
            attention_mask=torch.ones_like(begin),
            do_sample=True,
            top_k=0,
            max_new_tokens=self.longest,
            pad_token_id=0,
        )
        # what follows the end is all zeros, and no word
        return [" ".join(self.words[i] for i in row if i) for row in drawn[:, 1:].tolist()]


@once
def model(count, things, layers, width, heads, steps, batch, rate):
    made = partial(LanguageModel, layers, width, heads, steps, batch, rate)
    return external(made, real_texts(count, things), measure(things))


def measure(things):
    """What is known of the grammar besides what is known of texts."""
    told = stories(things)
    index = {word: i for i, word in enumerate(told.words)}
    rare = {told.words[i] for i in told.rare}

    def scores(real, drawn):
        said = [[index[word] for word in text.split()] for text in drawn]
        of_texts = text_metrics(real, drawn)
        return {
            "ungrammatical": float(np.mean([not np.isfinite(told.log_prob(story)) for story in said])),
            "things_lost": 1 - len(rare & {word for text in drawn for word in text.split()}) / len(rare),
            **{name: of_texts[name] for name in ("words_lost", "distinct_2", "words")},
        }

    return scores


def make(arm, count=1000, things=100, layers=2, width=64, heads=4, steps=600, batch=32, rate=5e-3):
    """One loop.

    Args:
        arm: one of ARMS; augment keeps as many real stories as there are synthetic ones.
        count: real stories.
        things: that a story may be about, in words of the grammar.
        layers, width, heads: of the network.
        steps, batch, rate: of its training, the same in every generation, however many stories there are.
    """
    return make_loop(model(int(count), int(things), layers, width, heads, steps, batch, rate), ARMS[arm])


def annotate(ds, options):
    real = real_texts(int(options["count"]), int(options["things"]))
    return with_floor(ds, real, measure(int(options["things"])))


experiment = Experiment(
    make=make,
    grid={"arm": list(ARMS)},
    sizes={
        "tiny": Size(2, 3, options={"count": 60, "things": 20, "layers": 1, "width": 16, "heads": 2, "steps": 3}),
        "small": Size(2, 5),
        "paper": Size(8, 10, options={"count": 5000, "things": 400, "layers": 4, "width": 128, "steps": 4000}),
    },
    measure=("ungrammatical", "things_lost", "words_lost", "distinct_2"),
    annotate=annotate,
    worse="up",
    neural=True,
    gate={"ungrammatical": Accept(0.1, 0.5)},
)
