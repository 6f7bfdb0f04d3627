"""The hot store: live sessions in one SQLite database per host. The only package that imports sqlite3."""

from sqlite3 import Connection

from archiver.hot.store import HotStore

__all__ = ["Connection", "HotStore"]
