"""Parquet and Arrow predictions: the same as from their CSV, bounded, and never a traceback."""

from __future__ import annotations

import csv
import datetime as dt
import functools
import gc
import gzip
import io
import random
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctflow.errors import UsageError
from ctflow.gate.files import arrow, reading, streams
from ctflow.gate.files.arrow_columns import TypedColumn
from ctflow.gate.files.evidence import Predictions, read_predictions
from ctflow.gate.files.texts import MAX_DISTINCT, Numbers
from ctflow.gate.metrics.scores import measure

UTC = dt.timezone.utc


def parquet(table: Any, **given: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **given)
    return sink.getvalue()


def ipc(table: Any, kind: str = "file", compression: str | None = None, rows: int = 0) -> bytes:
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    make = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
    with make(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rows or None)
    return sink.getvalue()


def arrow_stream(table: Any) -> bytes:
    return ipc(table, "stream", "zstd", rows=7)


def feather_v2(table: Any) -> bytes:
    sink = io.BytesIO()
    feather.write_feather(table, sink)
    return sink.getvalue()


FORMATS: dict[str, Callable[[Any], bytes]] = {
    "p.parquet": parquet,
    "delta.parquet": lambda table: parquet(
        table, use_dictionary=False, column_encoding={"id": "DELTA_BYTE_ARRAY"}, row_group_size=9
    ),
    "lengths.parquet": lambda table: parquet(
        table, use_dictionary=False, column_encoding={"id": "DELTA_LENGTH_BYTE_ARRAY"}
    ),
    "p.arrow": ipc,
    "p.feather": feather_v2,
    "stream": arrow_stream,
}


#: Those that are written without naming columns.
ANY_NAMES = ("p.parquet", "p.arrow", "p.feather", "stream")


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def read(folder: Path, columns: dict[str, Any], form: str = "p.parquet") -> Predictions:
    return read_predictions(write(folder / form, FORMATS[form](pa.table(columns))))


def some(**more: Any) -> dict[str, Any]:
    return {"id": ["a", "b", "c"], "label": [1, 0, 1], "prediction": [1, 1, 1], **more}


def said_of(path: Path) -> str:
    with pytest.raises(UsageError) as error:
        read_predictions(path)
    assert error.value.fact.startswith(str(path))
    assert error.value.next
    assert error.value.message().isprintable()
    return error.value.fact


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_examples_as_from_their_csv(tmp_path: Path, form: str) -> None:
    rng = np.random.default_rng(1)
    n = 60_000 if form == "p.parquet" else 300
    chances = rng.random(n)
    labels = rng.integers(0, 2, n)
    answers = (chances + 0.3 * rng.random(n) > 0.6).astype(int)
    sites = [None if i % 11 == 0 else f"é{i % 7}" for i in range(n)]
    columns = {
        "id": [f"ex-\U0001f600-{i}" for i in range(n)],
        "label": labels,
        "prediction": answers,
        "p_0": 1 - chances,
        "p_1": chances,
        "site": pa.array(sites).dictionary_encode(),
        "odd": [bool(i % 3) for i in range(n)],
    }
    typed = read(tmp_path, columns, form)
    path = tmp_path / "p.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        rows = zip(
            columns["id"], labels.tolist(), answers.tolist(), (1 - chances).tolist(),
            chances.tolist(), sites, columns["odd"], strict=True,
        )  # fmt: skip
        writer.writerows(rows)
    plain = read_predictions(path)
    assert typed.evaluation_set == plain.evaluation_set
    assert typed.ids == plain.ids
    assert list(typed.columns) == list(plain.columns)
    for name, column in plain.columns.items():
        assert typed.columns[name] == column, name
    if n > MAX_DISTINCT:
        assert isinstance(typed.columns["p_1"], Numbers)
    assert (typed.numbers("p_1") == plain.numbers("p_1")).all()
    for metric in ("accuracy", "brier", "roc_auc", "f1"):
        assert measure(metric, [typed]).values() == measure(metric, [plain]).values()
    assert {name: list(rows) for name, rows in typed.slices("site").items()} == {
        name: list(rows) for name, rows in plain.slices("site").items()
    }


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=9, unique=True),
    st.sampled_from([str, int]),
    st.sampled_from([bool, int, str, float]),
)
def test_ids_and_labels_of_any_type_are_those_of_the_csv(
    ids: list[int], name: type, label: type
) -> None:
    labels = [label(number % 2) for number in ids]
    columns = {"id": [name(number) for number in ids], "label": labels, "prediction": labels}
    texts = {"label": [str(one) for one in labels], "prediction": [str(one) for one in labels]}
    plain = Predictions([str(number) for number in ids], texts, Path("p.csv"))
    table = pa.table(columns)
    for make in (parquet, ipc):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(arrow, "whole", lambda _, make=make: bytearray(make(table)))
            found, others = arrow.read_arrow(Path("p"))
        typed = Predictions(found, others, Path("p"))
        assert typed.evaluation_set == plain.evaluation_set
        assert typed.columns["label"] == plain.columns["label"]


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (pa.array([1, None, 3], pa.int64()), ["1", "", "3"]),
        (pa.array([2**64 - 1, 0, 1], pa.uint64()), [str(2**64 - 1), "0", "1"]),
        (pa.array([True, False, None]), ["True", "False", ""]),
        (pa.array([0.1, 1e-7, 3.0]), ["0.1", "1e-07", "3.0"]),
        (pa.array([0.1, -0.0, 0.0], pa.float32()), ["0.1", "-0.0", "0.0"]),
        (pa.array([0.1, None, 1e16], pa.float32()), ["0.1", "", "1e+16"]),
        (pa.array([0.5, float("nan"), float("-inf")]), ["0.5", "nan", "-inf"]),
        (pa.array([np.float16(0.1), np.float16(2), None], pa.float16()), ["0.1", "2.0", ""]),
        (pa.array([Decimal("1.50"), Decimal("-2.00"), None]), ["1.50", "-2.00", ""]),
        (
            pa.array([dt.date(2024, 2, 29), dt.date(1, 1, 1), None], pa.date32()),
            ["2024-02-29", "0001-01-01", ""],
        ),
        (
            pa.array([dt.date(2024, 2, 29), None, dt.date(1969, 1, 1)], pa.date64()),
            ["2024-02-29", "", "1969-01-01"],
        ),
        (
            pa.array(["2024-02-29T01:02:03", "0001-01-01T00:00:00.5", None]).cast("timestamp[us]"),
            ["2024-02-29T01:02:03", "0001-01-01T00:00:00.500000", ""],
        ),
        (
            pa.array([dt.datetime(2024, 2, 29, tzinfo=UTC), None, None], pa.timestamp("ms", "CET")),
            ["2024-02-29T00:00:00+00:00", "", ""],
        ),
        (pa.array([1, 10**9, None], pa.timestamp("ns")), ["1970-01-01T00:00:00.000000001",
                                                          "1970-01-01T00:00:01", ""]),
        (pa.array(["x", None, "x"], pa.large_string()), ["x", "", "x"]),
        (pa.nulls(3), ["", "", ""]),
        (pa.array([7, 8, 7]).dictionary_encode(), ["7", "8", "7"]),
        (
            pa.DictionaryArray.from_arrays(pa.array([1, None, 0], pa.int8()), [True, False]),
            ["False", "", "True"],
        ),
        (
            pa.DictionaryArray.from_arrays(pa.array([0, 1, 2]), pa.array(["x", "x", None])),
            ["x", "x", ""],
        ),
    ],
    ids=lambda one: str(getattr(one, "type", "")),
)  # fmt: skip
def test_each_type_has_the_text_of_a_csv(tmp_path: Path, values: Any, texts: list[str]) -> None:
    has_gap = pa.types.is_dictionary(values.type) and values.dictionary.null_count
    for form in ("p.arrow", "stream", *([] if has_gap else ["p.parquet"])):
        found = read(tmp_path, some(other=values), form)
        assert list(found.columns["other"]) == texts
        assert sorted(found.texts("other").distinct) == sorted(set(texts))


def test_python_writes_such_dates_itself() -> None:
    moments = [dt.datetime(2024, 1, 2, 3, 4, 5, micro, UTC) for micro in (0, 5, 500_000, 123_456)]
    column = TypedColumn("when", pa.timestamp("us", "UTC"), Path("p"), streams.Budget(Path()))
    column.add(pa.array(moments, pa.timestamp("us", "UTC")))
    assert list(column.done()) == [moment.isoformat() for moment in moments]


def test_views_of_texts(tmp_path: Path) -> None:
    texts = ["short", None, "a text that is longer than twelve bytes é"]
    values = pa.array(texts, pa.string_view())
    found = read(
        tmp_path,
        some(id=pa.array(["short", "b", texts[2]], pa.string_view()), site=values),
        "p.arrow",
    )
    assert list(found.columns["site"]) == [text or "" for text in texts]
    assert list(found.ids) == ["short", "b", texts[2]]
    found = read(tmp_path, some(site=values.dictionary_encode(), id=[*texts[::2], "x"]), "stream")
    assert list(found.columns["site"]) == [text or "" for text in texts]


def test_whole_numbers_are_classes_in_any_type(tmp_path: Path) -> None:
    columns = some(label=[1.0, 0.0, 1.0], prediction=pa.array([1, 1, 1], pa.int8()))
    for form in FORMATS:
        found = read(tmp_path, columns, form)
        assert found.classes("label") == ["1", "0", "1"]
        assert measure("accuracy", [found]).values()[0] == pytest.approx(2 / 3)


def test_floats_of_32_bits_are_what_their_csv_says(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    n = 2 * MAX_DISTINCT
    values = rng.normal(0, 10, n).astype(np.float32)
    ids = [str(i) for i in range(n)]
    columns = {"id": ids, "label": values, "prediction": values, "score": values}
    typed = read(tmp_path, columns)
    plain = Predictions(ids, {"label": [*map(str, values)], "prediction": ids}, Path("p.csv"))
    assert typed.evaluation_set == plain.evaluation_set
    assert isinstance(typed.columns["label"], Numbers)
    in_order = values[typed.order]
    assert (typed.numbers("score") == in_order.astype(np.float64)).all()
    assert (typed.numbers("label").astype(np.float32) == in_order).all()


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32()])
def test_a_late_gap_in_a_column_of_numbers_is_found(tmp_path: Path, kind: Any) -> None:
    n = 3 * reading.PART
    values = np.random.default_rng(3).random(n)
    numbers = pa.array(values, kind)
    gap = pa.concat_arrays([numbers.slice(0, n - 2), pa.nulls(1, kind), numbers.slice(n - 1)])
    ids = list(range(n))
    base = {"id": ids, "label": numbers, "prediction": numbers}
    says = {"label": "label '' is empty", "p_1": "p_1 '' is not a finite number"}
    for name, fact in says.items():
        path = write(tmp_path / "p.parquet", parquet(pa.table(base | {name: gap})))
        assert f"row {n - 1}: {fact}" in said_of(path)
    found = read(tmp_path, base | {"other": gap})
    assert found.columns["other"][n - 2] == ""
    assert float(found.columns["other"][0]) == pytest.approx(values[0])


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"id": ["a", None, "c"]}, "row 2: id '' is empty"),
        ({"id": ["a", "b", "b"]}, "row 2: id 'b' is there twice"),
        ({"label": [1, 0, None]}, "row 3: label '' is empty"),
        ({"prediction": [None, 1, 1]}, "row 1: prediction '' is empty"),
        ({"prediction": [0.5, float("nan"), 1]}, "row 2: prediction 'nan' is not finite"),
        ({"label": [0.5, float("inf"), 1]}, "row 2: label 'inf' is not finite"),
        ({"score": [0.5, float("nan"), 1]}, "row 2: score 'nan' is not a finite number"),
        ({"score": [None, 1, 1]}, "row 1: score '' is not a finite number"),
        ({"p_1": [0.5, 1.5, 1]}, "row 2: p_1 is not within 0 and 1"),
        ({"p_1": pa.array([1, 2, 1], pa.float32())}, "row 2: p_1 is not within 0 and 1"),
        ({"p_1": ["0.5", "x", "1"]}, "row 2: p_1 'x' is not a finite number"),
        ({"id ": ["a", "b", "c"]}, "column 'id' twice"),
        ({"x": [[1], [2], []]}, "x is of type list<"),
        ({"x": [{"a": 1}] * 3}, "x is of type struct<"),
        ({"x": [b"1", b"2", b"3"]}, "x is of type binary"),
        ({"x": pa.array([[("a", 1)]] * 3, pa.map_(pa.string(), pa.int8()))}, "x is of type map<"),
        ({"x": pa.array([1, 2, 3], pa.time32("s"))}, "x is of type time32"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["p.parquet", "stream"])
def test_refuses_with_row_or_column(
    tmp_path: Path, more: dict[str, Any], says: str, form: str
) -> None:
    path = write(tmp_path / form, FORMATS[form](pa.table(some(**more))))
    assert says in said_of(path)


def test_refuses_durations_which_parquet_does_not_have(tmp_path: Path) -> None:
    lasting = pa.table(some(x=pa.array([1, 2, 3], pa.duration("s"))))
    path = write(tmp_path / "stream", FORMATS["stream"](lasting))
    assert "x is of type duration" in said_of(path)


def test_refuses_tables_that_are_no_predictions(tmp_path: Path) -> None:
    empty = pa.table({"id": [], "label": [], "prediction": []})
    for form, make in FORMATS.items():
        if form in ANY_NAMES:
            assert "no examples" in said_of(write(tmp_path / form, make(empty)))
        assert "no column prediction" in said_of(
            write(tmp_path / form, make(pa.table({"id": ["a"], "label": [1]})))
        )
    twice = pa.Table.from_arrays([pa.array(["a"])] * 4, ["id", "label", "prediction", "label"])
    for make in (parquet, ipc, arrow_stream):
        assert "column 'label' twice" in said_of(write(tmp_path / "p", make(twice)))


def test_gzip_and_folders_and_names(tmp_path: Path) -> None:
    table = pa.table(some())
    for form, make in FORMATS.items():
        for number, zipped in enumerate((False, True)):
            folder = tmp_path / f"{form}-{number}"
            folder.mkdir()
            (folder / "_SUCCESS").touch()
            (folder / ".part.crc").write_bytes(b"x")
            content = make(table)
            name = "part-0" + (Path(form).suffix or ".arrow") + ".gz" * zipped
            write(folder / name, gzip.compress(content) if zipped else content)
            assert list(read_predictions(folder).ids) == ["a", "b", "c"]
    write(folder / "other.parquet", parquet(table))
    assert "2 possible predictions files" in said_of(folder)
    named = write(tmp_path / "csv.parquet", b"id,label,prediction\na,1,1\n")
    assert "neither Parquet nor Arrow" in said_of(named)
    assert "empty" in said_of(write(tmp_path / "none.parquet", b""))
    # The bytes say what it is, whatever its name.
    assert len(read_predictions(write(tmp_path / "p.csv", parquet(table)))) == 3


def test_columns_with_dots_and_blanks_in_their_names(tmp_path: Path) -> None:
    columns = {" id": ["a"], "label ": ["x"], "prediction": ["x"], "a.b": ["y"]}
    for form in ANY_NAMES:
        assert read(tmp_path, columns, form).columns["a.b"][0] == "y"


# -- too much --------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    """The limit, made a thousandth of what it is."""
    monkeypatch.setattr(streams, "MAX_BYTES", 1 << 20)
    return 1 << 20


@functools.cache
def bombs() -> dict[str, bytes]:
    """Small files that come to more than 8 MiB."""
    n = 1 << 20
    zeros = pa.table({"id": np.zeros(n), "label": np.zeros(n), "prediction": np.zeros(n)})
    long = pa.DictionaryArray.from_arrays(pa.array(np.zeros(200, np.int32)), ["x" * 60_000])
    short = [str(i) for i in range(200)]
    table = pa.table({"id": short, "label": short, "prediction": short, "site": long})
    plain = table.set_column(3, "site", long.cast(pa.string()))
    shared = {"use_dictionary": False, "column_encoding": {"site": "DELTA_BYTE_ARRAY"}}
    same = [pa.py_buffer(struct.pack("<i4sii", 60_000, b"xxxx", 0, 0) * 200)]
    views = pa.Array.from_buffers(pa.string_view(), 200, [None, *same, pa.py_buffer(b"x" * 60_000)])
    nothing = pa.table({"id": pa.nulls(n), "label": pa.nulls(n), "prediction": pa.nulls(n)})
    wide = pa.table({name: ["1"] for name in ("id", "label", "prediction", *map(str, range(9)))})
    return {
        "zeros, Parquet": parquet(zeros, compression="zstd"),
        "zeros, file": ipc(zeros, "file", "zstd"),
        "zeros, stream": ipc(zeros, "stream", "lz4"),
        "zeros, gzip": gzip.compress(ipc(zeros, "file")),
        "one long text, Parquet": parquet(plain),
        "one long text, prefixes": parquet(plain, compression="zstd", **shared),
        "one long text, dictionary": ipc(table, "file"),
        "one long text, views": ipc(table.set_column(3, "site", views), "stream", "zstd"),
        "a large dictionary": ipc(
            table.set_column(
                3, "site", pa.DictionaryArray.from_arrays(
                    pa.array(np.zeros(200, np.int32)), [f"{i:0100}" for i in range(100_000)]
                ),
            ), "file", "zstd",
        ),
        "no values at all, Parquet": parquet(nothing),
        "no values at all, stream": ipc(nothing, "stream"),
        "rows of one wide table": parquet(pa.concat_tables([wide] * 90_000)),
    }  # fmt: skip


@pytest.mark.parametrize("kind", bombs())
def test_a_small_file_that_comes_to_much_is_refused(tmp_path: Path, small: int, kind: str) -> None:
    path = write(tmp_path / "p", bombs()[kind])
    if "gzip" not in kind and "views" not in kind and "large" not in kind:
        assert path.stat().st_size < small, kind
    gc.collect()
    pool = pa.default_memory_pool()
    before, peak = pool.bytes_allocated(), pool.max_memory()
    tracemalloc.start()
    try:
        assert "more than 1 MiB" in said_of(path)
        used = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert used < 16 * small
    assert pool.max_memory() <= max(peak, before + 16 * small)


def test_many_columns_are_read_and_too_many_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pa.table(some(**{f"c{i}": [i] * 3 for i in range(3000)}))
    path = write(tmp_path / "p", parquet(table))
    assert len(read_predictions(path).columns) == 3002
    monkeypatch.setattr(streams, "MAX_BYTES", 1 << 20)
    for make in (parquet, ipc, arrow_stream):
        fact = said_of(write(tmp_path / "p", make(table)))
        assert fact.endswith("MiB that only describe its columns and parts")
    monkeypatch.undo()
    monkeypatch.setattr(arrow, "MAX_COLUMNS", 2999)
    for make in (parquet, ipc):
        assert "3003 columns" in said_of(write(tmp_path / "p", make(table)))


# -- damage ----------------------------------------------------------------------------------------


def sound(make: Callable[[Any], bytes]) -> bytes:
    n = 40
    table = {
        "id": [f"example {i}" for i in range(n)],
        "label": [i % 2 for i in range(n)],
        "prediction": pa.array([str(i % 3) for i in range(n)]).dictionary_encode(),
        "p_1": [i / n for i in range(n)],
        "when": pa.array(range(n), pa.timestamp("s")),
    }
    return make(pa.table(table))


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, form: str) -> None:
    content = sound(FORMATS[form])
    assert len(read_predictions(write(tmp_path / "p", content))) == 40
    for end in range(6, len(content), 5):
        fact = said_of(write(tmp_path / form, content[:end]))
        assert "damaged" in fact, end
        assert "\n" not in fact
    for end in range(6):
        said_of(write(tmp_path / form, content[:end]))


@pytest.mark.parametrize("form", FORMATS)
def test_flipped_bytes_are_read_or_refused(tmp_path: Path, form: str) -> None:
    content = sound(FORMATS[form])
    rng = random.Random(form)
    refused = 0
    for _ in range(400):
        changed = bytearray(content)
        for _ in range(rng.choice((1, 1, 3, 10))):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        path = write(tmp_path / form, bytes(changed))
        try:
            found = read_predictions(path)
            assert len(found) > 0
            assert found.evaluation_set
            found.texts("when")
        except UsageError as error:
            refused += 1
            message = error.message()
        else:
            continue
        assert message.isprintable()
    assert refused > 50


def test_messages_that_say_what_cannot_be(tmp_path: Path) -> None:
    stream = sound(lambda table: ipc(table, "stream"))
    end = struct.pack("<II", 0xFFFFFFFF, 0)
    assert stream.endswith(end)
    assert "no end-of-stream mark" in said_of(write(tmp_path / "p", stream[:-8]))
    assert "no message at byte" in said_of(write(tmp_path / "p", stream[:-8] + b"x" * 8))
    file = sound(ipc)
    other = ipc(pa.table(some()))
    length, start = (struct.unpack("<i", one[-10:-6])[0] for one in (other, file))
    mixed = file[: -10 - start] + other[-10 - length :]
    assert "damaged" in said_of(write(tmp_path / "p", mixed))


def test_arrow_files_whose_messages_are_wide_apart(tmp_path: Path) -> None:
    """Some writers begin each at a multiple of 64 bytes; only the footer says where they are."""
    file = sound(ipc)
    size = struct.unpack("<i", file[-10:-6])[0]
    body, footer, gap = file[8 : -10 - size], bytearray(file[-10 - size : -10]), 56
    places = [place for place in range(8, len(file), 8) if file[place : place + 4] == b"\xff" * 4]
    moved = 0
    for place in places:
        at = footer.find(struct.pack("<q", place))
        if at >= 0:
            footer[at : at + 8] = struct.pack("<q", place + gap)
            moved += 1
    assert moved == 2  # the dictionary and the batch
    wide = file[:8] + bytes(gap) + body + bytes(footer) + file[-10:]
    assert len(read_predictions(write(tmp_path / "p.arrow", wide))) == 40


def test_a_footer_of_other_types_is_damaged(tmp_path: Path) -> None:
    """What the footer is read as here is checked before it is used."""

    def field(step: int, kind: int, content: bytes) -> bytes:
        return bytes([step << 4 | kind]) + content

    def listed(kind: int, *items: bytes) -> bytes:
        return bytes([len(items) << 4 | kind]) + b"".join(items)

    end, one, whole, texts, many, group = b"\0", b"\2", 5, 8, 9, 12
    says = {
        "no encodings": "a column without encodings",
        "a name": "a column without a name",
        "no name": "a column without a name",
        "a size": "-1 is no size",
    }
    name = field(1, many, listed(texts, b"\1x"))
    size = field(3, 6, b"\4")
    kinds = {
        "encodings": field(1, whole, b"\x0c") + field(1, many, listed(group, end)) + name + size,
        "no encodings": field(1, whole, b"\x0c") + field(2, many, listed(texts, b"\1x")) + size,
        "a name": field(1, whole, b"\2") + field(2, many, listed(whole, one)) + size,
        "no name": field(1, whole, b"\2") + field(2, whole, one) + size,
        "a size": field(1, whole, b"\2")
        + field(2, many, listed(texts, b"\1x"))
        + field(3, 6, b"\1"),
    }
    for kind, column in kinds.items():
        chunk = field(3, group, column + end) + end
        groups = field(1, many, listed(group, field(1, many, listed(group, chunk)) + end))
        said = field(3, 6, b"\2") + groups + end
        content = b"PAR1" + said + struct.pack("<I", len(said)) + b"PAR1"
        fact = said_of(write(tmp_path / "p", content))
        assert fact.endswith(says.get(kind, "")), fact
        assert "damaged" in fact
    for said in (b"\x3c" * 200, b"\x39" + b"\x19" * 200, field(3, 6, b"\xff" * 12), b"\x4d", b""):
        content = b"PAR1" + said + struct.pack("<I", len(said)) + b"PAR1"
        assert "damaged" in said_of(write(tmp_path / "p", content))


def test_a_dictionary_is_not_believed(tmp_path: Path) -> None:
    for place in (5, -1, 127):
        indices = pa.Array.from_buffers(
            pa.int8(), 3, [None, pa.py_buffer(struct.pack("bbb", 0, 1, place))]
        )
        values = pa.DictionaryArray.from_arrays(indices, pa.array(["x", "y"]), safe=False)
        for form in ("p.arrow", "stream"):
            path = write(tmp_path / form, FORMATS[form](pa.table(some(site=values))))
            assert "site" in said_of(path)


def test_texts_that_are_not_utf_8(tmp_path: Path) -> None:
    texts = pa.array([b"a", b"\xff\xfe", b"c"]).view(pa.string())
    for form in ("p.parquet", "p.arrow"):
        for columns in (some(site=texts), some(site=texts.dictionary_encode()), some(id=texts)):
            path = write(tmp_path / form, FORMATS[form](pa.table(columns)))
            assert "not UTF-8" in said_of(path)


def test_encrypted_files_and_the_first_feather(tmp_path: Path) -> None:
    import pyarrow.parquet.encryption as pe

    class Keys(pe.KmsClient):  # type: ignore[misc]
        def wrap_key(self, key: bytes, name: str) -> bytes:
            return key

        def unwrap_key(self, key: bytes, name: str) -> bytes:
            return key

    table = pa.table(some())
    factory = pe.CryptoFactory(lambda _: Keys())
    for plain in (False, True):
        config = pe.EncryptionConfiguration(
            footer_key="f", column_keys={"c": ["label"]}, plaintext_footer=plain,
            double_wrapping=False,
        )  # fmt: skip
        properties = factory.file_encryption_properties(pe.KmsConnectionConfig(), config)
        content = parquet(table, encryption_properties=properties)
        assert content.startswith(b"PAR1" if plain else b"PARE")
        assert said_of(write(tmp_path / "p.parquet", content)).endswith("encrypted")
    assert "Feather version 1" in said_of(write(tmp_path / "p.feather", b"FEA1 and so on FEA1"))


# -- pyarrow itself --------------------------------------------------------------------------------


def test_without_pyarrow_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "p.parquet", parquet(pa.table(some())))
    for name in [name for name in sys.modules if name.startswith("ctflow.gate.files.arrow")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError) as error:
        read_predictions(path)
    assert "install ctflow[parquet]" in error.value.message()
    assert str(path) in error.value.fact


def test_pyarrow_is_imported_only_for_its_files(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", b"id,label,prediction\na,1,1\n")
    program = (
        "import sys; from pathlib import Path; import ctflow.gate, ctflow.cli\n"
        "from ctflow.gate.files.evidence import read_predictions\n"
        "read_predictions(Path(sys.argv[1]))\n"
        "print(sorted(name for name in sys.modules if name.startswith('pyarrow')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_pandas_is_not_imported(tmp_path: Path) -> None:
    """It takes a second and 100 MB, and pyarrow imports it on the least occasion."""
    pytest.importorskip("pandas")
    days = pa.array([dt.date(2024, 1, 1), None, None])
    more = {"p_1": [0.5] * 3, "x": ["a", None, "b"], "day": days, "f": [1.5, None, 2]}
    columns = some(**more, y=pa.array(["a", None, "b"]).dictionary_encode())
    paths = [str(write(tmp_path / form, FORMATS[form](pa.table(columns)))) for form in ANY_NAMES]
    program = (
        "import sys; from pathlib import Path\n"
        "from ctflow.gate.files.evidence import read_predictions\n"
        "for path in sys.argv[1:]: read_predictions(Path(path))\n"
        "print('pyarrow' in sys.modules, 'pandas' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *paths], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "False"]


def test_memory_that_was_freed_goes_back_to_the_system(tmp_path: Path) -> None:
    """Arrow's default allocator would keep it; and it is the default again afterwards."""
    names = [f"example-{number}" for number in range(20_000)]
    table = pa.table({"id": names, "label": [0, 1] * 10_000, "prediction": [1, 0] * 10_000})
    file, broken = tmp_path / "predictions.parquet", tmp_path / "broken.parquet"
    file.write_bytes(parquet(table))
    broken.write_bytes(b"PAR1" + bytes(50))
    pool, system = pa.default_memory_pool(), pa.system_memory_pool()
    assert pool.backend_name != "system"
    before = pool.total_bytes_allocated(), system.total_bytes_allocated()
    read_predictions(file)
    own = pool.total_bytes_allocated() - before[0]
    # The reader of Parquet takes a little from the default one all the same.
    assert own < (system.total_bytes_allocated() - before[1]) / 20
    with pytest.raises(UsageError):
        read_predictions(broken)
    assert pa.default_memory_pool().backend_name == pool.backend_name
