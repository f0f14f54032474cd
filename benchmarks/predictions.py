"""Time and peak memory of the gate on large predictions files, step by step.

Usage: python benchmarks/predictions.py [--sizes N ...] [--runs N]. Each size is measured as CSV,
and as Parquet of the same predictions where ``ctflow[parquet]`` is installed. Each measurement is a
process of its own, numpy's import included: it reads the challenger's and the champion's
predictions, digests their evaluation sets, and judges accuracy, Brier score and area under the ROC
curve over the champion. Memory is the process's largest resident set (getrusage), in MB of 10**6
bytes.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZES = (100_000, 1_000_000)
METRICS = ("accuracy", "brier", "roc_auc")
STEPS = ("read", "digest", *METRICS)
KEY = "evaluate.predictions"
PART = 50_000


def write(path: Path, examples: int, skill: float, seed: int) -> None:
    """Predictions of two classes, a fifth of them positive; the labels are the same for all seeds.

    ``skill`` is the distance of the classes' mean scores in standard deviations of each.
    """
    import numpy as np

    truth, rng = np.random.default_rng(0), np.random.default_rng(seed)
    with path.open("w", encoding="utf-8") as file:
        file.write("id,label,prediction,p_0,p_1\n")
        for start in range(0, examples, PART):
            labels = (truth.random(min(PART, examples - start)) < 0.2).astype(int)
            score = skill * labels + rng.standard_normal(len(labels))
            chances = 1 / (1 + 4 * np.exp(skill * skill / 2 - skill * score))
            for row, (label, p) in enumerate(zip(labels.tolist(), chances.tolist(), strict=True)):
                file.write(f"example-{start + row},{label},{p > 0.5:d},{1 - p:.6f},{p:.6f}\n")


def write_parquet(path: Path, source: Path) -> None:
    """The same predictions as Parquet, in its types, as pyarrow writes it unless told otherwise."""
    import pyarrow.csv
    import pyarrow.parquet as pq

    pq.write_table(pyarrow.csv.read_csv(source), path)


def measured(folder: Path) -> dict[str, float]:
    """Seconds of each step, in all (``total``), and the peak memory in MB (``memory``)."""
    started = time.perf_counter()
    from ctflow.config.gate_rules import GateRule
    from ctflow.gate import Champion, judge
    from ctflow.gate.files.evidence import read_predictions

    found: dict[str, float] = {}
    since = time.perf_counter()
    challenger, champion = (
        read_predictions(next(folder.glob(f"{name}.*"))) for name in ("challenger", "champion")
    )
    found["read"], since = time.perf_counter() - since, time.perf_counter()
    if challenger.evaluation_set != champion.evaluation_set:
        raise SystemExit("the two files are for other examples")
    found["digest"] = time.perf_counter() - since
    for metric in METRICS:
        since = time.perf_counter()
        verdict = judge(
            project="benchmark",
            environment="staging",
            run="r-1",
            rules=[GateRule(metric=metric, over="champion", predictions=KEY)],
            metrics={},
            predictions={KEY: challenger},
            champion=Champion("sha256:champion", {}, {KEY: champion}),
        )
        found[metric] = time.perf_counter() - since
        if verdict.decision != "promote":
            raise SystemExit(f"{metric}: {verdict.reasons}")
    found["total"] = time.perf_counter() - started
    unit = 1 if sys.platform == "darwin" else 1024
    found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    return found


def in_process(folder: Path) -> dict[str, float]:
    """One measurement in a process of its own."""
    words = [sys.executable, __file__, "--once", str(folder)]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    return {str(name): float(value) for name, value in json.loads(done.stdout).items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--once", type=Path, help="only judge the two files of this folder")
    args = parser.parse_args()
    if args.once:
        print(json.dumps(measured(args.once)))
        return
    print(f"seconds, median of {args.runs}")
    columns = "".join(f"{name:>10}" for name in (*STEPS, "total"))
    print(f"{'examples':>10}  {'file':>7}  {'MB':>5}{columns}  {'memory, MB':>10}")
    forms = ("csv", "parquet") if importlib.util.find_spec("pyarrow") else ("csv",)
    for examples, form in itertools.product(args.sizes, forms):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for seed, (model, skill) in enumerate((("challenger", 1.6), ("champion", 1.5)), 1):
                path = folder / f"{model}.csv"
                write(path, examples, skill, seed)
                if form == "parquet":
                    write_parquet(folder / f"{model}.parquet", path)
                    path.unlink()
            size = (folder / f"challenger.{form}").stat().st_size / 1e6
            runs = [in_process(folder) for _ in range(args.runs)]
        median = {step: statistics.median(run[step] for run in runs) for step in runs[0]}
        times = "".join(f"{median[step]:>10.2f}" for step in (*STEPS, "total"))
        line = f"{examples:>10}  {form:>7}  {size:>5.1f}{times}  {median['memory']:>10.0f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
