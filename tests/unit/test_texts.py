"""Columns held compactly, and predictions files that are read in parts."""

from __future__ import annotations

import csv
import hashlib
import random
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctflow.errors import UsageError
from ctflow.gate.files import streams, texts
from ctflow.gate.files.evidence import Predictions, read_predictions
from ctflow.gate.files.predictions import canonical, codes
from ctflow.gate.files.texts import Column, Numbers, Packed, Texts

#: More rows than one part of reading has, and than one part of a column.
MANY = 60_000
#: The csv module of Python 3.10 neither writes nor reads NUL.
_LAST = "a\0" if sys.version_info >= (3, 11) else "a\1"
ODD = ["b", "a", "é", "e\u0301", "\U0001f600", "\uffff", "a\nb", " a", "10", "9", "a,b", _LAST]
LABELS = ["1", "1.0", " 1 ", "é", "3.00", "x y", "-2.0", "0", "0.50", "1e3", "+1.0", "0"]


def write(path: Path, rows: list[list[str]], header: str = "id,label,prediction") -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header.split(","))
        writer.writerows(rows)
    return path


@given(st.lists(st.lists(st.text(max_size=3), max_size=6), max_size=5), st.integers(0, 4))
def test_a_column_holds_the_texts_that_it_was_given(parts: list[list[str]], most: int) -> None:
    column = Column(most)
    for part in parts:
        column.add(part)
    found, expected = column.done(), [text for part in parts for text in part]
    assert list(found) == expected == found
    assert isinstance(found, Texts if len(set(expected)) <= most else Packed)
    assert found[1:4] == expected[1:4]
    assert texts.taken(found, np.arange(len(expected))[::-1]) == expected[::-1]
    if expected:
        assert (found[0], found[-1]) == (expected[0], expected[-1])
        with pytest.raises(IndexError):
            found[len(expected)]


@given(st.lists(st.lists(st.sampled_from(["0.5", "1e-9", "7", "0.1", "x"]), max_size=4)))
def test_a_column_of_many_numbers_is_held_as_numbers(parts: list[list[str]]) -> None:
    column = Column(most=2, numeric=True)
    for part in parts:
        column.add(part)
    found, expected = column.done(), [text for part in parts for text in part]
    assert len(found) == len(expected)
    if len(set(expected)) <= 2:
        assert found == expected
    elif "x" in expected:
        assert [text == "x" for text in found] == [text == "x" for text in expected]
    else:
        assert isinstance(found, Numbers)
        assert found.values.tolist() == list(map(float, expected)) == list(map(float, found))


def test_texts_of_any_column_are_codes() -> None:
    found = Texts.of(["b", "a", "b"])
    assert Texts.of(found) is found
    assert found.equal("b").tolist() == [True, False, True]
    assert not found.equal("c").any()
    assert found.mapped(lambda _: "z").distinct == ["z"]
    assert found.taken(np.array([1, 2, 0])) == ["a", "b", "b"]
    names, (first, second) = codes(found, ["c", "a"])
    assert (names, first.tolist(), second.tolist()) == (["a", "b", "c"], [1, 0, 1], [2, 0])


def test_the_evaluation_set_of_a_file_is_what_it_always_was(tmp_path: Path) -> None:
    rows = [[name, label, "1"] for name, label in zip(ODD[:11], LABELS, strict=False)]
    known = "sha256:97f002d415359faf2915fc9e11c9cda1f459cb037aa234e5d7fc1709adf11a86"
    assert read_predictions(write(tmp_path / "p.csv", rows)).evaluation_set == known


def test_a_large_file_gives_what_lists_give(tmp_path: Path) -> None:
    draw = random.Random(5)
    ids = [*(f"e{i}é" if i % 7 == 0 else f"e{i}" for i in range(MANY - 12)), *ODD]
    draw.shuffle(ids)
    labels = [repr(draw.random()) if i % 2 else LABELS[i % 12] for i in range(MANY)]
    answers = [f"{i % 3}.0" for i in range(MANY)]
    chances = [repr(draw.random()) for _ in ids]
    rows = [list(row) for row in zip(ids, labels, answers, chances, strict=True)]
    path = write(tmp_path / "p.csv", rows, "id,label,prediction,p_1")
    found = read_predictions(path)
    columns = {"label": labels, "prediction": answers, "p_1": chances}
    lists = Predictions(ids, columns, path)

    parts = []
    for name, label in sorted(zip(ids, labels, strict=True)):
        text = canonical(label)
        parts.append(f"{len(name)}:{name}{len(text)}:{text}")
    digest = "sha256:" + hashlib.sha256("".join(parts).encode()).hexdigest()
    assert found.evaluation_set == lists.evaluation_set == digest
    assert found.order.tolist() == lists.order.tolist()
    assert list(found.ids) == ids
    assert list(found.columns["label"]) == labels
    for name in ("label", "prediction"):
        expected = [canonical(columns[name][row]) for row in lists.order.tolist()]
        assert list(found.classes(name)) == list(lists.classes(name)) == expected
    expected_p = [float(chances[row]) for row in lists.order.tolist()]
    assert found.numbers("p_1").tolist() == lists.numbers("p_1").tolist() == expected_p
    for value, positions in found.slices("prediction").items():
        assert positions.tolist() == lists.slices("prediction")[value].tolist()


def test_what_is_kept_of_a_large_file_is_compact(tmp_path: Path) -> None:
    draw = random.Random(6)
    rows = [[f"example-{i}", str(i % 2), "1", repr(draw.random())] for i in range(MANY)]
    path = write(tmp_path / "p.csv", rows, "id,label,prediction,p_1")
    del rows
    tracemalloc.start()
    found = read_predictions(path)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(found.ids, Packed)
    assert isinstance(found.columns["p_1"], Numbers)
    assert kept / MANY < 80, "bytes a row; a Python string alone has 50 or more"
    assert peak / MANY < 400


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({1: ""}, "line 50002: label '' is empty"),
        ({2: "nan"}, "line 50002: prediction 'nan' is not finite"),
        ({3: "NaN"}, "line 50002: p_1 'NaN' is not a finite number"),
        ({3: ""}, "line 50002: p_1 '' is not a finite number"),
        ({3: "1.5"}, "line 50002: p_1 is not within 0 and 1"),
        ({0: "e7"}, "line 9: id 'e7' is there twice"),
        ({0: " "}, "line 50002: id '' is empty"),
    ],
)
@pytest.mark.parametrize("regression", [False, True])
def test_what_is_wrong_far_down_is_named_with_its_line(
    tmp_path: Path, change: dict[int, str], says: str, regression: bool
) -> None:
    draw = random.Random(7)
    rows = [
        [f"e{i}", repr(draw.random()) if regression else "1", "1", repr(draw.random())]
        for i in range(MANY)
    ]
    for column, text in change.items():
        rows[50_000][column] = text
    path = write(tmp_path / "p.csv", rows, "id,label,prediction,p_1")
    with pytest.raises(UsageError) as error:
        read_predictions(path)
    assert says in error.value.fact


def test_lines_are_those_of_the_file_where_values_have_several(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes(b'id,label,prediction\r\n"a\nb",1,1\r\n\r\n"c\r\nd",1,1\r\ne,1,inf\r\n')
    with pytest.raises(UsageError, match="line 7: prediction 'inf'"):
        read_predictions(path)


def test_bytes_that_are_not_utf8_are_named_wherever_they_are(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    text = "id,label,prediction\n" + "".join(f"é{i},1,1\n" for i in range(MANY))
    path.write_bytes(text.encode() + b"x\xff,1,1\n" + text.encode())
    with pytest.raises(UsageError, match=f"not UTF-8 at byte {len(text.encode()) + 1}"):
        read_predictions(path)


def test_more_than_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_BYTES", 1 << 20)
    path = write(tmp_path / "p.csv", [[f"e{i}", "1", "1"] for i in range(200_000)])
    with pytest.raises(UsageError, match="more than 1 MiB"):
        read_predictions(path)
    path.write_text("\n" * (1 << 21))
    with pytest.raises(UsageError, match="more than 1 MiB"):
        read_predictions(path)


def test_blank_lines_only_are_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("\n \n" * 100_000)
    with pytest.raises(UsageError, match="empty"):
        read_predictions(path)
