"""What the parts of the hot store need of it: short transactions, and a way to make many durable at once."""

from __future__ import annotations

import sqlite3
from contextlib import AbstractContextManager
from typing import Protocol

from archiver.settings import Durability


class Transactions(Protocol):
    """Something that reads and writes one ``hot.db``."""

    def transaction(self, *, durability: Durability | None = None) -> AbstractContextManager[sqlite3.Connection]:
        """A write transaction of its own, durable as asked when the block ends."""
        ...

    def bulk_transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        """One of many write transactions in a row: it lets others go first, and survives the process only."""
        ...

    def reader(self) -> AbstractContextManager[sqlite3.Connection]:
        """A short read transaction."""
        ...

    def flush(self) -> None:
        """Return when everything committed so far survives power loss."""
        ...
