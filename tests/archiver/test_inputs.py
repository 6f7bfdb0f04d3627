"""Input files: unpacked, cut into records, bounded."""

import gzip

import pytest
import zstandard

from archiver.errors import InputError
from archiver.inputs import BOMB_FLOOR_BYTES, input_files, read_texts

LINES = b'{"a": 1}\n\n  {"b": 2}\n{"c": 3}'


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.ZstdCompressor().compress])
def test_one_record_a_line_whatever_the_packing(tmp_path, pack):
    path = tmp_path / "x.jsonl"
    path.write_bytes(pack(LINES))
    assert [(n, t.strip()) for n, t in read_texts(path)] == [(1, b'{"a": 1}'), (3, b'{"b": 2}'), (4, b'{"c": 3}')]


def test_a_json_file_is_one_record(tmp_path):
    path = tmp_path / "session.json"
    path.write_bytes(b'{\n  "a": 1\n}\n')
    assert list(read_texts(path)) == [(1, b'{\n  "a": 1\n}\n')]


def test_an_oversized_line_is_cut_and_the_next_line_is_whole(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"x" * 1000 + b"\n" + b"short\n" + b"y" * 10 + b"\n")
    assert [(n, len(t)) for n, t in read_texts(path, max_record_bytes=10)] == [(1, 11), (2, 6), (3, 11)]


def test_a_bomb_is_refused(tmp_path):
    path = tmp_path / "bomb.jsonl.gz"
    with gzip.open(path, "wb") as file:
        for _ in range(BOMB_FLOOR_BYTES // 1024**2 + 2):
            file.write(b" " * 1024**2)
    with pytest.raises(InputError, match="250 times"):
        list(read_texts(path))


def test_a_truncated_file_names_itself(tmp_path):
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(gzip.compress(b"x" * 10_000 + b"\n")[:-10])
    with pytest.raises(InputError, match=r"cut\.jsonl\.gz"):
        list(read_texts(path))


def test_directories_are_searched_and_nothing_is_an_error(tmp_path):
    (tmp_path / "archive").mkdir()
    for name in ("b.json", "archive/a.json", "c.jsonl.zst", "notes.txt"):
        (tmp_path / name).write_bytes(b"{}")
    assert [p.name for p in input_files([tmp_path])] == ["a.json", "b.json", "c.jsonl.zst"]
    with pytest.raises(InputError, match="no such file"):
        input_files([tmp_path / "absent"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="nothing to import"):
        input_files([tmp_path / "empty"])
