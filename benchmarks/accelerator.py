"""Everything that needs a GPU or a TPU to be measured, in one run of eight minutes and one table.

    python benchmarks/accelerator.py [--minutes 8] [--out FOLDER] [--only unet] [--tiny]

The Gaussian grid against NumPy; the U-Net of the MNIST study against torch.compile, where PyTorch sees the same device;
training of transformers against the device's own product of bfloat16 matrices, and sampling against its memory's
bandwidth, both measured first; what runs of two configs at size paper would take; precision and recall of 50,000 points.
Networks compute in bfloat16 on an accelerator. Compilation is timed apart. What fails or does not fit into the time is a row
that says so. --tiny runs every row at a toy size on a CPU: its figures say nothing but that the script works.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# what JAX does not use is PyTorch's, and its idle threads leave the cores to whatever is timed next
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import accelerator_parts
import accelerator_runs
import jax
from accelerator_rows import Part, Row, Setting, measure, table, write
from neural import machine

from mcloop.models.training import compute_dtype


def every_part(tiny: bool) -> list[Part]:
    """In the order in which they are measured; the last, which works on the host alone, is the first to be left out."""
    return [*accelerator_parts.parts(tiny), *accelerator_runs.parts(), accelerator_parts.LAST]


@contextmanager
def optimized(fully: bool) -> Iterator[None]:
    """Whether XLA optimises what is compiled in the block."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", not fully)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


def main(argv: list[str] | None = None) -> list[Row]:
    """Measures what the command line asks for, prints it, and returns the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="what is reckoned not to fit is left out (default 8)")
    parser.add_argument("--out", type=Path, help="a folder for the table as Markdown and JSON, named after the device")
    parser.add_argument("--only", default="", help="bounds, and the parts whose name contains this")
    parser.add_argument("--tiny", action="store_true", help="toy sizes, for a CPU")
    given = parser.parse_args(argv)
    if jax.default_backend() == "cpu" and not given.tiny:
        parser.error("no accelerator is here, and on a CPU this takes hours: use --tiny, or the other benchmarks.")
    parts = [part for part in every_part(given.tiny) if part.name == "bounds" or given.only in part.name]
    where = {**machine(), "devices": jax.device_count()}
    title = "Toy sizes on a CPU: no figure means anything." if given.tiny else "mcloop on an accelerator"
    print(title, ", ".join(f"{k} {v}" for k, v in where.items()), sep="\n", flush=True)
    began, shown = time.monotonic(), 0

    def show(rows: list[Row]) -> None:
        nonlocal shown
        for row in rows[shown:]:
            print(f"{time.monotonic() - began:5.0f} s", table([row]).splitlines()[-1], flush=True)
        shown = len(rows)
        if given.out is not None:
            write(given.out, where, title, rows)

    setting = Setting(given.tiny, compute_dtype() is not None, began + 60 * given.minutes, {})
    # toys are compiled longer than they run
    with optimized(not given.tiny):
        rows = measure(parts, setting, show)
    print("\n" + table(rows))
    return rows


if __name__ == "__main__":
    main()
