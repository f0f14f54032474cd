"""Removes a run's containers once whoever started it is gone, however it went.

    reap.py ENGINE RUN

Started as a script, with a pipe as standard input whose other end the runner holds: it closes when
the runner ends, also by ``kill -9``, and a container of docker's daemon would outlive that.
"""

import subprocess
import sys


def main() -> None:
    """Wait for the end, then remove what is left."""
    engine, run = sys.argv[1:]
    sys.stdin.buffer.read()
    listed = subprocess.run(
        [engine, "ps", "--all", "--quiet", "--filter", f"label=ctflow.run={run}"],
        capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    if listed:
        subprocess.run([engine, "rm", "--force", *listed], capture_output=True)


if __name__ == "__main__":
    main()
