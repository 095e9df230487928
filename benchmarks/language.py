"""Language models: training and sampling of mcloop's transformers against Hugging Face's in PyTorch.

    python benchmarks/language.py [--quick] [--json results.json] [--peak-tflops 989]

A row is timed only after both have given the same logits, the same loss and the same likeliest tokens for the same weights.
The two take turns, and every figure is the best of the repeats; compilation is timed apart. Training is one step of AdamW;
sampling draws whole sequences with a cache, none of which ends early. On a GPU PyTorch is compiled too, both also run in
bfloat16, and the 126M model is a row. The last column is the share of the matrix peak: of a large float32
product in JAX that takes its turns with the steps, or of --peak-tflops.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any

# PyTorch's idle threads otherwise spin, and take the cores from whatever is timed next
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import jax
import jax.numpy as jnp
import numpy as np
import optax
from neural import machine, table, take_turns

from mcloop.models import training
from mcloop.models.decoding import decoder
from mcloop.models.likelihood import weighted_loss
from mcloop.nets.transformer import GPT2_9M, LLAMA2_12M, LLAMA2_126M, Shape, transformer
from mcloop.types import Learner

_DECAY, _RATE = 0.01, 1e-3


def hugging_face(shape: Shape, variables) -> Any:
    """A `GPT2LMHeadModel` or `LlamaForCausalLM` of a `Shape`, without dropout, with these weights: for float32 on a CPU."""
    import torch
    import transformers

    sizes = {"vocab_size": shape.vocabulary, "bos_token_id": 0, "eos_token_id": 0}
    if shape.family == "gpt2":
        quiet = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
        layers = {"n_layer": shape.layers, "n_embd": shape.width, "n_inner": shape.hidden, "n_head": shape.heads}
        config = transformers.GPT2Config(n_positions=shape.context, activation_function="gelu_new", **layers, **sizes, **quiet)
        model = transformers.GPT2LMHeadModel(config)
    else:
        layers = {"num_hidden_layers": shape.layers, "num_attention_heads": shape.heads}
        widths = {"hidden_size": shape.width, "intermediate_size": shape.hidden, "max_position_embeddings": shape.context}
        config = transformers.LlamaConfig(rms_norm_eps=1e-6, **layers, **widths, **sizes)
        model = transformers.LlamaForCausalLM(config)
    arrays = gpt2_names(shape, variables.params) if shape.family == "gpt2" else llama_names(shape, variables.params)
    state = {name: torch.tensor(np.array(x)) for name, x in arrays.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"} or (missing and shape.family == "llama2"):
        raise RuntimeError(f"Hugging Face's model lacks {unexpected} and has {missing} besides.")
    return model.eval()


def gpt2_names(shape: Shape, params) -> dict[str, np.ndarray]:
    """Our arrays under the names of `GPT2LMHeadModel`, whose linear layers are (inputs, outputs) like ours."""
    names = {"norm1": "ln_1", "norm2": "ln_2", "attention": "attn.c_attn", "project": "attn.c_proj"}
    names |= {"enter": "mlp.c_fc", "leave": "mlp.c_proj"}
    found = {"transformer.wte.weight": params["tokens"], "transformer.wpe.weight": params["positions"]}
    found |= {"transformer.ln_f.weight": params["norm"]["scale"], "transformer.ln_f.bias": params["norm"]["bias"]}
    for layer in range(shape.layers):
        for ours, theirs in names.items():
            for part, x in params["blocks"][ours].items():
                found[f"transformer.h.{layer}.{theirs}.{'bias' if part == 'bias' else 'weight'}"] = x[layer]
    return found


def llama_names(shape: Shape, params) -> dict[str, np.ndarray]:
    """Our arrays under the names of `LlamaForCausalLM`, whose linear layers are (outputs, inputs)."""
    names = {"project": "self_attn.o_proj", "gate": "mlp.gate_proj", "enter": "mlp.up_proj", "leave": "mlp.down_proj"}
    found = {"model.embed_tokens.weight": params["tokens"], "model.norm.weight": params["norm"]["scale"]}
    found["lm_head.weight"] = params["head"].T
    for layer in range(shape.layers):
        block, prefix = params["blocks"], f"model.layers.{layer}."
        for part, x in zip("qkv", np.split(np.asarray(block["attention"]["kernel"][layer]), 3, 1), strict=True):
            found[f"{prefix}self_attn.{part}_proj.weight"] = x.T
        for ours, theirs in names.items():
            found[f"{prefix}{theirs}.weight"] = block[ours]["kernel"][layer].T
        found[prefix + "input_layernorm.weight"] = block["norm1"]["scale"][layer]
        found[prefix + "post_attention_layernorm.weight"] = block["norm2"]["scale"][layer]
    return found


def learner(shape: Shape, dtype=None, scan: bool = False) -> Learner:
    """A transformer that learns to say every token's successor; the last token of a row has none."""
    net = transformer(shape, dtype=dtype, scan=scan)

    def loss(key, variables, tokens):
        module = net.bind(variables)
        b, t = tokens.shape
        weights = jnp.broadcast_to(jnp.arange(t) < t - 1, (b, t)) / (b * (t - 1))
        return weighted_loss(module, module.states(tokens), jnp.roll(tokens, -1, 1), weights), variables.stats

    return Learner(shape.family, net.init, loss, lambda *_: None, lambda variables, tokens: net.apply(variables, tokens)[0])


def our_training(
    shape: Shape, variables, tokens, dtype, scan: bool = False, times: int = 1
) -> tuple[Callable[[], float], float, float]:
    """Steps of AdamW as a function of nothing that returns the last loss; seconds of compilation; operations of a step.

    The device is waited for after so many `times` steps.
    """
    transform = optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(_DECAY))
    how, part = training.training(1, 1, transform=transform), learner(shape, dtype, scan)
    held = [jax.tree.map(jnp.copy, training.start(how, training.begin(how, variables)))]
    key, tokens, start = jax.random.key(0), jnp.asarray(tokens), time.perf_counter()
    step = jax.jit(lambda run, x: training.step(part, how, key, run, x, _RATE), donate_argnums=0)
    made = step.lower(held[0], tokens).compile()
    seconds = time.perf_counter() - start

    def work():
        loss = 0.0
        for _ in range(times):
            held[0], loss = made(held[0], tokens)
        return float(loss)

    return work, seconds, training_operations(shape, tokens.size, tokens.shape[1])


def training_operations(shape: Shape, tokens: int, length: int) -> float:
    """Of the matrix products of a step that makes nothing twice: 6 a weight and token, and causal attention."""
    table_of = shape.vocabulary * shape.width if shape.family == "llama2" else shape.context * shape.width
    return 6.0 * tokens * (shape.parameters - table_of + shape.layers * shape.width * length)


def their_training(shape: Shape, variables, tokens, half: bool) -> tuple[Callable[[], float], Any]:
    """The same step in PyTorch, and the module at its start."""
    import torch

    device = "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"
    model = hugging_face(shape, variables).to(device).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=_RATE, weight_decay=_DECAY)
    x, run = torch.tensor(np.array(tokens)).long().to(device), torch.compile(model) if device == "cuda" else model

    def work():
        optimiser.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=half):
            loss = run(input_ids=x, labels=x, use_cache=False).loss
        loss.backward()
        optimiser.step()
        return float(loss.detach())

    return work, model


def our_sampling(shape: Shape, variables, count: int, length: int, dtype, **options) -> tuple[Callable[[], Any], float]:
    """Sequences that begin with token 1, as a function of nothing, and seconds of its compilation."""
    first = np.eye(shape.vocabulary)[1]
    draw = decoder(transformer(shape, dtype=dtype), length, 0, first=first, stop=False, **options)
    start = time.perf_counter()
    made = jax.jit(lambda key, variables: draw(key, variables, count)).lower(jax.random.key(0), variables).compile()
    seconds, keys = time.perf_counter() - start, iter(jax.random.split(jax.random.key(1), 1000))
    return lambda: np.asarray(made(next(keys), variables)), seconds


def their_sampling(shape: Shape, variables, count: int, length: int, half: bool, greedy=False) -> Callable[[], Any]:
    """The same from Hugging Face's `generate`."""
    import torch

    device = "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"
    model = hugging_face(shape, variables).to(device)
    model.generation_config.eos_token_id = None
    start = torch.ones((count, 1), dtype=torch.long, device=device)
    how = {"do_sample": not greedy, "max_new_tokens": length - 1, "use_cache": True, "pad_token_id": 0}
    how |= {} if greedy else {"top_k": 0}

    def work():
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=half):
            return model.generate(start, attention_mask=torch.ones_like(start), **how).cpu().numpy()

    return work


def rows_of(name: str, shape: Shape, half: bool, peak: float | None, repeats: int, sizes: dict[str, int]) -> list[dict]:
    """Two rows: a training step and a sampling pass, in tokens a second."""
    dtype = jnp.bfloat16 if half else None
    tokens = np.random.default_rng(0).integers(0, shape.vocabulary, (sizes["batch"], sizes["length"])).astype(np.int32)
    variables = jax.jit(transformer(shape).init)(jax.random.key(0))
    ours, compile_step, operations = our_training(shape, variables, tokens, dtype)
    draw, compile_draw = our_sampling(shape, variables, sizes["count"], sizes["drawn"], dtype)
    works = {"step": ours, "draw": draw}
    try:
        theirs, _ = their_training(shape, variables, tokens, half)
        agree(shape, variables, ours(), theirs(), half)
    except ImportError:
        print("PyTorch or transformers is not installed: their columns stay empty.", flush=True)
    else:
        works |= {"their step": theirs, "their draw": their_sampling(shape, variables, sizes["count"], sizes["drawn"], half)}
    multiply, product_operations = matrix_product()
    found = take_turns({k: w for k, w in works.items() if "step" in k} | {"product": multiply}, repeats)
    found |= take_turns({k: w for k, w in works.items() if "draw" in k}, max(1, repeats // 2))
    rows = []
    for kind, done, seconds in (("step", tokens.size, compile_step), ("draw", sizes["count"] * sizes["drawn"], compile_draw)):
        other = found.get(f"their {kind}")
        row: dict[str, Any] = {"what": "training" if kind == "step" else "sampling", "model": name}
        row |= {"type": "bfloat16" if half else "float32", "batch": sizes["batch" if kind == "step" else "count"]}
        row |= {"length": sizes["length" if kind == "step" else "drawn"], "mcloop tokens a s": done / found[kind]}
        row |= {"Hugging Face tokens a s": other and done / other, "/ Hugging Face": other and other / found[kind]}
        row |= {"compile s": seconds}
        top = peak * 1e12 if peak else product_operations / found["product"]
        row["of peak, %"] = 100 * operations / found[kind] / top if kind == "step" else None
        rows.append(row)
    return rows


def agree(shape: Shape, variables, loss: float, other: float, half: bool) -> None:
    """Stops the benchmark unless the two models are one: logits, the first loss, and the likeliest tokens."""
    import torch

    if abs(loss - other) > (0.05 if half else 1e-4) * other:
        raise RuntimeError(f"mcloop's first loss is {loss:.5f} and PyTorch's {other:.5f}.")
    x = np.random.default_rng(1).integers(0, shape.vocabulary, (2, 33)).astype(np.int32)
    with torch.no_grad():
        expected = hugging_face(shape, variables)(torch.tensor(x).long()).logits.numpy()
    found = np.asarray(jax.jit(transformer(shape).apply)(variables, x)[0])
    # a GPU multiplies float32 with 10 bits of mantissa
    if np.abs(found - expected).max() > (1e-2 if jax.default_backend() == "gpu" else 1e-3) * np.abs(expected).max():
        raise RuntimeError("mcloop's logits and PyTorch's differ.")
    mine = our_sampling(shape, variables, 2, 9, None, temperature=0)[0]()
    theirs = their_sampling(shape, variables, 2, 9, False, greedy=True)()
    if jax.default_backend() == "cpu" and not np.array_equal(mine, theirs):
        raise RuntimeError(f"the likeliest tokens are {mine[0]} to mcloop and {theirs[0]} to PyTorch.")


def matrix_product() -> tuple[Callable[[], Any], float]:
    """A large float32 matrix product in JAX, as a function of nothing, and its floating-point operations."""
    side = 8192 if jax.default_backend() == "gpu" else 2048
    x, product = jnp.ones((side, side)), jax.jit(jnp.matmul)
    return lambda: jax.block_until_ready(product(x, x)), 2.0 * side**3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="GPT-2 only, fewer repeats and samples")
    parser.add_argument("--json", help="also write the figures here")
    parser.add_argument("--peak-tflops", type=float, help="peak of the device's matrix products, for the last column")
    given = parser.parse_args()
    where, gpu = machine(), jax.default_backend() == "gpu"
    print(", ".join(f"{k} {v}" for k, v in where.items()), flush=True)
    sizes = {"batch": 128 if gpu else 16, "length": 256, "count": 64 if given.quick else 256, "drawn": 128}
    models = {"GPT-2 9M": GPT2_9M} | ({} if given.quick else {"Llama-2 12M": LLAMA2_12M})
    models |= {"Llama-2 126M": LLAMA2_126M} if gpu else {}
    rows: list[dict] = []
    for name, shape in models.items():
        for half in (False, True) if gpu else (False,):
            rows += rows_of(name, shape, half, given.peak_tflops, 3 if given.quick else 6, sizes)
            print(table(rows[-2:]).split("\n", 2)[2], flush=True)
    print("\n" + table(rows), flush=True)
    if given.json:
        with open(given.json, "w") as file:
            json.dump({"machine": where, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
