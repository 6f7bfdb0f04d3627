"""The dataset card: what `datasets` needs to load an export, and what a person needs to judge it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pipelines.schema import Dataset

_HOW: Final = {
    "sft": (
        "The chat of a session up to its last assistant turn. Left out: chats with an empty message, and chats in "
        "which an assistant turn was judged incorrect, is the text of a path with a pruned, incorrect or disputed "
        "node, or in which an incorrect verdict names no message."
    ),
    "preferences": (
        "Two children of one node of the reasoning graph, each with its whole path as the answer. The preferred one "
        "was injected over the pruned one (`inject_over_pruned`, margin 1), survived when annotators pruned the other "
        "(`survivor_over_pruned`, margin = share of annotators), was judged better (`verdict_order`, margin 0.5 for "
        "one step of correct, partial, incorrect, 1 for two) or ranked better by one person (`rank`, margin 0.5). "
        "The preferred path holds nothing pruned, incorrect or disputed."
    ),
    "unpaired": (
        "Whole answers that were judged correct or incorrect, and incorrect steps with the path that led to them. "
        "Partial and disputed verdicts give no row; a correct step inside an answer gives none either."
    ),
    "stepwise": (
        "The steps of a path from the first one on, as long as each was judged, up to and including the first "
        "incorrect one. A verdict on the final outcome labels no step; an injected step that stayed counts as correct."
    ),
    "prompts": "The chat of a session up to its last user turn, each prompt once.",
}
_LIMITS: Final = (
    "Verdicts of one person are not independent of each other; a person's sessions are all in one split.",
    "Redaction finds what has a form (addresses, numbers, keys); it does not find names or postal addresses.",
    "Prompts are compared exactly, after Unicode normalisation and with white space collapsed.",
    "Answers are kept as they were given: texts may hold chat-template markers, code or markup.",
)


def card(dataset: Dataset, manifest: Mapping[str, Any]) -> str:
    """The text of README.md."""
    splits = [(name, info["rows"]) for name, info in manifest["splits"].items()]
    parts = [
        _front_matter(dataset, manifest, [name for name, _ in splits]),
        f"# {dataset.name}: one row per {dataset.rows}\n",
        _HOW[dataset.name] + "\n",
        "## Splits\n",
        _table(("split", "rows"), splits),
        "Splits are fixed by user (by session where no user is known). No prompt of a test session is in validation "
        "or train, none of a validation session in train.\n",
        "## Columns\n",
        _table(("column", "type", "meaning"), _columns(dataset)),
        "## Rows by language\n",
        _table(("language", "rows"), manifest["rows_by_language"].items()),
        *(["## Rows by source of judgement\n", _table(("judged by", "rows"), manifest["rows_by_judge"].items())]
          if manifest["rows_by_judge"] else []),
        *(["## Rows by kind of pair\n", _table(("kind", "rows"), manifest["rows_by_pair_kind"].items())]
          if manifest["rows_by_pair_kind"] else []),
        "## What was left out\n",
        _table(("reason", "count"), _left_out(manifest)),
        "Sessions and candidates are listed one by one in `rejects.jsonl.gz`.\n",
        "## Personal data\n",
        _redaction(manifest),
        f"{manifest['rows_on_default_consent']} rows rest on the default consent "
        f"`{manifest['settings']['consent_default']}`: their sessions state none.\n",
        "## Known limits\n",
        "\n".join(f"- {limit}" for limit in _LIMITS) + "\n",
        "## Provenance\n",
        f"Made by sessionlake {manifest['code_version']} from table version {manifest['table_version']}; "
        "`manifest.json` has settings, counts and the sha256 of every file.\n",
    ]  # fmt: skip
    return "\n".join(parts)


def _front_matter(dataset: Dataset, manifest: Mapping[str, Any], splits: Iterable[str]) -> str:
    suffix = manifest["settings"]["file_format"]
    lines = ["---", f"pretty_name: {dataset.name}", "configs:", f"- config_name: {dataset.name}", "  default: true"]
    lines.append("  data_files:")
    for split in splits:
        lines += [f"  - split: {split}", f"    path: {split}-*.{suffix}"]
    return "\n".join([*lines, "---", ""])


def _columns(dataset: Dataset) -> Iterable[tuple[str, str, str]]:
    for field in dataset.schema:
        kind = str(field.type).replace("element: ", "").replace(" not null", "")
        yield field.name, f"`{kind}`", field.metadata[b"description"].decode()


def _left_out(manifest: Mapping[str, Any]) -> Iterable[tuple[str, int]]:
    for group in ("filtered_sessions", "rejected", "filtered_rows", "dropped_rows"):
        yield from ((f"{name}", count) for name, count in manifest[group].items())


def _redaction(manifest: Mapping[str, Any]) -> str:
    if manifest["settings"]["redactor"] == "none":
        return "Nothing was redacted.\n"
    text = "Replaced by placeholders such as `<EMAIL_1>`, numbered within a session; identifiers by keyed hashes.\n"
    return f"{text}\n{_table(('type', 'placeholders'), manifest['redactions'].items())}"


def _table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """The text of manifest.json."""
    return json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
