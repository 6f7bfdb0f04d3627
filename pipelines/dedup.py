"""What must not be in a training set twice, in contradiction, or on both sides of a split.

Texts are compared in normal form (NFC, white space collapsed) by 128-bit digests. The decisions are
SQL over the digests of all rows, so their memory is bounded whatever the number of rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from pipelines import near
from pipelines.derive import Chat, norm_text

DIGEST: Final = pa.binary(16)
KEY_COLUMNS: Final = (
    pa.field("split_", pa.string(), nullable=False),
    pa.field("content_", DIGEST, nullable=False),
    pa.field("claim_", DIGEST),
    pa.field("side_", DIGEST),
    pa.field("prompts_", pa.list_(DIGEST), nullable=False),
    pa.field("signature_", pa.list_(pa.uint32())),
    pa.field("bands_", pa.list_(pa.int64()), nullable=False),
)
"""Columns that rows carry for :func:`decide`: their split; a digest of all they say; the question they
answer and their answer to it (one claim with two sides is a contradiction); the prompts they contain; what finds
prompts that nearly equal theirs (:mod:`pipelines.near`)."""

EVALUATION: Final = pa.schema(
    [
        pa.field("prompt", DIGEST, nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("signature", pa.list_(pa.uint32())),
        pa.field("bands", pa.list_(pa.int64()), nullable=False),
    ]
)
"""Prompts of validation and test sessions."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Parquet files of rows with KEY_COLUMNS, and of evaluation prompts; either may be empty."""

    rows: tuple[Path, ...]
    evaluation: tuple[Path, ...]


def digest(*parts: str) -> bytes:
    """Digest of texts in normal form; the borders between them count."""
    return _digest(norm_text(part) for part in parts)


def chat_digest(chat: Chat) -> bytes:
    """Digest of a chat: roles and texts in normal form."""
    return _digest(part for role, content in chat for part in (role, norm_text(content)))


def prompt_digest(chat: Chat) -> bytes:
    """Digest of what the user asked in a chat: the user turns alone, because answers to one question differ."""
    return _digest(norm_text(content) for role, content in chat if role == "user")


def prompt_digests(chat: Chat) -> list[bytes]:
    """:func:`prompt_digest` of every prompt that a chat answers: its starts that end before an assistant turn."""
    ends = [i for i, (role, _) in enumerate(chat) if role == "assistant" and i and chat[i - 1][0] != "assistant"]
    return list(dict.fromkeys(prompt_digest(chat[:end]) for end in ends))


def join(*digests: bytes) -> bytes:
    """One digest of several."""
    return hashlib.sha256(b"\x1f".join(digests)).digest()[:16]


def _digest(parts: Iterable[str]) -> bytes:
    return hashlib.sha256("\x1f".join(parts).encode()).digest()[:16]


def decide(connection: duckdb.DuckDBPyConnection, sources: Sources) -> None:
    """Create the table ``dropped`` (row_id, reason): rows that must not be published.

    In this order: all copies of a ``contradiction``; of equal rows of one split all but the smallest
    row_id (``duplicate``); train rows that contain a prompt of a validation or test session, and
    validation rows that contain one of a test session (``leakage``); the same for prompts that nearly
    equal one (``near_leakage``), where rows have signatures.
    """
    _view(connection, "rows_", sources.rows, "SELECT NULL::VARCHAR AS row_id LIMIT 0")
    _view(connection, "evaluation_", sources.evaluation, _NO_EVALUATION)
    connection.execute(_TABLE).fetchall()  # fetching ends the statement; execute alone need not
    if sources.rows:
        for statement in (_CONTRADICTIONS, _DUPLICATES, _LEAKS):
            connection.execute(statement).fetchall()
        connection.execute(_NEAR_LEAKS, [near.SIMILARITY]).fetchall()


_TABLE: Final = "CREATE TABLE dropped (row_id VARCHAR PRIMARY KEY, reason VARCHAR NOT NULL)"
_CONTRADICTIONS: Final = """
    INSERT INTO dropped
    SELECT row_id, 'contradiction' FROM rows_
    WHERE claim_ IN (SELECT claim_ FROM rows_ GROUP BY claim_ HAVING count(DISTINCT side_) > 1)"""
_DUPLICATES: Final = """
    INSERT INTO dropped
    SELECT row_id, 'duplicate' FROM (
        SELECT row_id, row_number() OVER (PARTITION BY split_, content_ ORDER BY row_id) AS copy
        FROM rows_ ANTI JOIN dropped USING (row_id))
    WHERE copy > 1"""
_LEAKS: Final = """
    INSERT INTO dropped
    SELECT DISTINCT row_id, 'leakage' FROM (
        SELECT row_id, split_, unnest(prompts_) AS prompt FROM rows_ ANTI JOIN dropped USING (row_id))
    JOIN (SELECT DISTINCT prompt, split FROM evaluation_) USING (prompt)
    WHERE split_ = 'train' OR (split_ = 'validation' AND split = 'test')"""

_NEAR_LEAKS: Final = """
    INSERT INTO dropped
    SELECT DISTINCT row_id, 'near_leakage' FROM (
        SELECT row_id, split_, signature_, unnest(bands_) AS band FROM rows_ ANTI JOIN dropped USING (row_id))
    JOIN (SELECT DISTINCT split, signature, unnest(bands) AS band FROM evaluation_) USING (band)
    WHERE (split_ = 'train' OR (split_ = 'validation' AND split = 'test'))
    AND len(list_filter(list_zip(signature_, signature), lambda pair: pair[1] = pair[2]))
        >= $1 * len(signature_)"""
_NO_EVALUATION: Final = """
    SELECT NULL::BLOB AS prompt, '' AS split, NULL::UINTEGER[] AS signature, NULL::BIGINT[] AS bands LIMIT 0"""


def _view(connection: duckdb.DuckDBPyConnection, name: str, files: tuple[Path, ...], empty: str) -> None:
    relation = connection.read_parquet([str(file) for file in files]) if files else connection.sql(empty)
    relation.create_view(name)


def kept_rows(
    connection: duckdb.DuckDBPyConnection, columns: Iterable[str], split: str, *, batch_rows: int = 4096
) -> Iterator[pa.RecordBatch]:
    """Rows of a split that :func:`decide` kept, in the order of row_id; the sort spills to disk."""
    if connection.execute("SELECT count(*) FROM rows_").fetchall() == [(0,)]:
        return  # without rows there was no file to take the columns from
    wanted = ", ".join(f'"{column}"' for column in columns)
    query = f"SELECT {wanted} FROM rows_ ANTI JOIN dropped USING (row_id) WHERE split_ = ? ORDER BY row_id"  # noqa: S608
    batches: Any = connection.sql(query, params=[split]).to_arrow_reader(batch_rows)
    yield from batches
