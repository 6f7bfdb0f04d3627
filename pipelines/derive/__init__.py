"""What a session's interactions mean: node states, verdicts, and the rows that follow from them."""

from pipelines.derive.acts import Act, Session, Turn, actor_columns
from pipelines.derive.replay import DEFAULT_RULES, Rules, replay
from pipelines.derive.tables import TableRows, table_rows

__all__ = ["DEFAULT_RULES", "Act", "Rules", "Session", "TableRows", "Turn", "actor_columns", "replay", "table_rows"]
