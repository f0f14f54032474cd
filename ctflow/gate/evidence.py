"""Predictions files: a model's answers to the examples of an evaluation set.

A file is CSV with a header, or JSON lines (its name ends in ``.jsonl``, or its first byte is
``{``); either may be gzip. Columns: ``id`` (unique), ``label``, ``prediction``; optional ``score``
(a number for each example), ``p_<class>`` (probabilities); any other may name slices.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ctflow.gate.predictions import FORMAT, REQUIRED, Predictions, shown, wrong

__all__ = ["MAX_BYTES", "Predictions", "confusion", "has_classes", "read_predictions"]

#: Above this (decompressed) a file is refused rather than filling the memory.
MAX_BYTES = 1 << 30

_SUFFIXES = (".csv", ".jsonl", ".csv.gz", ".jsonl.gz")


def has_classes(predictions: Predictions) -> bool:
    """Whether labels and answers are classes: of a regression's numbers there is no confusion."""
    for column in ("label", "prediction"):
        for name in set(predictions.classes(column)):
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
    labels, answers = predictions.classes("label"), predictions.classes("prediction")
    often = Counter(labels) + Counter(answers)
    names = sorted(often, key=_class_order)
    if len(names) > limit:
        kept = sorted(names, key=lambda name: -often[name])[: max(limit - 1, 0)]
        names = [*sorted(kept, key=_class_order), "other"]
        known = set(kept)
        labels = [name if name in known else "other" for name in labels]
        answers = [name if name in known else "other" for name in answers]
    counts = Counter(zip(labels, answers, strict=True))
    return names, [[counts[label, answer] for answer in names] for label in names]


def read_predictions(path: Path) -> Predictions:
    """Read and check a predictions file, or the only one in a folder.

    Raises:
        UsageError: with the file, the line and what to write instead.
    """
    file = _only_file(path) if path.is_dir() else path
    text = _text(file)
    name = file.name.lower().removesuffix(".gz")
    is_json = name.endswith(".jsonl") or text.lstrip()[:1] == "{"
    ids, columns, lines = _read_json(text, file) if is_json else _read_csv(text, file)
    return Predictions(ids, columns, file, lines)


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
    named = [p for p in files if p.name.lower().endswith(_SUFFIXES)]
    found = named or files
    if len(found) != 1:
        count = "no predictions file" if not found else f"{len(found)} possible predictions files"
        raise wrong(folder, count, "put exactly one .csv or .jsonl file there")
    return found[0]


def _text(file: Path) -> str:
    if not file.exists():
        raise wrong(file, "no such predictions file", "check the step that writes it")
    if not file.is_file():
        raise wrong(file, "not a file", FORMAT)
    try:
        with file.open("rb") as stream:
            zipped = stream.read(2) == b"\x1f\x8b"
            stream.seek(0)
            content: bytes
            if zipped:
                with gzip.GzipFile(fileobj=stream) as inner:
                    content = inner.read(MAX_BYTES + 1)
            else:
                content = stream.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise wrong(file, f"cannot be read: {error}", "write the file again") from None
    if len(content) > MAX_BYTES:
        raise wrong(file, f"more than {MAX_BYTES >> 20} MiB", "evaluate on fewer examples")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise wrong(file, f"not UTF-8 at byte {error.start}", "write it as UTF-8") from None
    if not text.strip():
        raise wrong(file, "empty", FORMAT)
    return text


Table = tuple[list[str], dict[str, list[str]], list[int]]


def _read_csv(text: str, file: Path) -> Table:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        header = [name.strip() for name in next(reader)]
        _check_header(header, file)
        for row in reader:
            if len(row) != len(header):
                if not row:
                    continue
                fact = f"{len(row)} values under {len(header)} columns"
                raise wrong(file, fact, "give each column a value", reader.line_num)
            rows.append(row)
            lines.append(reader.line_num)
    except csv.Error as error:
        mend = "quote values as CSV does"
        raise wrong(file, f"not CSV: {error}", mend, reader.line_num) from None
    by_name = dict(zip(header, (list(c) for c in zip(*rows, strict=True)), strict=False))
    if not rows:
        raise wrong(file, "no examples", "write one line an example below the header")
    return by_name.pop("id"), by_name, lines


def _check_header(header: Sequence[str], file: Path) -> None:
    missing = [name for name in ("id", *REQUIRED) if name not in header]
    if missing:
        raise wrong(file, f"no column {', '.join(missing)}", FORMAT, 1)
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise wrong(file, f"column {shown(twice[0])!r} twice", "name each column once", 1)


def _read_json(text: str, file: Path) -> Table:
    names: list[str] = []
    rows: list[list[str]] = []
    lines: list[int] = []
    for line, row in _objects(text, file):
        if not names:
            names = list(row)
            missing = [name for name in ("id", *REQUIRED) if name not in names]
            if missing:
                raise wrong(file, f"no key {', '.join(missing)}", FORMAT, line)
        if row.keys() != set(names):
            odd = sorted(row.keys() ^ set(names))[0]
            fact = f"key {shown(odd)!r} is not in every line"
            raise wrong(file, fact, "write the same keys in each line", line)
        rows.append([_plain(row[name], name, file, line) for name in names])
        lines.append(line)
    by_name = dict(zip(names, (list(c) for c in zip(*rows, strict=True)), strict=True))
    return by_name.pop("id"), by_name, lines


def _objects(text: str, file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise wrong(file, "not JSON", "write one JSON object a line", number) from None
        if not isinstance(row, dict):
            raise wrong(file, "not a JSON object", "write one JSON object a line", number)
        yield number, row


def _plain(value: Any, name: str, file: Path, line: int) -> str:
    if isinstance(value, str):
        if any("\ud800" <= c <= "\udfff" for c in value):
            raise wrong(file, f"{shown(name)} is not Unicode text", "write it as UTF-8", line)
        return value
    if value is None:
        return ""
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    fact = f"{shown(name)} is a list or an object"
    raise wrong(file, fact, "write a text or a number", line)
