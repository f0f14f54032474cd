"""No-op steps of zenml on its default stack: ``noop_zenml.py chain|wide TASKS``."""

import sys

from zenml import pipeline, step

shape, tasks = sys.argv[1], int(sys.argv[2])


@step(enable_cache=False)
def add(a: int) -> int:
    return a + 1


@pipeline(enable_cache=False)
def noop() -> None:
    value = add(a=0)
    for number in range(1, tasks):
        value = add(a=value if shape == "chain" else number)


if __name__ == "__main__":
    noop()
