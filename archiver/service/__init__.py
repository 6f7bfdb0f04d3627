"""The archiver's loop: expire, seal, push, release; once, or for ever beside the application."""

from archiver.service.identity import new_archiver, retire_archiver
from archiver.service.status import StatusReport, status
from archiver.service.sweeping import Failure, SweepReport, sweep
from archiver.service.watching import Outlets, WatchReport, until_signalled, watch

__all__ = [
    "Failure",
    "Outlets",
    "StatusReport",
    "SweepReport",
    "WatchReport",
    "new_archiver",
    "retire_archiver",
    "status",
    "sweep",
    "until_signalled",
    "watch",
]
