"""Predictions files: a model's answers to the examples of an evaluation set.

A file is CSV with a header, JSON lines (its name ends in ``.jsonl``, or its first byte is ``{``),
Parquet or Arrow (by their first bytes; see ``ctflow.gate.files.arrow``); any may be gzip. Columns:
``id`` (unique), ``label``, ``prediction``; optional ``score`` (a number for each example),
``p_<class>`` (probabilities); any other may name slices.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ctflow.errors import UsageError
from ctflow.gate.files.predictions import FORMAT, Predictions, codes, wrong
from ctflow.gate.files.reading import first_sign, read_csv, read_json
from ctflow.gate.files.streams import MAX_BYTES, first_bytes

if TYPE_CHECKING:
    from ctflow.ports import Calls

__all__ = [
    "MAX_BYTES",
    "Predictions",
    "confusion",
    "has_classes",
    "predictions_file",
    "read_predictions",
]

TYPED = (".parquet", ".arrow", ".feather")
_SUFFIXES = (".csv", ".jsonl", *TYPED)
#: How files of typed columns begin: Parquet (or encrypted), Arrow's file and stream, Feather 1.
MAGIC = (b"PAR1", b"PARE", b"ARROW1", b"\xff\xff\xff\xff", b"FEA1")


def has_classes(predictions: Predictions) -> bool:
    """Whether labels and answers are classes: of a regression's numbers there is no confusion."""
    for column in ("label", "prediction"):
        for name in predictions.classes(column).distinct:
            try:
                if not float(name).is_integer():
                    return False
            except ValueError:
                pass
    return True


def confusion(predictions: Predictions, limit: int = 20) -> tuple[list[str], list[list[int]]]:
    """The confusion matrix: classes, and counts by [label][prediction].

    At most ``limit`` classes: the rarest are folded into a last one called ``other``.
    """
    names, columns = codes(predictions.classes("label"), predictions.classes("prediction"))
    often = np.bincount(np.concatenate(columns), minlength=len(names))
    order = sorted(range(len(names)), key=lambda code: _class_order(names[code]))
    kept = order
    if len(order) > limit:
        first = sorted(order, key=lambda code: -often[code])[: max(limit - 1, 0)]
        kept = sorted(first, key=order.index)
    shown = [names[code] for code in kept] + ["other"] * (len(kept) < len(order))
    place = np.full(len(names), len(shown) - 1)
    place[kept] = np.arange(len(kept))
    labels, answers = (place[column] for column in columns)
    counts = np.bincount(labels * len(shown) + answers, minlength=len(shown) ** 2)
    return shown, counts.reshape(len(shown), len(shown)).tolist()


def read_predictions(path: Path, calls: Calls | None = None) -> Predictions:
    """Read and check a predictions file, or the only one in a folder.

    Args:
        calls: asks functions of the project, for metrics that are some.

    Raises:
        UsageError: with the file, the line and what to write instead.
    """
    file = predictions_file(path)
    if not file.exists():
        raise wrong(file, "no such predictions file", "check the step that writes it")
    if not file.is_file():
        raise wrong(file, "not a file", FORMAT)
    if first_bytes(file).startswith(MAGIC):
        return _read_typed(file, calls)
    if bare(file).endswith(TYPED) and first_bytes(file):
        fact = "neither Parquet nor Arrow, though its name says so"
        raise wrong(file, fact, "write the file again, or name it for what it is")
    is_json = first_sign(file) == "{" or bare(file).endswith(".jsonl")
    ids, columns, lines = (read_json(file) if is_json else read_csv(file)).done()
    return Predictions(ids, columns, file, lines, calls)


def predictions_file(path: Path) -> Path:
    """The file itself, or the only predictions file in a folder.

    Raises:
        UsageError: the folder has none, or several.
    """
    return _only_file(path) if path.is_dir() else path


def _read_typed(file: Path, calls: Calls | None) -> Predictions:
    with reading_typed(file):
        from ctflow.gate.files.arrow import read_arrow
    ids, columns = read_arrow(file)
    return Predictions(ids, columns, file, calls=calls)


@contextmanager
def reading_typed(file: Path) -> Iterator[None]:
    """Turns it into a UsageError that pyarrow, which is imported here, is not installed."""
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "pyarrow":
            raise
        raise UsageError(
            f"{file} is Parquet or Arrow, and pyarrow is not here to read it",
            next="install ctflow[parquet]: `python -m pip install 'ctflow[parquet]'`",
        ) from None


def bare(file: Path) -> str:
    """A file's name in small letters, without what says that it is compressed."""
    return file.name.lower().removesuffix(".gz")


def _class_order(name: str) -> tuple[int, float, str]:
    try:
        number = float(name)
    except ValueError:
        return (1, 0.0, name)
    return (0, number, name)


def _only_file(folder: Path) -> Path:
    try:
        files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    except OSError as error:
        raise wrong(folder, f"cannot be read: {error.strerror}", "mend its permissions") from None
    named = [p for p in files if bare(p).endswith(_SUFFIXES)]
    found = named or files
    if len(found) != 1:
        count = "no predictions file" if not found else f"{len(found)} possible predictions files"
        raise wrong(folder, count, "put exactly one .csv, .jsonl, .parquet or .arrow file there")
    return found[0]
