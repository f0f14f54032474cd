"""Signals that come when the main thread is not woken by them."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

#: The main thread waits for a lock while another takes the signal: the handler is noted, and
#: nothing wakes the main thread. It is what a signal between its last step and the wait comes to.
SCRIPT = """
import signal, sys, threading, time
from ctflow.cli.stopping import Stop, listen

signal.signal(signal.SIGINT, signal.default_int_handler)  # also below a runner that ignores it
listen()
waits = threading.Event()

def work():
    while True:
        waits.wait()
        waits.clear()
        time.sleep(0.1)
        signal.pthread_kill(threading.get_ident(), {number})

threading.Thread(target=work, daemon=True).start()
for _ in range(2):
    try:
        waits.set()
        threading.Event().wait()
    except Stop:
        print("stopped", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_main_thread_is_woken(number: signal.Signals) -> None:
    """Each time, not only the first."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(number=int(number))],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout == "stopped\n" * 2
