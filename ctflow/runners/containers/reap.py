"""Removes a run's containers once whoever started it is gone, however it went.

    reap.py ENGINE RUN

Started as a script, with a pipe as standard input whose other end the runner holds: it closes when
the runner ends, also by ``kill -9``, and a container of docker's daemon would outlive that.
"""

import subprocess
import sys
import time

#: Seconds after a run was stopped in which a daemon may still make a container that was asked for
#: before.
DELAY = 2.0
#: What the runner writes when all tasks have ended: nothing can be on its way then.
ENDED = b"ended"


def remove(engine: "str", run: "str") -> None:
    """Remove what there is now."""
    listed = subprocess.run(
        [engine, "ps", "--all", "--quiet", "--filter", f"label=ctflow.run={run}"],
        capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    if listed:
        subprocess.run([engine, "rm", "--force", *listed], capture_output=True)


def main() -> None:
    """Wait for the end, then remove what is left."""
    engine, run = sys.argv[1:]
    ended = sys.stdin.buffer.read() == ENDED
    remove(engine, run)
    deadline = time.monotonic() + DELAY
    while not ended and time.monotonic() < deadline:
        time.sleep(0.2)
        remove(engine, run)


if __name__ == "__main__":
    main()
