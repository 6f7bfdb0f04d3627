"""A wake-up between processes: whoever waits for the gate sleeps until whoever leaves it rings."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import sys
import time
from collections.abc import Callable
from typing import Final

_BYTES: Final = 8
_SYSCALL_FUTEX: Final = {"x86_64": 202, "aarch64": 98}
_FUTEX_WAIT: Final = 0
_FUTEX_WAKE: Final = 1
_NAP_SECONDS: Final = 100e-6


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class Doorbell:
    """Two words in a file that all processes map: 1 while somebody waits to be woken, and turns taken by such.

    Only hints: who is woken must try again, and a wait ends by itself. The standard library has no
    wait between processes with a deadline (a blocking flock has none), the kernel has: a futex.
    """

    def __init__(self, fd: int) -> None:
        if os.fstat(fd).st_size < _BYTES:
            os.write(fd, bytes(_BYTES))
        self._map = mmap.mmap(fd, _BYTES)
        self._word = ctypes.c_uint32.from_buffer(self._map)
        self._turns = ctypes.c_uint32.from_buffer(self._map, 4)
        self._futex = _futex(ctypes.addressof(self._word))

    @property
    def awaited(self) -> bool:
        """Whether somebody waits, or is about to."""
        return bool(self._word.value)

    @property
    def turns(self) -> int:
        """Rises whenever one that has waited gets its turn."""
        return self._turns.value

    def take_turn(self) -> None:
        """Count a turn. For whoever has waited and holds the gate now."""
        self._turns.value += 1

    def announce(self) -> None:
        """Say that the caller is about to wait. Between this and :meth:`wait` it must try once more."""
        self._word.value = 1

    def wait(self, seconds: float) -> None:
        """Sleep until somebody rings, at most so long; not at all if somebody has rung since the announcement."""
        if self._futex is None:
            time.sleep(min(seconds, _NAP_SECONDS))
        else:
            self._futex(_FUTEX_WAIT, 1, ctypes.byref(_Timespec(int(seconds), int(seconds % 1 * 1e9))))

    def ring(self) -> None:
        """Wake one that waits."""
        self._word.value = 0
        if self._futex is not None:
            self._futex(_FUTEX_WAKE, 1, None)

    def close(self) -> None:
        """Give the memory back, and the descriptor that Python keeps for it."""
        del self._word, self._turns
        self._map.close()


def _futex(address: int) -> Callable[[int, int, object], int] | None:
    """The system call on the word at this address; None where it is not known to exist."""
    number = _SYSCALL_FUTEX.get(platform.machine())
    if number is None or sys.platform != "linux":
        return None
    call = ctypes.CDLL(None).syscall
    call.argtypes = (ctypes.c_long, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p)
    return lambda operation, value, timeout: call(number, address, operation, value, timeout)
