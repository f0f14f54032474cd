"""Parquet, and Arrow's file (Feather version 2) and stream formats: what their CSV would give.

Columns become texts as ``ctflow.gate.files.arrow_columns`` says. What a file comes to in memory is
checked from what it says of itself before anything is decompressed, and counted as it is read.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from ctflow.gate.files import streams
from ctflow.gate.files.arrow_columns import TypedColumn, readable
from ctflow.gate.files.arrow_sizes import sizes_of_file, sizes_of_stream
from ctflow.gate.files.columns import EMPTY, NUMBER, OTHER, TEXT
from ctflow.gate.files.parquet_sizes import EncryptedError, footer, footer_size
from ctflow.gate.files.predictions import shown, wrong
from ctflow.gate.files.reading import PART, check_header
from ctflow.gate.files.streams import Budget, whole

#: Of a file with more columns, their descriptions alone fill the memory.
MAX_COLUMNS = 50_000
#: How many values of Parquet are decoded at once, of all columns.
_CELLS = 1 << 22
#: How many times its size a description of columns takes in memory: measured is up to 60.
_GROWTH = 64
#: What pyarrow raises on damaged bytes, and what reading them here does.
_DAMAGE = (
    pa.ArrowException, OSError, ValueError, IndexError, KeyError, OverflowError, MemoryError,
    struct.error,
)  # fmt: skip

Columns = dict[str, Sequence[str]]
Read = tuple[Sequence[str], Columns]


def read_arrow(file: Path) -> Read:
    """The ids, and the other columns by name.

    Raises:
        UsageError: the file is damaged, encrypted, too large, or no predictions.
    """
    with _opened(file) as source:
        _check_schema(source.schema, file)
        columns = _columns(source.batches(None), source.rows, file)
    return columns.pop("id"), columns


def read_some(file: Path, wanted: Collection[str]) -> tuple[int, dict[str, str], Columns]:
    """How many rows there are, the kinds of all columns by name, and the wanted ones.

    Those that are not there, or hold neither texts nor numbers, are left out.

    Raises:
        UsageError: the file is damaged, encrypted, too large, or has no rows.
    """
    with _opened(file) as source:
        names = list(_stripped(source.schema.names))
        _check_count(names, file)
        if not source.rows:
            raise wrong(file, "no rows", "write one row an example")
        kinds = {
            name: kind_of(field.type) for name, field in zip(names, source.schema, strict=True)
        }
        places = [
            place for place, name in enumerate(names) if name in wanted and kinds[name] != OTHER
        ]
        for place in places:
            if names.count(names[place]) > 1:
                raise wrong(file, f"column {shown(names[place])!r} twice", "name each column once")
        found = _columns(source.batches(places), source.rows, file) if places else {}
        return source.rows, kinds, found


def kind_of(kind: Any) -> str:
    """What kind of column a type makes."""
    if pa.types.is_dictionary(kind):
        return OTHER if pa.types.is_dictionary(kind.value_type) else kind_of(kind.value_type)
    if not readable(kind):
        return OTHER
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    return NUMBER if is_number else EMPTY if pa.types.is_null(kind) else TEXT


@dataclass(frozen=True)
class _Source:
    """A file that is open: ``batches`` gives those of the columns at some places, None: of all."""

    schema: Any
    rows: int
    batches: Callable[[Sequence[int] | None], Iterable[Any]]


@contextmanager
def _opened(file: Path) -> Iterator[_Source]:
    data = whole(file)
    if data.startswith(b"FEA1"):
        raise wrong(file, "Feather version 1", "write version 2")
    before = pa.default_memory_pool()
    # Arrow's own allocators keep what was freed: 100 MB after a million rows.
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield (_parquet if data.startswith(b"PAR") else _ipc)(data, file)
    except EncryptedError:
        raise wrong(file, "encrypted", "write it without encryption") from None
    except _DAMAGE as error:
        fact = f"damaged: {shown(str(error), 120)}"
        raise wrong(file, fact, "write the file again, and close its writer") from None
    finally:
        pa.set_memory_pool(before)


def _parquet(data: bytearray, file: Path) -> _Source:
    _check_description(footer_size(data), file)
    said = footer(data)
    _check_cells(said.rows, said.columns, file)
    _check_size(said.size, file)
    rows = max(_CELLS // max(said.columns, 1), 1000)
    for size in said.longest.values():
        rows = min(rows, streams.MAX_BYTES // max(size, 1))
    opened = pq.ParquetFile(
        pa.BufferReader(pa.py_buffer(data)),
        # As a dictionary, a long text that repeats takes its length once.
        read_dictionary=sorted(said.texts),
        pre_buffer=False,
        page_checksum_verification=True,
    )
    schema = opened.schema_arrow

    def batches(places: Sequence[int] | None) -> Iterable[Any]:
        names = None if places is None else [schema.names[place] for place in places]
        size = min(max(rows, 1), 1 << 18)
        for batch in opened.iter_batches(size, columns=names, use_threads=False):
            # By a name like a.b it gives the b within a, too.
            yield batch if names is None else batch.select(names)

    return _Source(schema, said.rows, batches)


def _ipc(data: bytearray, file: Path) -> _Source:
    is_file = data.startswith(b"ARROW1")
    rows, budget = 0, Budget(file)
    for found in (sizes_of_file if is_file else sizes_of_stream)(memoryview(data)):
        _check_description(found.metadata, file)
        rows += found.rows
        budget.spend(found.size)
    source = pa.py_buffer(data)
    open_it = pa.ipc.open_file if is_file else pa.ipc.open_stream

    def batches(places: Sequence[int] | None) -> Iterable[Any]:
        options = pa.ipc.IpcReadOptions(included_fields=None if places is None else list(places))
        with open_it(pa.BufferReader(source), options=options) as opened:
            count = opened.num_record_batches if is_file else 0
            yield from (map(opened.get_batch, range(count)) if is_file else opened)

    with open_it(pa.BufferReader(source)) as opened:
        schema = opened.schema
    _check_cells(rows, len(schema), file)
    return _Source(schema, rows, batches)


def _columns(batches: Iterable[Any], rows: int, file: Path) -> Columns:
    budget = Budget(file)
    columns: list[TypedColumn] | None = None
    read = 0
    for batch in batches:
        if columns is None:
            columns = [
                TypedColumn(name, field.type, file, budget)
                for name, field in zip(_stripped(batch.schema.names), batch.schema, strict=True)
            ]
        for column, values in zip(columns, batch.columns, strict=True):
            column.check(values)
        for first in range(0, batch.num_rows, PART):
            for column, values in zip(columns, batch.columns, strict=True):
                column.add(values.slice(first, PART))
        read += batch.num_rows
    if read != rows:
        raise ValueError(f"{read} rows, where it says {rows}")
    if not rows:
        raise wrong(file, "no examples", "write one row an example")
    return {column.name: column.done() for column in columns or ()}


def _stripped(names: Iterable[str]) -> Iterator[str]:
    return (name.strip() for name in names)


def _check_schema(schema: Any, file: Path) -> None:
    names = list(_stripped(schema.names))
    _check_count(names, file)
    check_header(names, file)
    for name, field in zip(names, schema, strict=True):
        if not readable(field.type):
            kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
            fact = f"{shown(name)} is of type {shown(str(kind))}"
            raise wrong(file, fact, "write texts or numbers, or leave the column out")


def _check_count(names: Sequence[str], file: Path) -> None:
    if len(names) > MAX_COLUMNS:
        raise wrong(file, f"{len(names)} columns", f"write at most {MAX_COLUMNS}")


def _check_cells(rows: int, columns: int, file: Path) -> None:
    """As text, a value takes a separator at least, and three of each row are not empty."""
    if rows < 0:
        raise ValueError(f"{rows} rows")
    _check_size(rows * (columns + 3), file)


def _check_description(size: int, file: Path) -> None:
    if size * _GROWTH > streams.MAX_BYTES:
        fact = f"{size / (1 << 20):.1f} MiB that only describe its columns and parts"
        raise wrong(file, fact, "write fewer columns, or fewer and larger parts")


def _check_size(size: int, file: Path) -> None:
    Budget(file).spend(size)
