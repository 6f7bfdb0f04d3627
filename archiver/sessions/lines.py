"""One list of a live object, its messages or its interactions, and the stored rows its first items stand for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import tzinfo
from typing import Any

from archiver.hot.rows import MESSAGE, Changes, NewEvent, StoredEvent
from archiver.sessions import convert
from archiver.sessions.model import EventList, Watch


class Line:
    """The rows of one kind. Item i of the list stands for row i as long as rows go; later items are not stored yet.

    The list is passed in, not kept: the session alone holds its lists, and users may replace them.
    """

    def __init__(self, kind: int, assume_tz: tzinfo) -> None:
        self.kind = kind
        self._assume_tz = assume_tz
        self._watch = Watch()
        self._rows: list[StoredEvent] = []
        self.watched = EventList((), self._watch)

    def looks_untouched(self, items: list[Any]) -> bool:
        """True only if nothing can have changed; costs the same however long the list is."""
        watch = self._watch
        return not watch.touched and not watch.opened and items is self.watched and len(items) == len(self._rows)

    # ---------------------------------------------------------------- from the store to the object

    def absorb(self, items: list[Any], events: Sequence[StoredEvent]) -> None:
        """Put stored events behind those already known and before those not yet saved."""
        rows = [event for event in events if event.kind == self.kind]
        if not rows:
            return
        watch, make = self._watch, convert.message if self.kind == MESSAGE else convert.interaction
        at = len(self._rows)
        list.__setitem__(items, slice(at, at), [make(row, watch) for row in rows])
        self._rows += rows

    def forget(self, items: list[Any]) -> None:
        """Take out all items that stand for rows."""
        list.__delitem__(items, slice(0, len(self._rows)))
        self._rows.clear()
        self._watch.opened.clear()

    # ---------------------------------------------------------------- from the object to the store

    def collect(self, items: list[Any], changes: Changes) -> list[NewEvent]:
        """The items not stored yet, as checked events; edits and removals of stored ones go into ``changes``."""
        watch = self._watch
        touched, watch.touched = watch.touched, False
        try:
            if touched or items is not self.watched or any(map(convert.metadata_differs, watch.opened)):
                self._compare(items, changes)
            return [self._event(item, changes) for item in items[len(self._rows) :]]
        except BaseException:
            watch.touched = True
            raise

    def uncollect(self) -> None:
        """What was collected was not saved: the next save must compare again."""
        self._watch.touched = True

    def _compare(self, items: list[Any], changes: Changes) -> None:
        values_of = convert.turn_values if self.kind == MESSAGE else convert.act_values
        for row, item in zip(self._rows, items, strict=False):
            if values_of(item, self._assume_tz) != row[2:9]:
                changes.edits[row.seq] = self._event(item, changes)
                if getattr(item, "_watch", None) is not self._watch:
                    changes.replaced.add(row.seq)
        changes.removed += [row.seq for row in self._rows[len(items) :]]

    def _event(self, item: Any, changes: Changes) -> NewEvent:
        event, assumed = convert.event_of(item, self.kind, self._assume_tz)
        changes.tz_assumed |= assumed
        return event

    # ---------------------------------------------------------------- after a commit

    def accept(self, items: list[Any], changes: Changes) -> None:
        """The edits and removals of this save are stored now."""
        if not changes.rewrites:
            return
        gone = set(changes.removed)
        self._rows = [_edited(row, changes) for row in self._rows if row.seq not in gone]
        for row, item in zip(self._rows, items, strict=False):
            if row.seq in changes.edits:
                convert.bind(item, row, self._watch)

    def know(self, items: list[Any], events: Sequence[StoredEvent]) -> None:
        """The next items stand for these rows now."""
        rows = [event for event in events if event.kind == self.kind]
        for row, item in zip(rows, items[len(self._rows) :], strict=False):
            convert.bind(item, row, self._watch)
        self._rows += rows


def _edited(row: StoredEvent, changes: Changes) -> StoredEvent:
    event = changes.edits.get(row.seq)
    if event is None:
        return row
    client_id = None if row.seq in changes.replaced else row.client_id
    return StoredEvent._make((row.seq, row.kind, *event[1:8], client_id))
