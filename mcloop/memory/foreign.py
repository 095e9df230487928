"""A model that mcloop did not write, as a loop hands it on: an object, and the data by which another process gets it again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from mcloop.errors import own
from mcloop.memory.shards import Shards
from mcloop.storage.checkpoints import Damaged
from mcloop.storage.files import sha256


class Saved(NamedTuple):
    """Where a model was saved by its owner's function: a folder, and file -> SHA-256 of all that is in it."""

    folder: Path
    files: dict[str, str]


@jax.tree_util.register_pytree_node_class
class Held:
    """What hangs on parameters and is no array. It has no leaves, and is never read by a compiled program.

    Args:
        trained: what the model was fitted on.
        model: the object; None in a process that has not made it again.
        keep: (model, folder) -> None, which saves it; None where nothing can.
        saved: where that was done.
        anew: whether the fit began with a new object, so that it can be made again from its data.
    """

    def __init__(
        self,
        trained: Shards,
        model: Any = None,
        keep: Callable[[Any, Path], None] | None = None,
        saved: Saved | None = None,
        anew: bool = True,
    ) -> None:
        self.trained, self.model, self.keep, self.saved, self.anew = trained, model, keep, saved, anew

    def tree_flatten(self):
        """No leaves; itself beside them."""
        return (), self

    @classmethod
    def tree_unflatten(cls, held, leaves):
        """The same object: there is nothing to put together."""
        return held

    def mcloop_identity(self) -> None:
        """What a model was fitted on follows from the rest of a loop."""

    def on_disk(self, trained: Shards, folder: Path) -> Held:
        """The same with its data mapped, and, where that can be done, the model saved."""
        if self.keep is None or self.saved is not None or self.model is None:
            return Held(trained, self.model, self.keep, self.saved, self.anew)
        shutil.rmtree(folder, ignore_errors=True)  # of a process that died while it saved
        folder.mkdir(parents=True)
        keep, model = self.keep, self.model
        own(lambda: keep(model, folder), "save")
        return Held(trained, self.model, self.keep, Saved(folder, _sums(folder)), self.anew)

    def note(self) -> dict[str, Any]:
        """What JSON holds of it beside its data."""
        saved = None if self.saved is None else {"folder": self.saved.folder.name, "files": self.saved.files}
        return {"anew": self.anew, "saved": saved}


class Foreign(NamedTuple):
    """The parameters of a model that mcloop did not write.

    Attributes:
        ticket: uint32 (5,): the seed of its fit, and a digest of all that it follows from, by which its draws are known.
        held: the rest of it.
    """

    ticket: Any
    held: Held


def read_held(trained: Shards, note: dict[str, Any], folder: Path, keep) -> Held:
    """What hung on parameters that were noted so, without the object.

    Raises:
        Damaged: a file of the saved model is missing, or is not what was written.
    """
    saved = note["saved"]
    if saved is not None and _sums(folder / saved["folder"]) != saved["files"]:
        raise Damaged(f"its model in {saved['folder']!r} was changed or is missing")
    kept = None if saved is None else Saved(folder / saved["folder"], saved["files"])
    return Held(trained, None, keep, kept, note["anew"])


def _sums(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}
