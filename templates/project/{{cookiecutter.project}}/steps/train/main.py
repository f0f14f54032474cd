"""Train a small neural network; write it to a folder with `model.joblib`, which KServe reads.

The same training set, parameters and library versions give the same bytes: the seed fixes the
first weights and the order of the examples, and one thread keeps the order of the sums.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import warnings
from pathlib import Path

# Read by the linear algebra library when it is loaded, so set before it is imported.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import joblib
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The pixels, float (examples, 64), and the labels, int (examples,)."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    pixels = np.array([row[2:] for row in rows], dtype=float)
    return pixels, np.array([row[1] for row in rows], dtype=np.int64)


def train(
    pixels: np.ndarray,
    labels: np.ndarray,
    epochs: int,
    hidden_units: int,
    learning_rate: float,
    seed: int,
) -> Pipeline:
    network = MLPClassifier(
        hidden_layer_sizes=(hidden_units,),
        learning_rate_init=learning_rate,
        batch_size=min(32, len(labels)),
        max_iter=epochs,
        # Train for all epochs: early stopping would make the parameter meaningless.
        n_iter_no_change=epochs,
        tol=0.0,
        random_state=seed,
    )
    model = make_pipeline(MinMaxScaler(), network)
    with warnings.catch_warnings():
        # "did not converge": the number of epochs is the user's choice.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(pixels, labels)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small neural network.")
    parser.add_argument("--training-set", type=Path, required=True, help="CSV: id,label,p0..p63")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--hidden-units", type=int, default=24)
    parser.add_argument("--learning-rate", type=float, default=0.001)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--model", type=Path, required=True, help="the folder to write")
    parser.add_argument("--metrics", type=Path, required=True, help="the scalars, as JSON")
    parser.add_argument("--executor-output", type=Path, help="where KFP reads metadata")
    args = parser.parse_args()
    if args.epochs < 1 or args.hidden_units < 1 or not args.learning_rate > 0:
        sys.exit("--epochs, --hidden-units and --learning-rate must be above 0")
    try:
        pixels, labels = read(args.training_set)
    except (OSError, ValueError) as error:
        sys.exit(f"cannot read {args.training_set}: {error}")
    model = train(pixels, labels, args.epochs, args.hidden_units, args.learning_rate, args.seed)
    args.model.mkdir(parents=True, exist_ok=True)
    joblib.dump(model, args.model / "model.joblib")
    metrics = {
        "training_loss": float(model[-1].loss_),
        "training_accuracy": float(model.score(pixels, labels)),
        "training_examples": len(labels),
    }
    write(args.metrics, json.dumps(metrics, indent=2) + "\n")
    if args.executor_output:
        # KFP reads an artifact's metadata from this file, and shows it.
        shown = {"artifacts": {"metrics": {"artifacts": [{"metadata": metrics}]}}}
        write(args.executor_output, json.dumps(shown))
    print(f"trained on {len(labels)} examples: loss {metrics['training_loss']:.4f}")


if __name__ == "__main__":
    main()
