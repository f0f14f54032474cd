"""Predictions files: a model's answers to the examples of an evaluation set.

A file is CSV with a header, or JSON lines (its name ends in ``.jsonl``, or its first byte is
``{``); either may be gzip. Columns: ``id`` (unique), ``label``, ``prediction``; optional ``score``
(a number for each example), ``p_<class>`` (probabilities); any other may name slices. Everything
in it comes from a step and is checked here, so a ``Predictions`` that exists is a sound one.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ctflow.errors import UsageError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

REQUIRED = ("label", "prediction")
PROBABILITY = "p_"
#: Above this (decompressed) a file is refused rather than filling the memory.
MAX_BYTES = 1 << 30

_SUFFIXES = (".csv", ".jsonl", ".csv.gz", ".jsonl.gz")
_WHOLE = re.compile(r"([+-]?\d+)\.0*")
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
_FORMAT = "write a CSV with the header id,label,prediction (or JSON lines with those keys)"


def canonical(value: str) -> str:
    """A class as it is compared: no outer blanks, and ``3.0`` is ``3``."""
    value = value.strip()
    whole = _WHOLE.fullmatch(value)
    return whole[1] if whole else value


def shown(value: str, limit: int = 60) -> str:
    """A step's text for a message: printable characters only, cut at ``limit``."""
    text = " ".join("".join(c if c.isprintable() else " " for c in value[: 4 * limit]).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


@dataclass(frozen=True, eq=False)
class Predictions:
    """A model's predictions, one row an example; checked on construction.

    ``columns`` are the raw strings by name, without ``id``, in the file's order; ``lines`` are the
    line numbers of the rows where they come from a file. Arrays are in the order of ``order``.

    Raises:
        UsageError: no rows, an id twice, an empty or not finite value where one is needed.
    """

    ids: Sequence[str]
    columns: Mapping[str, Sequence[str]]
    path: Path
    lines: Sequence[int] = ()

    def __post_init__(self) -> None:
        _check(self)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def order(self) -> Ints:
        """Row numbers sorted by id, shape (n,): the order of every array made from this."""
        return np.array(sorted(range(len(self.ids)), key=self.ids.__getitem__), dtype=np.int64)

    @cached_property
    def evaluation_set(self) -> str:
        """``sha256:...`` over the sorted (id, label) pairs, each as ``length:text`` twice.

        It depends neither on the order of the rows nor on the predictions.
        """
        labels = self.classes("label")
        parts = []
        for row, label in zip(self.order.tolist(), labels, strict=True):
            name = self.ids[row]
            parts.append(f"{len(name)}:{name}{len(label)}:{label}")
        content = "".join(parts).encode("utf-8", "surrogatepass")
        return "sha256:" + hashlib.sha256(content).hexdigest()

    def classes(self, column: str) -> list[str]:
        """A column's values as classes (see ``canonical``), sorted by id."""
        values = self.columns[column]
        names = {value: canonical(value) for value in set(values)}
        return [names[values[row]] for row in self.order.tolist()]

    def numbers(self, column: str) -> Floats:
        """A column as numbers, shape (n,), sorted by id.

        Raises:
            UsageError: a value is no finite number.
        """
        return _numbers(self, column)[self.order]

    @property
    def probabilities(self) -> dict[str, str]:
        """The class of each ``p_<class>`` column -> the column."""
        return {
            canonical(name[len(PROBABILITY) :]): name
            for name in self.columns
            if name.startswith(PROBABILITY)
        }

    def slices(self, column: str) -> dict[str, Ints]:
        """Positions (in id order) of each value of a column, values sorted."""
        found: dict[str, list[int]] = {}
        values = self.columns[column]
        for position, row in enumerate(self.order.tolist()):
            found.setdefault(values[row], []).append(position)
        return {value: np.array(found[value], dtype=np.int64) for value in sorted(found)}


def codes(*columns: Sequence[str]) -> tuple[list[str], list[Ints]]:
    """The sorted distinct classes of all columns, and each column as indexes into them."""
    names = sorted(set().union(*columns))
    index = {name: number for number, name in enumerate(names)}
    arrays = [np.fromiter(map(index.__getitem__, c), np.int64, len(c)) for c in columns]
    return names, arrays


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


def _wrong(file: Path, fact: str, mend: str, line: int | None = None) -> UsageError:
    where = f"{file}, line {line}" if line is not None else str(file)
    return UsageError(f"{where}: {fact}", next=mend)


def _only_file(folder: Path) -> Path:
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    named = [p for p in files if p.name.lower().endswith(_SUFFIXES)]
    found = named or files
    if len(found) != 1:
        count = "no predictions file" if not found else f"{len(found)} possible predictions files"
        raise _wrong(folder, count, "put exactly one .csv or .jsonl file there")
    return found[0]


def _text(file: Path) -> str:
    if not file.exists():
        raise _wrong(file, "no such predictions file", "check the step that writes it")
    if not file.is_file():
        raise _wrong(file, "not a file", _FORMAT)
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
        raise _wrong(file, f"cannot be read: {error}", "write the file again") from None
    if len(content) > MAX_BYTES:
        raise _wrong(file, f"more than {MAX_BYTES >> 20} MiB", "evaluate on fewer examples")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _wrong(file, f"not UTF-8 at byte {error.start}", "write it as UTF-8") from None
    if not text.strip():
        raise _wrong(file, "empty", _FORMAT)
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
                raise _wrong(file, fact, "give each column a value", reader.line_num)
            rows.append(row)
            lines.append(reader.line_num)
    except csv.Error as error:
        mend = "quote values as CSV does"
        raise _wrong(file, f"not CSV: {error}", mend, reader.line_num) from None
    by_name = dict(zip(header, (list(c) for c in zip(*rows, strict=True)), strict=False))
    if not rows:
        raise _wrong(file, "no examples", "write one line an example below the header")
    return by_name.pop("id"), by_name, lines


def _check_header(header: Sequence[str], file: Path) -> None:
    missing = [name for name in ("id", *REQUIRED) if name not in header]
    if missing:
        raise _wrong(file, f"no column {', '.join(missing)}", _FORMAT, 1)
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise _wrong(file, f"column {shown(twice[0])!r} twice", "name each column once", 1)


def _read_json(text: str, file: Path) -> Table:
    names: list[str] = []
    rows: list[list[str]] = []
    lines: list[int] = []
    for line, row in _objects(text, file):
        if not names:
            names = list(row)
            missing = [name for name in ("id", *REQUIRED) if name not in names]
            if missing:
                raise _wrong(file, f"no key {', '.join(missing)}", _FORMAT, line)
        if row.keys() != set(names):
            odd = sorted(row.keys() ^ set(names))[0]
            fact = f"key {shown(odd)!r} is not in every line"
            raise _wrong(file, fact, "write the same keys in each line", line)
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
            raise _wrong(file, "not JSON", "write one JSON object a line", number) from None
        if not isinstance(row, dict):
            raise _wrong(file, "not a JSON object", "write one JSON object a line", number)
        yield number, row


def _plain(value: Any, name: str, file: Path, line: int) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    fact = f"{shown(name)} is a list or an object"
    raise _wrong(file, fact, "write a text or a number", line)


def _check(predictions: Predictions) -> None:
    if len(predictions.ids) == 0:
        raise _wrong(predictions.path, "no examples", _FORMAT)
    for name in REQUIRED:
        if name not in predictions.columns:
            raise _wrong(predictions.path, f"no column {name}", _FORMAT)
    for name, column in predictions.columns.items():
        if len(column) != len(predictions.ids):
            raise _wrong(predictions.path, f"column {shown(name)} is not complete", _FORMAT)
    _refuse(predictions, "id", predictions.ids, lambda v: not v.strip(), "is empty")
    if len(set(predictions.ids)) != len(predictions.ids):
        counts = Counter(predictions.ids)
        _refuse(predictions, "id", predictions.ids, lambda v: counts[v] > 1, "is there twice")
    for name in REQUIRED:
        column = predictions.columns[name]
        _refuse(predictions, name, column, lambda v: not v.strip(), "is empty")
        _refuse(predictions, name, column, _is_not_finite, "is not finite")
    for name in ("score", *predictions.probabilities.values()):
        if name in predictions.columns:
            numbers = _numbers(predictions, name)
            if name != "score" and not ((numbers >= 0) & (numbers <= 1)).all():
                wrong = int(np.argmax((numbers < 0) | (numbers > 1)))
                raise _at(predictions, wrong, f"{shown(name)} is not within 0 and 1")


def _is_not_finite(value: str) -> bool:
    return _NOT_FINITE.fullmatch(value.strip()) is not None


def _refuse(
    predictions: Predictions,
    name: str,
    column: Sequence[str],
    bad: Callable[[str], bool],
    fact: str,
) -> None:
    wrong = {value for value in set(column) if bad(value)}
    if wrong:
        row = next(row for row, value in enumerate(column) if value in wrong)
        raise _at(predictions, row, f"{name} {shown(column[row])!r} {fact}")


def _at(predictions: Predictions, row: int, fact: str) -> UsageError:
    line = predictions.lines[row] if predictions.lines else row + 1
    return _wrong(predictions.path, fact, "mend the step that writes the predictions", line)


def _numbers(predictions: Predictions, column: str) -> Floats:
    values = predictions.columns[column]
    try:
        numbers = np.array([float(value) for value in values], dtype=np.float64)
        if np.isfinite(numbers).all():
            return numbers
        row = int(np.argmin(np.isfinite(numbers)))
    except ValueError:
        row = next(row for row, value in enumerate(values) if not _is_number(value))
    fact = f"{shown(column)} {shown(values[row])!r} is not a finite number"
    raise _at(predictions, row, fact)


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True
