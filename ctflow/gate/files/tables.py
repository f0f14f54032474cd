"""Files of a model's training data: CSV, JSON lines, Parquet and Arrow, of which columns are read.

They are known by their beginnings as predictions files are, may be gzip, and keep to the same
limits. Everything in them comes from a step.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ctflow.gate.files.columns import EMPTY, OTHER, TEXT, DataColumn, Kind, column_of_texts
from ctflow.gate.files.evidence import MAGIC, TYPED, bare, reading_typed
from ctflow.gate.files.predictions import shown, wrong
from ctflow.gate.files.reading import PART, first_sign, objects, opened
from ctflow.gate.files.streams import first_bytes
from ctflow.gate.files.texts import Column, Floats

#: Names of columns beyond these are too many to keep.
MAX_COLUMNS = 50_000
FORMAT = "write a CSV with a header, JSON lines, Parquet or Arrow"


@dataclass(frozen=True)
class DataTable:
    """What was read of a file of training data.

    Attributes:
        names: of all columns, in the file's order.
        kinds: by name; of all columns where they were asked for, else of those that were read.
        columns: those that were asked for and are there.
    """

    rows: int
    names: tuple[str, ...]
    kinds: Mapping[str, str]
    columns: Mapping[str, DataColumn]


def read_data(path: Path, wanted: Collection[str], all_kinds: bool = False) -> DataTable:
    """Read some columns of a file, or of the only file in a folder.

    Args:
        wanted: names of columns; those that are not there are left out.
        all_kinds: find the kinds of all columns.

    Raises:
        UsageError: the file cannot be read; with the line and what to write instead.
    """
    file = _file(path)
    if first_bytes(file).startswith(MAGIC):
        return _read_typed(file, wanted, all_kinds)
    if bare(file).endswith(TYPED) and first_bytes(file):
        fact = "neither Parquet nor Arrow, though its name says so"
        raise wrong(file, fact, "write the file again, or name it for what it is")
    is_json = first_sign(file, FORMAT) == "{" or bare(file).endswith((".jsonl", ".ndjson"))
    return (_read_json if is_json else _read_csv)(file, wanted, all_kinds)


def _file(path: Path) -> Path:
    """The file itself, or the only one in a folder."""
    if path.is_dir():
        try:
            files = sorted(p for p in path.iterdir() if not p.name.startswith("."))
        except OSError as error:
            raise wrong(path, f"cannot be read: {error.strerror}", "mend its permissions") from None
        if len(files) != 1 or not files[0].is_file():
            raise wrong(
                path,
                f"a folder of {len(files)} files or folders, where training data is one file",
                "name in `data` an output that is one file, or write the rows to one",
            )
        path = files[0]
    if not path.is_file():
        raise wrong(path, "not a file", FORMAT)
    return path


class _Reading:
    """The wanted columns while a file is read, and the kinds of the others."""

    def __init__(self, wanted: Collection[str], all_kinds: bool) -> None:
        self._wanted = wanted
        self._all_kinds = all_kinds
        self._columns: dict[str, Column] = {}
        self._kinds: dict[str, Kind] = {}
        self.rows = 0

    def concerns(self, name: str) -> bool:
        return self._all_kinds or name in self._wanted

    def add(self, name: str, values: Sequence[str] | Floats) -> None:
        """Append a part of a column, texts or finite numbers; before it, it was blank."""
        if name in self._wanted:
            if name not in self._columns:
                self._columns[name] = Column(numeric=True)
                for first in range(0, self.rows, PART):
                    self._columns[name].add([""] * min(PART, self.rows - first))
            if isinstance(values, np.ndarray):
                self._columns[name].add_numbers(values)
            else:
                self._columns[name].add(values)
        else:
            self._kinds.setdefault(name, Kind()).add(values)

    def done(self, names: Sequence[str], others: Collection[str], file: Path) -> DataTable:
        if not self.rows:
            raise wrong(file, "no rows", "write one line an example below the header")
        columns = {
            name: DataColumn(OTHER, self.rows) if name in others else column_of_texts(column.done())
            for name, column in self._columns.items()
        }
        kinds = {name: OTHER if name in others else one.kind for name, one in self._kinds.items()}
        kinds |= {name: one.kind for name, one in columns.items()}
        return DataTable(self.rows, tuple(names), kinds, columns)


def _read_csv(file: Path, wanted: Collection[str], all_kinds: bool) -> DataTable:
    reading = _Reading(wanted, all_kinds)
    rows: list[list[str]] = []
    with opened(file, newline="") as text:
        reader = csv.reader(text, strict=True)
        try:
            header = [name.strip() for name in next(reader)]
            places = _places(header, reading, file)

            def flush() -> None:
                for name, place in places.items():
                    reading.add(name, [row[place] for row in rows])
                reading.rows += len(rows)
                rows.clear()

            for row in reader:
                if len(row) != len(header):
                    if not row:
                        continue
                    fact = f"{len(row)} values under {len(header)} columns"
                    raise wrong(file, fact, "give each column a value", reader.line_num)
                rows.append(row)
                if len(rows) == PART:
                    flush()
            flush()
        except csv.Error as error:
            mend = "quote values as CSV does"
            raise wrong(file, f"not CSV: {error}", mend, reader.line_num) from None
    return reading.done(header, (), file)


def _places(header: Sequence[str], reading: _Reading, file: Path) -> dict[str, int]:
    """Where each column that is asked for is."""
    _check_names(header, file)
    often = Counter(header)
    places = {name: place for place, name in enumerate(header) if reading.concerns(name)}
    for name in places:
        if often[name] > 1:
            raise wrong(file, f"column {shown(name)!r} twice", "name each column once", 1)
    return places


def _check_names(names: Collection[str], file: Path) -> None:
    if len(names) > MAX_COLUMNS:
        raise wrong(file, f"more than {MAX_COLUMNS:,} columns", "write fewer columns")


def _read_json(file: Path, wanted: Collection[str], all_kinds: bool) -> DataTable:
    reading = _Reading(wanted, all_kinds)
    names: dict[str, None] = {}
    others: set[str] = set()
    rows: list[dict[str, Any]] = []

    def flush() -> None:
        for name in names:
            if reading.concerns(name):
                values = [row.get(name) for row in rows]
                kinds = set(map(type, values))
                if kinds & {list, dict}:
                    others.add(name)
                reading.add(name, _values(values, kinds))
        reading.rows += len(rows)
        rows.clear()

    with opened(file, newline="\n") as text:
        for _, row in objects(text, file):
            if row.keys() != names.keys():
                names.update(dict.fromkeys(row))
                _check_names(names, file)
            rows.append(row)
            if len(rows) == PART:
                flush()
    flush()
    return reading.done(list(names), others, file)


def _values(values: list[Any], kinds: set[type]) -> Sequence[str] | Floats:
    """JSON's values, whose types are ``kinds``, as texts or as finite numbers."""
    if kinds == {float} and np.isfinite(numbers := np.array(values)).all():
        return numbers
    plain = kinds <= {str, int, float, bool}
    return list(map(str if plain else _text, values))


def _text(value: Any) -> str:
    return "" if value is None or isinstance(value, (list, dict)) else str(value)


def _read_typed(file: Path, wanted: Collection[str], all_kinds: bool) -> DataTable:
    with reading_typed(file):
        from ctflow.gate.files.arrow import read_some
    rows, kinds, found = read_some(file, wanted)
    columns = {
        name: DataColumn(OTHER, rows)
        if kinds[name] == OTHER
        else column_of_texts(found[name], as_text=kinds[name] == TEXT)
        for name in kinds
        if name in wanted
    }
    said = {name: kind for name, kind in kinds.items() if all_kinds or name in wanted}
    said |= {name: one.kind for name, one in columns.items() if one.kind != EMPTY}
    return DataTable(rows, tuple(kinds), said, columns)
