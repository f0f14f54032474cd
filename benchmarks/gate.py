"""Seconds for the gate: read two predictions files, judge accuracy and macro-F1 over the champion.

Usage: python benchmarks/gate.py [--runs N]. ``gate`` is measured in this process with numpy already
loaded; ``process`` is a whole new Python process, its start and numpy's import included.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZES = (1_000, 10_000, 100_000)
CLASSES = 10
KEY = "evaluate.predictions"


def write(path: Path, examples: int, accuracy: float, seed: int) -> None:
    """Predictions of a model of about that accuracy; the labels are the same for every seed."""
    import numpy as np

    labels = np.random.default_rng(0).integers(0, CLASSES, examples)
    rng = np.random.default_rng(seed)
    wrong = (labels + rng.integers(1, CLASSES, examples)) % CLASSES
    answers = np.where(rng.random(examples) < accuracy, labels, wrong)
    with path.open("w", encoding="utf-8") as file:
        file.write("id,label,prediction\n")
        for number, (label, answer) in enumerate(zip(labels, answers, strict=True)):
            file.write(f"example-{number},{label},{answer}\n")


def gate(folder: Path) -> str:
    """Read and judge; the decision."""
    from ctflow.gate import Champion, judge
    from ctflow.gate.evidence import read_predictions
    from ctflow.gate_rules import GateRule

    rules = [
        GateRule(metric=metric, over="champion", predictions=KEY)
        for metric in ("accuracy", "f1_macro")
    ]
    challenger = read_predictions(folder / "challenger.csv")
    champion = read_predictions(folder / "champion.csv")
    verdict = judge(
        project="benchmark",
        environment="staging",
        run="r-1",
        rules=rules,
        metrics={},
        predictions={KEY: challenger},
        champion=Champion("sha256:champion", {}, {KEY: champion}),
    )
    return verdict.decision


def seconds(folder: Path) -> tuple[float, float, str]:
    """One measurement: in this process, and in a new one."""
    start = time.perf_counter()
    decision = gate(folder)
    inside = time.perf_counter() - start
    start = time.perf_counter()
    subprocess.run([sys.executable, __file__, "--once", str(folder)], check=True)
    return inside, time.perf_counter() - start, decision


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--once", type=Path, help="only judge the two files of this folder")
    args = parser.parse_args()
    if args.once:
        gate(args.once)
        return
    print(
        f"{'examples':>10}  {'gate, s':>8}  {'process, s':>10}  decision   (median of {args.runs})"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for examples in SIZES:
            write(folder / "challenger.csv", examples, 0.96, seed=1)
            write(folder / "champion.csv", examples, 0.94, seed=2)
            rows = [seconds(folder) for _ in range(args.runs)]
            inside = statistics.median(row[0] for row in rows)
            whole = statistics.median(row[1] for row in rows)
            print(f"{examples:>10}  {inside:>8.3f}  {whole:>10.3f}  {rows[0][2]}")


if __name__ == "__main__":
    main()
