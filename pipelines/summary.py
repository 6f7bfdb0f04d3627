"""The table feedback_summary, from partial counts that add up.

A session's verdicts lie in one task or one file, so its counts and n_sessions add up over parts; users
do not, so parts carry them by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from archiver.events import VERDICTS
from pipelines.schema import FEEDBACK_SUMMARY

ROLLED_UP: Final = "*"
UNDETERMINED: Final = "und"
GRAINS: Final = {
    "full": (),
    "all_languages": ("language",),
    "all_actions": ("action_type",),
    "all": ("language", "action_type"),
}
"""Grain and the columns it rolls up."""

INPUT_COLUMNS: Final = (
    "session_uid", "user_id", "language", "action_type", "label", "actor_kind", "level", "is_latest",
)  # fmt: skip
_GROUP: Final = ("dt", "language", "actor_kind", "level", "action_type")
_KEYS: Final = ["grain", *_GROUP]
_WILSON_Z: Final = 1.959963984540054

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Partial:
    """Latest verdicts of some sessions, counted.

    Attributes:
        counts: grain, _GROUP, n, correct, incorrect, partial, n_sessions.
        users: _GROUP, user_id: each once; coarser grains follow from it.
    """

    counts: pa.Table
    users: pa.Table

    @property
    def dates(self) -> list[str]:
        """The dates it counts."""
        found: list[str] = pc.unique(self.counts["dt"]).to_pylist()
        return found


def partial(feedback: pa.Table, dts: pa.Array) -> Partial:
    """Count the latest verdicts among ``feedback`` (INPUT_COLUMNS) of whole sessions; ``dts``: the date of each row."""
    is_latest = feedback["is_latest"]
    latest = feedback.filter(is_latest)
    text = pa.string()
    names = ("actor_kind", "level", "action_type", "session_uid", "user_id")
    columns = {name: latest[name].cast(text) for name in names}
    columns["language"] = latest["language"].cast(text).fill_null(UNDETERMINED)
    columns["dt"] = dts.filter(is_latest.combine_chunks())
    columns |= {v: pc.equal(latest["label"], v).cast(pa.int64()) for v in VERDICTS}
    rows = pa.table(columns)
    counts = [_counted(_rolled_up(rows, grain)) for grain in GRAINS]
    named = rows.filter(rows["user_id"].is_valid())
    users = named.group_by([*_GROUP, "user_id"], use_threads=False).aggregate([])
    return Partial(pa.concat_tables(counts), users)


def _rolled_up(rows: pa.Table, grain: str) -> pa.Table:
    """The rows with the grain's name, and a sign in place of what it does not tell apart."""
    for name in GRAINS[grain]:
        sign = pa.repeat(ROLLED_UP, rows.num_rows)
        rows = rows.set_column(rows.schema.get_field_index(name), name, sign)
    return rows.append_column("grain", pa.repeat(grain, rows.num_rows))


def _counted(rows: pa.Table) -> pa.Table:
    counts = rows.group_by(_KEYS, use_threads=False).aggregate(
        [([], "count_all"), *((v, "sum") for v in VERDICTS), ("session_uid", "count_distinct")]
    )
    counts = counts.select([*_KEYS, "count_all", *(f"{v}_sum" for v in VERDICTS), "session_uid_count_distinct"])
    return counts.rename_columns([*_KEYS, "n", *VERDICTS, "n_sessions"])


def summarise(partials: Sequence[Partial]) -> dict[str, pa.Table]:
    """Rows of feedback_summary for every date that the parts, which must be all of it, hold."""
    if not partials:
        return {}
    counts = pa.concat_tables(p.counts for p in partials)
    names = ["n", *VERDICTS, "n_sessions"]
    summed = counts.group_by(_KEYS, use_threads=False).aggregate([(n, "sum") for n in names])
    summed = summed.select([*_KEYS, *(f"{n}_sum" for n in names)]).rename_columns([*_KEYS, *names])
    users = pa.concat_tables(p.users for p in partials)
    distinct = pa.concat_tables(_distinct_users(_rolled_up(users, grain)) for grain in GRAINS)
    joined = summed.join(distinct, _KEYS, join_type="left outer", use_threads=False)
    rows = _with_rates(joined).sort_by([(k, "ascending") for k in FEEDBACK_SUMMARY.sort_keys])
    return {dt: rows.filter(pc.equal(rows["day"], dt)) for dt in pc.unique(rows["day"]).to_pylist()}


def _distinct_users(users: pa.Table) -> pa.Table:
    return users.group_by(_KEYS, use_threads=False).aggregate([("user_id", "count_distinct")])


def _with_rates(joined: pa.Table) -> pa.Table:
    n = joined["n"].to_numpy().astype(np.float64)
    columns = {name: joined[name] for name in ("grain", *_GROUP[1:], "n", *VERDICTS, "n_sessions")}
    columns["day"] = joined["dt"]
    columns["n_users"] = joined["user_id_count_distinct"].fill_null(0)
    for verdict in VERDICTS:
        low, rate, high = _wilson(joined[verdict].to_numpy().astype(np.float64), n)
        columns |= {f"rate_{verdict}": rate, f"rate_{verdict}_low": low, f"rate_{verdict}_high": high}
    correct, some = joined["correct"].to_numpy(), joined["partial"].to_numpy()
    columns["mean_score"] = (correct + some / 2) / n
    names = FEEDBACK_SUMMARY.schema.names
    return pa.table([columns[name] for name in names], schema=FEEDBACK_SUMMARY.schema)


def _wilson(hits: Floats, n: Floats) -> tuple[Floats, Floats, Floats]:
    """Wilson score interval of hits / n at 95 %: (low, rate, high)."""
    rate = hits / n
    z2 = _WILSON_Z**2
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = _WILSON_Z * np.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    low = np.where(hits == 0, 0, np.maximum(centre - half, 0))  # exact where rounding would leave 1e-18
    high = np.where(hits == n, 1, np.minimum(centre + half, 1))
    return low, rate, high
