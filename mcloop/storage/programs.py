"""Compiled programs that outlive a process: what one run has compiled, the next one reads."""

from __future__ import annotations

import hashlib
import os
import platform
from contextlib import suppress
from pathlib import Path

import jax

from mcloop.storage.places import cache_folder

_MOST = 2**31  # bytes kept; beyond them the oldest programs go
_SECONDS = 0.5  # of compilation, from which a program is worth keeping


def keep_programs(wanted: bool = True) -> None:
    """Let JAX keep what it compiles, and read what it has kept, in a folder of the user's cache for this kind of machine.

    A program is found by a digest of itself, of its options and of the versions of JAX and XLA, so that one that differs in
    anything is compiled. A user's own choice for JAX stays what it is (JAX_COMPILATION_CACHE_DIR,
    JAX_ENABLE_COMPILATION_CACHE=0).

    Args:
        wanted: False keeps and reads nothing.
    """
    if not wanted:
        jax.config.update("jax_enable_compilation_cache", False)
        return
    if jax.config.jax_compilation_cache_dir is not None or not jax.config.jax_enable_compilation_cache:
        return
    folder = cache_folder() / "programs" / _machine()
    with suppress(OSError):  # a cache that cannot be written costs time, and nothing else
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        forget_oldest(folder, _MOST)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _SECONDS)


def forget_oldest(folder: Path, most: int) -> None:
    """Remove the oldest files of a folder until the rest are at most `most` bytes."""
    found = []
    for path in folder.iterdir():
        with suppress(OSError):  # another process may remove it too
            found.append((path.stat().st_mtime, path.stat().st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= most:
            return
        with suppress(OSError):
            path.unlink()
        total -= size


def _machine() -> str:
    """A name for machines that can run each other's programs: a home may be shared by several that cannot."""
    told = [platform.system(), platform.machine()]
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        told += sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
    return hashlib.sha256(os.linesep.join(told).encode()).hexdigest()[:16]
