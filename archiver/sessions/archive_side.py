"""What a manager needs of the archive, loaded when it is first needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archiver.hot import HotStore
from archiver.settings import Settings

if TYPE_CHECKING:
    from archiver.events import SessionRecord
    from archiver.objects import ObjectStore
    from archiver.service import SweepReport


class ArchiveSide:
    """Sweeping and restoring for one store. Importing it costs nothing: Parquet and S3 load on first use."""

    def __init__(self, hot: HotStore, settings: Settings) -> None:
        self._hot = hot
        self._settings = settings
        self._objects: ObjectStore | None = None

    def sweep(self, now_us: int) -> SweepReport:
        """Expire, seal, push and release once; see :func:`archiver.service.sweep`."""
        from archiver import service  # noqa: PLC0415  half a second that a chat handler never needs

        return service.sweep(self._hot, self._store(), self._settings, now_us=now_us)

    def restore(self, session_id: str, now_us: int) -> bool:
        """Make an archived session live again; False if the archive has none of that id."""
        from archiver import restore  # noqa: PLC0415

        return restore.restore_session(self._hot, self._store(), session_id, now_us=now_us)

    def find(self, session_id: str) -> SessionRecord | None:
        """Read the newest archived conversation of an id without restoring it."""
        from archiver import restore  # noqa: PLC0415

        return restore.find_record(self._hot, self._store(), session_id)

    def take_on(self, session_uid: str, revision: int) -> None:
        """Enter this host as the one that continues a restored session; SessionConflictError if another does."""
        from archiver import restore  # noqa: PLC0415

        restore.continue_session(self._store(), self._hot.archiver_id, session_uid, revision=revision)

    def _store(self) -> ObjectStore:
        if self._objects is None:
            from archiver.objects import open_store  # noqa: PLC0415

            self._objects = open_store(self._settings.storage)
        return self._objects
