"""No-op nodes of kedro: ``noop_kedro.py chain|wide TASKS SequentialRunner|ParallelRunner``."""

import sys

from kedro import runner
from kedro.io import DataCatalog, MemoryDataset, SharedMemoryDataCatalog
from kedro.pipeline import node, pipeline


def add(a: int) -> int:
    return a + 1


def main() -> None:
    shape, tasks, name = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    nodes = [
        node(add, f"x{number}" if shape == "chain" else "x0", f"x{number + 1}", name=f"n{number}")
        for number in range(tasks)
    ]
    catalog = SharedMemoryDataCatalog if name == "ParallelRunner" else DataCatalog
    getattr(runner, name)().run(pipeline(nodes), catalog({"x0": MemoryDataset(0)}))


if __name__ == "__main__":
    main()
