"""CSV and JSON lines, plain or gzip, read in parts: their size in memory is that of the columns."""

from __future__ import annotations

import csv
import io
import json
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from ctflow.gate.files.predictions import FORMAT, PROBABILITY, REQUIRED, shown, wrong
from ctflow.gate.files.streams import stream_of
from ctflow.gate.files.texts import Column

#: How many rows are Python objects at once.
PART = 20_000


class Table:
    """The columns of a predictions file while it is read, and the line of each row."""

    def __init__(self, names: Sequence[str], file: Path) -> None:
        self._names = names
        self._file = file
        self._columns = [column_of(name) for name in names]
        self._rows: list[Sequence[str]] = []
        self._lines = array("q")

    def add(self, row: Sequence[str], line: int) -> None:
        """Append a row: a text for each name."""
        self._rows.append(row)
        self._lines.append(line)
        if len(self._rows) == PART:
            self._flush()

    def done(self) -> tuple[Sequence[str], dict[str, Sequence[str]], Sequence[int]]:
        """The ids, the other columns by name, the lines.

        Raises:
            UsageError: there is no row.
        """
        self._flush()
        if not self._lines:
            raise wrong(self._file, "no examples", "write one line an example below the header")
        columns = {name: c.done() for name, c in zip(self._names, self._columns, strict=True)}
        return columns.pop("id"), columns, self._lines

    def _flush(self) -> None:
        for column, values in zip(self._columns, zip(*self._rows, strict=True), strict=False):
            column.add(values)
        self._rows.clear()


def column_of(name: str, numeric: bool = False) -> Column:
    """The way to hold a column of that name; ``numeric``: its type says that it has numbers."""
    if name == "id":
        return Column(most=0)
    return Column(numeric=numeric or name == "score" or name.startswith(PROBABILITY))


def read_csv(file: Path) -> Table:
    """Read a CSV with a header.

    Raises:
        UsageError: with the line and what to write instead.
    """
    with opened(file, newline="") as text:
        reader = csv.reader(text, strict=True)
        try:
            header = [name.strip() for name in next(reader)]
            check_header(header, file, 1)
            table = Table(header, file)
            for row in reader:
                if len(row) != len(header):
                    if not row:
                        continue
                    fact = f"{len(row)} values under {len(header)} columns"
                    raise wrong(file, fact, "give each column a value", reader.line_num)
                table.add(row, reader.line_num)
        except csv.Error as error:
            mend = "quote values as CSV does"
            raise wrong(file, f"not CSV: {error}", mend, reader.line_num) from None
    return table


def check_header(header: Sequence[str], file: Path, line: int | None = None) -> None:
    """Check the names of the columns.

    Raises:
        UsageError: one that is needed is missing, or one is there twice.
    """
    missing = [name for name in ("id", *REQUIRED) if name not in header]
    if missing:
        raise wrong(file, f"no column {', '.join(missing)}", FORMAT, line)
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise wrong(file, f"column {shown(twice[0])!r} twice", "name each column once", line)


def read_json(file: Path) -> Table:
    """Read JSON lines: the same keys in each.

    Raises:
        UsageError: with the line and what to write instead.
    """
    names: list[str] = []
    table = Table(names, file)
    with opened(file, newline="\n") as text:
        for line, row in objects(text, file):
            if not names:
                names = list(row)
                missing = [name for name in ("id", *REQUIRED) if name not in names]
                if missing:
                    raise wrong(file, f"no key {', '.join(missing)}", FORMAT, line)
                table = Table(names, file)
            if row.keys() != set(names):
                odd = sorted(row.keys() ^ set(names))[0]
                fact = f"key {shown(odd)!r} is not in every line"
                raise wrong(file, fact, "write the same keys in each line", line)
            table.add([_plain(row[name], name, file, line) for name in names], line)
    return table


def objects(text: io.TextIOBase, file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of JSON lines, with their lines; what is none is a UsageError."""
    for number, line in enumerate(text, 1):
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
        if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            raise wrong(file, f"{shown(name)} is not Unicode text", "write it as UTF-8", line)
        return value
    if value is None:
        return ""
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    fact = f"{shown(name)} is a list or an object"
    raise wrong(file, fact, "write a text or a number", line)


def first_sign(file: Path, mend: str = FORMAT) -> str:
    """The first character that is not blank; ``mend`` says what to write where there is none.

    Raises:
        UsageError: there is none, or the file cannot be read.
    """
    with opened(file, newline="") as text:
        while part := text.read(1 << 16):
            if found := part.lstrip()[:1]:
                return found
    raise wrong(file, "empty", mend)


@contextmanager
def opened(file: Path, newline: str) -> Iterator[io.TextIOBase]:
    """The file's text, decompressed; what is wrong with its bytes is a UsageError."""
    with stream_of(file) as limited:
        text = io.TextIOWrapper(cast("BinaryIO", limited), encoding="utf-8-sig", newline=newline)
        try:
            yield text
        except UnicodeDecodeError as error:
            place = limited.count - len(error.object) + error.start
            raise wrong(file, f"not UTF-8 at byte {place}", "write it as UTF-8") from None
