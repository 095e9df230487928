"""How data is remembered: weighted rows in an array, or shards on disk."""

from mcloop.memory.rows import Rows, rows, rows_memory

__all__ = ["Rows", "rows", "rows_memory"]
