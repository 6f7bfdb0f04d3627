"""From archived segments to the tables, exactly once."""

from pipelines.compaction.driver import CompactReport, compact
from pipelines.compaction.plan import Gap, accept_gap
from pipelines.compaction.select import Reject

__all__ = ["CompactReport", "Gap", "Reject", "accept_gap", "compact"]
