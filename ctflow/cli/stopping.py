"""Ctrl-C and SIGTERM end a verb, at whatever moment they come."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

#: Wakes the main thread. Ignored by default, so that none which comes too late does harm.
_WAKE = signal.SIGURG
#: Seconds between two of them, and how many are sent at most for one signal.
_PAUSE = 0.05
_TIMES = 200
#: How often the handler has run; where the thread is told of signals, once there is one.
_heard = 0
_told: int | None = None


class Stop(KeyboardInterrupt):
    """Ctrl-C or SIGTERM.

    Not an Exception: a library that catches those on its way would swallow it and go on. Not
    KeyboardInterrupt itself: where that passes an ``exec`` of text (a dataclass that is just being
    made), CPython remembers it, and dies of SIGINT at the end although it was caught.
    """


def listen() -> None:
    """Let SIGTERM and, where it is not to be ignored, Ctrl-C raise ``Stop`` in the main thread.

    Python runs a signal's handler between two steps of the main thread. A signal that comes after
    the last step before a wait for another thread is noted only, and the wait goes on for as long
    as the other thread works; on a busy machine this is common, as the main thread may stand there
    until it gets a core. So a thread is told of each signal (``signal.set_wakeup_fd``), and wakes
    the main thread until the handler has run.
    """
    global _told
    if _told is None:
        read, _told = os.pipe()
        os.set_blocking(_told, False)
        main = threading.main_thread().ident
        threading.Thread(target=_wake, args=(read, main), name="signals", daemon=True).start()
    signal.set_wakeup_fd(_told, warn_on_full_buffer=False)
    signal.signal(_WAKE, lambda number, frame: None)
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is to be ignored
        signal.signal(signal.SIGINT, _stop)


def _stop(signum: int, frame: FrameType | None) -> None:
    global _heard
    _heard += 1
    raise Stop


def _wake(read: int, main: int) -> None:
    seen = _heard
    while number := os.read(read, 1):
        if number[0] not in (signal.SIGTERM, signal.SIGINT):
            continue
        # Bounded: of two signals at once the handler may hear one only.
        for _ in range(_TIMES):
            if _heard != seen:
                break
            signal.pthread_kill(main, _WAKE)
            time.sleep(_PAUSE)
        seen = _heard
