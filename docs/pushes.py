"""Measures what docs/images/gate-pushes.svg shows: ``python docs/pushes.py`` (half a minute).

The simulation is that of ``benchmarks/gate_looks.py`` for equal models, with the rule without a
test beside it. ``docs/images/pushes.csv`` gets a line a chain, with the push at which a model that
is no better got through under each rule; 0: none did in a hundred. A test measures the first chains
again.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
FOUND = ROOT / "docs" / "images" / "pushes.csv"
CHAINS = 300
#: As in the benchmark, whose table is in docs/gate.md.
EXAMPLES = 2_000
PUSHES = 100


def measure(chains: int) -> str:
    """The file's text, with so many chains."""
    looks = _load(ROOT / "benchmarks" / "gate_looks.py")
    rules = {
        "neither": looks.rule(),
        "confirm": looks.rule(confirm="evaluate.reserved"),
        "looks: auto": looks.rule(looks="auto"),
        "looks: 100": looks.rule(looks=PUSHES),
    }
    rng = np.random.default_rng(1)
    out = io.StringIO()
    writer = csv.DictWriter(out, ["naive", *rules], lineterminator="\n")
    writer.writeheader()
    for _ in range(chains):
        chain = looks.Chain(rng, EXAMPLES, False, PUSHES)
        right = chain.right.sum(axis=1)
        above = np.flatnonzero(right[1:] > right[0])
        row = {name: looks.first_through(chain, said) for name, said in rules.items()}
        writer.writerow(row | {"naive": int(above[0]) + 1 if len(above) else 0})
    return out.getvalue()


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> int:
    """Write the file."""
    FOUND.parent.mkdir(exist_ok=True)
    FOUND.write_text(measure(CHAINS), encoding="utf-8")
    print(f"wrote {FOUND.relative_to(ROOT)}; now python docs/pictures.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())
