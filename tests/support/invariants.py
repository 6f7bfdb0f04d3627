"""What must hold for every export, as SQL over its files: each query counts the rows that break its rule."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import duckdb

_BLANK = "regexp_full_match({0}, '[\\s\\p{{Z}}]*')"
_BAD_PROMPT: Final = {
    "a prompt ends in a user turn": "SELECT count(*) FROM rows WHERE prompt[-1].role <> 'user'",
    "no message of a prompt is empty": f"""
        SELECT count(*) FROM rows, unnest(prompt) m(m) WHERE {_BLANK.format("m.content")}""",
}
_EVERY: Final = {
    "row_id is unique": "SELECT count(*) - count(DISTINCT row_id) FROM rows",
    "row_id is sorted within a file": """
        SELECT count(*) FROM (SELECT row_id < lag(row_id) OVER (PARTITION BY filename ORDER BY file_row_number) AS back
                              FROM rows) WHERE back""",
    "a session is in one split": """
        SELECT count(*) FROM (SELECT session_uid FROM rows GROUP BY ALL HAVING count(DISTINCT split) > 1)""",
}
INVARIANTS: Final[Mapping[str, Mapping[str, str]]] = {
    "sft": {
        **_EVERY,
        "ends in an assistant turn": "SELECT count(*) FROM rows WHERE messages[-1].role <> 'assistant'",
        "no message is empty": f"SELECT count(*) FROM rows, unnest(messages) m(m) WHERE {_BLANK.format('m.content')}",
        "has a user turn": "SELECT count(*) FROM rows WHERE len(list_filter(messages, lambda m: m.role = 'user')) = 0",
        "no copies in one split": "SELECT count(*) - count(DISTINCT (split, messages)) FROM rows",
    },
    "preferences": {
        **_EVERY, **_BAD_PROMPT,
        "answers are one assistant message": """
            SELECT count(*) FROM rows WHERE len(chosen) <> 1 OR len(rejected) <> 1
            OR chosen[1].role <> 'assistant' OR rejected[1].role <> 'assistant'""",
        "answers are not empty": f"""
            SELECT count(*) FROM rows WHERE {_BLANK.format('chosen[1].content')}
            OR {_BLANK.format('rejected[1].content')}""",
        "chosen and rejected differ": r"""
            SELECT count(*) FROM rows WHERE regexp_replace(trim(nfc_normalize(chosen[1].content)), '\s+', ' ', 'g')
            = regexp_replace(trim(nfc_normalize(rejected[1].content)), '\s+', ' ', 'g')""",
        "no pair in both directions": """
            SELECT count(*) FROM rows a JOIN rows b
            ON a.prompt = b.prompt AND a.chosen = b.rejected AND a.rejected = b.chosen""",
        "no answer stands in its prompt": """
            SELECT count(*) FROM rows, unnest(prompt) m(m)
            WHERE m.content IN (chosen[1].content, rejected[1].content)""",
        "margin in (0, 1]": "SELECT count(*) FROM rows WHERE NOT (margin > 0 AND margin <= 1)",
        "agreement belongs to survivors": """
            SELECT count(*) FROM rows WHERE (agreement IS NOT NULL) <> (pair_kind = 'survivor_over_pruned')
            OR agreement <= 0.5 OR agreement > 1""",
        "known kinds": """
            SELECT count(*) FROM rows WHERE pair_kind NOT IN
            ('inject_over_pruned', 'survivor_over_pruned', 'verdict_order', 'rank')""",
    },
    "unpaired": {
        **_EVERY, **_BAD_PROMPT,
        "an answer is one assistant message": """
            SELECT count(*) FROM rows WHERE len(completion) <> 1 OR completion[1].role <> 'assistant'""",
        "no answer with both labels": """
            SELECT count(*) FROM (SELECT prompt, completion FROM rows GROUP BY ALL HAVING count(DISTINCT label) > 1)""",
    },
    "stepwise": {
        **_EVERY,
        "a label for every step": """
            SELECT count(*) FROM rows WHERE len(labels) <> len(completions)
            OR len(node_refs) <> len(labels) OR len(labels) = 0""",
        "false only last": "SELECT count(*) FROM rows WHERE list_contains(labels[:-2], false)",
        "no step is empty": f"SELECT count(*) FROM rows, unnest(completions) s(s) WHERE {_BLANK.format('s')}",
        "a prompt is not empty": f"SELECT count(*) FROM rows WHERE {_BLANK.format('prompt')}",
    },
    "prompts": {
        **_EVERY, **_BAD_PROMPT,
        "unique": "SELECT count(*) - count(DISTINCT prompt) FROM rows",
    },
}  # fmt: skip
ACROSS_SPLITS: Final = {
    "sft": "list_filter(messages[:-2], lambda m: m.role = 'user')",
    "preferences": "prompt", "unpaired": "prompt", "stepwise": "prompt", "prompts": "prompt",
}  # fmt: skip


def violations(set_name: str, directory: Path) -> dict[str, int]:
    """The rules that the Parquet files of an export break, and by how many rows."""
    with duckdb.connect() as connection:
        connection.execute(f"""
            CREATE VIEW rows AS SELECT *, regexp_extract(filename, '(train|validation|test)-\\d+-of', 1) AS split
            FROM read_parquet('{directory}/*.parquet', filename = true, file_row_number = true)""")
        counts = {rule: connection.execute(sql).fetchall()[0][0] for rule, sql in INVARIANTS[set_name].items()}
        prompt = ACROSS_SPLITS[set_name]
        across = f"""
            SELECT count(*) FROM (SELECT {prompt} AS p FROM rows GROUP BY p HAVING count(DISTINCT split) > 1)"""
        counts["no prompt in two splits"] = connection.execute(across).fetchall()[0][0]
    return {rule: count for rule, count in counts.items() if count}
