"""What a session's interactions mean: node states, verdicts, and the rows that follow from them."""

from pipelines.derive.acts import ACTOR_KINDS, Act, Session, Turn, actor_columns, decode_object
from pipelines.derive.context import Chat, Reject, Row
from pipelines.derive.pairs import PAIR_KINDS
from pipelines.derive.replay import DEFAULT_RULES, Rules, replay
from pipelines.derive.rows import Derived, training_rows
from pipelines.derive.tables import TableRows, table_rows
from pipelines.derive.texts import norm_text

__all__ = [
    "ACTOR_KINDS",
    "DEFAULT_RULES",
    "PAIR_KINDS",
    "Act",
    "Chat",
    "Derived",
    "Reject",
    "Row",
    "Rules",
    "Session",
    "TableRows",
    "Turn",
    "actor_columns",
    "decode_object",
    "norm_text",
    "replay",
    "table_rows",
    "training_rows",
]
