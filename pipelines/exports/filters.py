"""Which sessions and rows an export is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import duckdb
import pyarrow as pa

from archiver.errors import InputError
from pipelines.derive import ACTOR_KINDS, DEFAULT_RULES, PAIR_KINDS, Rules
from pipelines.schema import SESSIONS

_OPERATION: Final = "export"


@dataclass(frozen=True, slots=True)
class ExportFilters:
    """Filters of an export; an absent one lets everything pass.

    Attributes:
        languages: Languages of the sessions.
        since_us: Earliest created_at of the sessions, in microseconds since 1970 UTC.
        until_us: First created_at that is too late.
        actor_kinds: Whose verdicts, prunes, ranks and injects count. Absent: human and auto verdicts,
            human choices.
        pair_kinds: Kinds of preference pairs.
        min_agreement: Least agreement of annotators; pairs without a measured agreement pass.
        where: SQL condition on the columns of the sessions table.
    """

    languages: tuple[str, ...] = ()
    since_us: int | None = None
    until_us: int | None = None
    actor_kinds: tuple[str, ...] = ()
    pair_kinds: tuple[str, ...] = ()
    min_agreement: float | None = None
    where: str | None = None

    def __post_init__(self) -> None:
        """Refuse what can never match: InputError names the value and what is permitted."""
        _check(self.actor_kinds, ACTOR_KINDS, "actor kind")
        _check(self.pair_kinds, PAIR_KINDS, "pair kind")
        if self.where is not None:
            matching_sessions(self.where, SESSIONS.schema.empty_table())

    @property
    def rules(self) -> Rules:
        """Whose acts count."""
        kinds = frozenset(self.actor_kinds)
        return Rules(verdict_kinds=kinds, choice_kinds=kinds) if kinds else DEFAULT_RULES

    def as_json(self) -> dict[str, Any]:
        """The filters as plain values."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    def session_reject(self, language: str | None, created_at_us: int) -> str | None:
        """The filter that holds a session back, None if none does; ``where`` apart."""
        if self.languages and language not in self.languages:
            return "filter_language"
        too_early = self.since_us is not None and created_at_us < self.since_us
        too_late = self.until_us is not None and created_at_us >= self.until_us
        return "filter_date" if too_early or too_late else None

    def row_reject(self, values: Mapping[str, Any]) -> str | None:
        """The filter that holds a row back, None if none does."""
        kind, agreement = values.get("pair_kind"), values.get("agreement")
        if self.pair_kinds and kind is not None and kind not in self.pair_kinds:
            return "filter_pair_kind"
        if self.min_agreement is not None and agreement is not None and agreement < self.min_agreement:
            return "filter_agreement"
        return None


def matching_sessions(where: str, sessions: pa.Table) -> set[str]:
    """The session_uids for which an SQL condition holds; InputError if it is no condition on these columns."""
    with duckdb.connect(config={"enable_external_access": "false", "lock_configuration": "true"}) as connection:
        connection.register("sessions", sessions)
        try:
            rows = connection.execute(f"SELECT session_uid FROM sessions WHERE ({where}\n)").fetchall()  # noqa: S608
        except duckdb.Error as error:
            raise InputError(
                f"is no condition on sessions: {error}", operation=_OPERATION, key=f"--where {where}",
                hint=f"columns are {', '.join(sessions.column_names)}",
            ) from error  # fmt: skip
    return {uid for (uid,) in rows}


def _check(values: Sequence[str], permitted: Sequence[str], what: str) -> None:
    for value in values:
        if value not in permitted:
            raise InputError(
                f"no such {what}", operation=_OPERATION, key=value, hint=f"permitted are {', '.join(permitted)}"
            )
