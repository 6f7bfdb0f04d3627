"""Input files as raw record texts: found, unpacked and cut into records in bounded memory.

Nothing here knows what a session is; :mod:`archiver.legacy` reads the texts.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import IO, Final, cast

import zstandard

from archiver.errors import InputError

MAX_RECORD_BYTES: Final = 64 * 1024**2
BOMB_RATIO: Final = 250
BOMB_FLOOR_BYTES: Final = 256 * 1024**2
_SUFFIXES: Final = (".json", ".jsonl", ".ndjson")
_BUFFER_BYTES: Final = 1024**2


def input_files(paths: Sequence[Path]) -> list[Path]:
    """The files to read: named files, and in a directory every ``.json``, ``.jsonl``, ``.ndjson`` (.gz, .zst)."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(p for p in path.rglob("*") if p.is_file() and _inner_suffix(p) in _SUFFIXES)
        elif path.is_file():
            files.append(path)
        else:
            raise InputError("no such file or directory", operation="import", key=str(path))
    if not files:
        raise InputError(
            "nothing to import", operation="import", key=", ".join(map(str, paths)),
            hint=f"files end in {', '.join(_SUFFIXES)}, with or without .gz or .zst",
        )  # fmt: skip
    return files


def read_texts(path: Path, *, max_record_bytes: int = MAX_RECORD_BYTES) -> Iterator[tuple[int, bytes]]:
    """The records of a file as (line number, raw JSON text).

    A ``.json`` file is one record, everything else one record a line; blank lines are passed over.
    A text over the limit is cut one byte past it, so that the caller can tell. Raises InputError for a
    file that cannot be read, is damaged, or unpacks to more than 250 times its size.
    """
    try:
        with path.open("rb") as raw, _unpacked(raw, path) as stream:
            if _inner_suffix(path) == ".json":
                yield 1, stream.read(max_record_bytes + 1)
            else:
                yield from _lines(stream, max_record_bytes)
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise InputError(f"cannot be read: {error}", operation="import", key=str(path)) from error


def _lines(stream: IO[bytes], limit: int) -> Iterator[tuple[int, bytes]]:
    line = 0
    while text := stream.readline(limit + 1):
        line += 1
        rest = text
        while len(rest) > limit and not rest.endswith(b"\n"):
            rest = stream.readline(limit + 1)
        if text.strip():
            yield line, text


def _inner_suffix(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz").removesuffix(".zst")).suffix


def _unpacked(raw: IO[bytes], path: Path) -> IO[bytes]:
    """The file's content, unpacked if its first bytes say gzip or zstd, whatever it is called."""
    magic = raw.read(4)
    raw.seek(0)
    if magic[:2] == b"\x1f\x8b":
        source: IO[bytes] = cast("IO[bytes]", gzip.GzipFile(fileobj=raw))
    elif magic == b"\x28\xb5\x2f\xfd":
        decompressor = zstandard.ZstdDecompressor(max_window_size=2**27)
        source = cast("IO[bytes]", decompressor.stream_reader(raw, read_across_frames=True))
    else:
        return raw
    return cast("IO[bytes]", BufferedReader(_Bounded(source, path), _BUFFER_BYTES))


class _Bounded(RawIOBase):
    """An unpacking stream that refuses to yield far more than any text would."""

    def __init__(self, source: IO[bytes], path: Path) -> None:
        self._source = source
        self._path = path
        self._left = max(BOMB_FLOOR_BYTES, BOMB_RATIO * path.stat().st_size)

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer, counting what was unpacked."""
        data = self._source.read(len(buffer))
        buffer[: len(data)] = data
        self._left -= len(data)
        if self._left < 0:
            raise InputError(
                f"unpacks to more than {BOMB_RATIO} times its size", operation="import", key=str(self._path),
                hint="no conversation compresses like that; unpack it by hand if you trust it",
            )  # fmt: skip
        return len(data)
