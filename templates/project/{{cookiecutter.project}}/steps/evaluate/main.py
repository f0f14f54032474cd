"""Score a model on the evaluation set: metrics, confusion matrix, one prediction for each example.

The gate compares two models by these predictions, example by example, so each has its example's id.
Half of the examples, by their ids, are reserved: the gate reads their predictions only for a model
that passes on the others, and they do not count in the metrics. `ink` is a slice: images with light,
medium or heavy ink (mean pixel below 4.5, up to 5.3, above; a quarter, a half and a quarter of the
digits).
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss

CLASSES = np.arange(10)


def read(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The ids, the labels, int (examples,), and the pixels, float (examples, 64)."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    labels = np.array([row[1] for row in rows], dtype=np.int64)
    return [row[0] for row in rows], labels, np.array([row[2:] for row in rows], dtype=float)


def probabilities(model: Any, pixels: np.ndarray) -> np.ndarray:
    """The model's probability of each of the ten digits, (examples, 10); rows add up to 1.

    A digit that the model has never seen has probability 0.
    """
    all_ten = np.zeros((len(pixels), len(CLASSES)))
    all_ten[:, model.classes_] = model.predict_proba(pixels)
    return all_ten


def ink(pixels: np.ndarray) -> str:
    mean = float(pixels.mean())
    return "light" if mean < 4.5 else "heavy" if mean > 5.3 else "medium"


def is_reserved(name: str) -> bool:
    """Half of the ids, always the same, whatever part `validate` put them in."""
    return hashlib.sha256(f"reserved {name}".encode()).digest()[0] < 128


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def write_predictions(path: Path, lines: list[list[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "label", "prediction", "ink", *(f"p_{digit}" for digit in CLASSES)])
        writer.writerows(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Score a model on the evaluation set.")
    parser.add_argument("--evaluation-set", type=Path, required=True, help="CSV: id,label,p0..p63")
    parser.add_argument("--model", type=Path, required=True, help="folder with model.joblib")
    parser.add_argument("--metrics", type=Path, required=True, help="the scalars, as JSON")
    parser.add_argument("--confusion", type=Path, required=True, help="the matrix, as JSON")
    parser.add_argument("--predictions", type=Path, required=True, help="CSV to write")
    parser.add_argument("--reserved", type=Path, required=True, help="CSV to write")
    parser.add_argument("--executor-output", type=Path, help="where KFP reads metadata")
    args = parser.parse_args()
    try:
        ids, labels, pixels = read(args.evaluation_set)
        model = joblib.load(args.model / "model.joblib")
    except (OSError, ValueError) as error:
        sys.exit(f"cannot read {args.evaluation_set} or {args.model}: {error}")
    scores = probabilities(model, pixels)
    answers = scores.argmax(axis=1)
    shown = np.array([not is_reserved(name) for name in ids])
    if shown.all() or not shown.any():
        sys.exit(f"{len(ids)} examples to evaluate are too few to reserve some of them")
    seen, said = labels[shown], answers[shown]

    metrics = {
        "accuracy": float(accuracy_score(seen, said)),
        "f1_macro": float(f1_score(seen, said, labels=CLASSES, average="macro")),
        "log_loss": float(log_loss(seen, scores[shown], labels=CLASSES)),
        "evaluation_examples": len(seen),
    }
    # KFP's form of a confusion matrix: a row for each true digit, a column for each predicted one.
    matrix = confusion_matrix(seen, said, labels=CLASSES).tolist()
    confusion = {
        "confusionMatrix": {
            "annotationSpecs": [{"displayName": str(digit)} for digit in CLASSES],
            "rows": [{"row": row} for row in matrix],
        }
    }
    write(args.metrics, json.dumps(metrics, indent=2) + "\n")
    write(args.confusion, json.dumps(confusion) + "\n")
    if args.executor_output:
        # KFP reads an artifact's metadata from this file, and shows it.
        metadata = {"metrics": metrics, "confusion": confusion}
        told = {name: {"artifacts": [{"metadata": data}]} for name, data in metadata.items()}
        write(args.executor_output, json.dumps({"artifacts": told}))

    lines = [
        [name, label, answer, ink(image), *(f"{p:.6f}" for p in row)]
        for name, label, answer, image, row in zip(ids, labels, answers, pixels, scores, strict=True)
    ]
    write_predictions(args.predictions, [line for line in lines if not is_reserved(line[0])])
    write_predictions(args.reserved, [line for line in lines if is_reserved(line[0])])
    print(f"accuracy {metrics['accuracy']:.4f} on {len(seen)} examples")


if __name__ == "__main__":
    main()
