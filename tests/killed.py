"""Runs ctflow and sends it a signal at its Nth act on the world.

usage: python killed.py N SIGNAL COUNT WORD...

An act is a file written, renamed, removed or locked, a folder made, a process started, a database
or a socket opened: what Python's audit hooks tell before it is done. N is 0: it gets none. At
its end the number of acts goes to the file COUNT. The moments do not depend on a machine's speed.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Any

_ACTS = frozenset({
    "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate",
    "os.utime", "os.chmod", "fcntl.flock", "subprocess.Popen", "os.fork", "os.posix_spawn",
    "sqlite3.connect", "socket.connect", "os.kill",
})  # fmt: skip
_WRITES = os.O_WRONLY | os.O_RDWR


def main() -> None:
    """Count, kill, run."""
    limit, number, count = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    sys.argv = ["ctflow", *sys.argv[4:]]
    own, acts = os.getpid(), 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal acts
        act = event in _ACTS or (
            event == "open" and isinstance(args[2], int) and bool(args[2] & _WRITES)
        )
        if act and os.getpid() == own:
            acts += 1
            if acts == limit:
                os.kill(own, number)

    sys.addaudithook(hook)
    try:
        runpy.run_module("ctflow", run_name="__main__", alter_sys=True)
    finally:
        count.write_text(str(acts))


main()
