"""No-op tasks of flytekit, executed locally: ``noop_flytekit.py chain|wide TASKS``."""

import sys

from flytekit import task, workflow

shape, tasks = sys.argv[1], int(sys.argv[2])


@task
def add(a: int) -> int:
    return a + 1


@workflow
def noop() -> int:
    value = add(a=0)
    for number in range(1, tasks):
        value = add(a=value if shape == "chain" else number)
    return value


assert noop() == tasks
