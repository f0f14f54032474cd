"""Rules on training data: the files, the summaries, the distances and what is said of them."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from scipy import optimize, special, stats

from ctflow.config.gate_rules import GateRule
from ctflow.errors import UsageError
from ctflow.gate.data import Unknown, data_reason
from ctflow.gate.files import columns as columns_module
from ctflow.gate.files import streams
from ctflow.gate.files.columns import category, column_of_texts, parsed
from ctflow.gate.files.tables import DataTable, read_data
from ctflow.gate.intervals.drift import Distribution, binned, edges_of, ks, psi
from ctflow.gate.summaries import DataSummary, read_summary, summary_of
from ctflow.model import Reason, to_json

RNG = np.random.default_rng
COLUMNS: dict[str, list[Any]] = {
    "id": ["a", "b", "c", "d"],
    "age": [41, None, 17, 17],
    "height": [1.5, 1.8, float("nan"), 1.7],
    "city": ["Oslo", "Bergen", None, "Oslo"],
    "member": [True, False, True, None],
}


def rule(**said: Any) -> GateRule:
    return GateRule.model_validate({"data": "collect.dataset"} | said)


def write_csv(path: Path, columns: dict[str, Any]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        rows = zip(*columns.values(), strict=True)
        writer.writerows([["" if one is None else one for one in row] for row in rows])
    return path


def write_json(path: Path, columns: dict[str, Any]) -> Path:
    rows = zip(*columns.values(), strict=True)
    path.write_text(
        "".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows)
    )
    return path


def write_parquet(path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def write_feather(path: Path, columns: dict[str, Any]) -> Path:
    pyarrow.feather.write_feather(pa.table(columns), path)
    return path


WRITERS: dict[str, Callable[[Path, dict[str, Any]], Path]] = {
    "csv": write_csv, "jsonl": write_json, "parquet": write_parquet, "feather": write_feather,
}  # fmt: skip


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", WRITERS)
def test_every_format_gives_the_same_columns(form: str, tmp_path: Path) -> None:
    path = WRITERS[form](tmp_path / f"data.{form}", COLUMNS)
    found = read_data(path, {"age", "height", "city", "member", "gone"})
    assert (found.rows, found.names) == (4, tuple(COLUMNS))
    assert found.kinds == {"age": "number", "height": "number", "city": "text", "member": "text"}
    age, height, city = (found.columns[name] for name in ("age", "height", "city"))
    assert (age.numbers.tolist(), age.missing, age.rows) == ([17, 17, 41], 1, 4)
    assert (height.numbers.tolist(), height.missing) == ([1.5, 1.7, 1.8], 1)
    assert (dict(city.counts), city.missing) == ({"Oslo": 2, "Bergen": 1}, 1)
    assert dict(found.columns["member"].counts) == {"True": 2, "False": 1}
    assert set(found.columns) == {"age", "height", "city", "member"}


@pytest.mark.parametrize("form", WRITERS)
def test_kinds_of_all_columns_are_found_where_they_are_asked_for(form: str, tmp_path: Path) -> None:
    path = WRITERS[form](tmp_path / "data", COLUMNS | {"none": [None] * 4})
    found = read_data(path, (), all_kinds=True)
    assert found.columns == {}
    assert found.kinds == {
        "id": "text", "age": "number", "height": "number", "city": "text", "member": "text",
        "none": "empty",
    }  # fmt: skip
    assert read_data(path, {"age"}).kinds == {"age": "number"}


def test_only_the_columns_asked_for_are_held(tmp_path: Path) -> None:
    # An unwanted column may hold what no rule could use.
    table = {"age": [1, 2], "shape": [[1], [2, 3]], "a.b": [5, 6], "a": [{"b": 1}, {"b": 2}]}
    for form in ("parquet", "feather", "jsonl"):
        path = WRITERS[form](tmp_path / form, table)
        assert read_data(path, {"age"}).columns["age"].numbers.tolist() == [1, 2]
        found = read_data(path, {"shape", "a.b"}, all_kinds=True)
        assert found.kinds == {"age": "number", "shape": "other", "a.b": "number", "a": "other"}
        assert found.columns["a.b"].numbers.tolist() == [5, 6]


def test_a_column_of_many_rows_is_read_in_parts(tmp_path: Path) -> None:
    n = 45_000
    numbers, names = RNG(1).normal(size=n), [f"n{i % 30_000}" for i in range(n)]
    late: list[Any] = [1.5] * (n - 1) + ["?"]
    table = {"x": numbers.tolist(), "name": names, "late": late}
    for form in ("csv", "jsonl"):
        found = read_data(WRITERS[form](tmp_path / form, table), set(table))
        assert np.array_equal(found.columns["x"].numbers, np.sort(numbers))
        assert found.columns["late"].kind == "text"
        assert found.columns["late"].counts == {"1.5": n - 1, "?": 1}
        assert found.columns["late"].example == "?"
        assert len(found.columns["name"].counts) == 30_000


def test_a_key_that_comes_late_is_missing_before(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f'{{"a": {i}}}\n' for i in range(25_000)) + '{"a": 1, "b": 2}\n')
    found = read_data(path, {"b"}, all_kinds=True)
    assert (found.columns["b"].missing, found.columns["b"].numbers.tolist()) == (25_000, [2])
    assert found.kinds == {"a": "number", "b": "number"}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"", "empty"),
        ("a.csv", b"age,city\n", "no rows"),
        ("a.csv", b"age,age\n1,2\n", "column 'age' twice"),
        ("a.csv", b"age,city\n1\n", "line 2: 1 values under 2 columns"),
        ("a.csv", b"age\n\xff\n", "not UTF-8"),
        ("a.csv", b"age\n" + b'"x\n', "not CSV"),
        ("a.jsonl", b"[1]\n", "not a JSON object"),
        ("a.jsonl", b'{"age": 1}\n{', "line 2: not JSON"),
        ("a.parquet", b"age\n1\n", "neither Parquet nor Arrow"),
        ("a.parquet", b"PAR1" + bytes(40), "damaged"),
        ("a.csv", b"\x1f\x8b123", "cannot be read"),
    ],
)
def test_a_file_that_is_no_data_is_one_clear_line(
    name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=said):
        read_data(tmp_path / name, {"age"}, all_kinds=True)


def test_a_folder_holds_one_file(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    write_csv(folder / "a.csv", COLUMNS)
    (folder / ".hidden").write_text("")
    assert read_data(folder, {"age"}).rows == 4
    write_csv(folder / "b.csv", COLUMNS)
    with pytest.raises(UsageError, match="a folder of 2 files"):
        read_data(folder, {"age"})
    with pytest.raises(UsageError, match="not a file"):
        read_data(tmp_path / "gone.csv", {"age"})


def test_what_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = tmp_path / "wide.csv"
    wide.write_text(",".join(f"c{i}" for i in range(60_000)) + "\n")
    with pytest.raises(UsageError, match="more than 50,000 columns"):
        read_data(wide, {"c1"})
    keys = tmp_path / "keys.jsonl"
    keys.write_text("".join(json.dumps({f"k{i}": 1}) + "\n" for i in range(50_001)))
    with pytest.raises(UsageError, match="more than 50,000 columns"):
        read_data(keys, {"k1"})
    monkeypatch.setattr(streams, "MAX_BYTES", 1 << 20)
    bomb = tmp_path / "bomb.csv"
    bomb.write_bytes(gzip.compress(b"age\n" + b"1\n" * (1 << 20)))
    with pytest.raises(UsageError, match="more than 1 MiB"):
        read_data(bomb, {"age"})
    # As a dictionary it is small.
    texts = pa.array(["x" * 5000] * 1000).dictionary_encode()
    pq.write_table(pa.table({"text": texts}), tmp_path / "texts.parquet")
    with pytest.raises(UsageError, match="more than 1 MiB"):
        read_data(tmp_path / "texts.parquet", {"text"})


def test_texts_are_counted_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns_module, "MAX_COUNTED", 100)
    rare = [f"rare {i}" for i in range(60_000)]
    texts = [text for one in rare for text in (one, "common")]
    found = column_of_texts(texts)
    assert len(found.counts) <= 200
    assert 60_000 - len(texts) / 100 <= found.counts["common"] <= 60_000
    assert (found.kind, found.missing) == ("text", 0)
    assert column_of_texts([f"{i}x" for i in range(1000)]).kind == "text"


def test_odd_values() -> None:
    assert parsed(["1", " 2.5 ", "", "nan", "1e400"]) is not None
    numbers = column_of_texts(["3", "-inf", "", "inf", "nan"])
    assert numbers.missing == 2
    assert np.isfinite(numbers.numbers).all()
    assert numbers.numbers[1] == 3
    assert column_of_texts(["1_000"]).kind == "text"
    assert column_of_texts(["", " "]).kind == "empty"
    assert column_of_texts(["07", "08"], as_text=True).counts == {"07": 1, "08": 1}
    assert category("Oslo") == "Oslo"
    odd = [category("x" * 101), category("x" * 102), category("a\nb"), category("\ud800")]
    assert len(set(odd)) == 4
    assert all(one.isprintable() and len(one) < 90 for one in odd)


# -- distances -------------------------------------------------------------------------------------


def test_psi_is_both_relative_entropies() -> None:
    first, second = np.array([30, 50, 20]), np.array([150, 200, 50])
    p, q = first / 100, second / 400
    found = psi(first, second, 0.95)
    assert found.plain == pytest.approx(np.sum(special.rel_entr(p, q) + special.rel_entr(q, p)))
    # Of small differences it is the chi-square of homogeneity, times 1/n + 1/m.
    first, second = np.array([3000, 5050, 1950]), np.array([3010, 5000, 1990])
    chi2 = stats.chi2_contingency([first, second], correction=False)[0]
    found = psi(first, second, 0.95)
    assert found.plain == pytest.approx(chi2 * 2 / 10_000, rel=0.01)
    # Less what chance adds on average, 2 degrees of freedom.
    assert found.plain - found.value == pytest.approx(min(found.plain, 2 * 2 / 10_000), rel=0.01)
    assert found.low <= found.value <= found.high


def test_an_empty_bin_is_half_an_example() -> None:
    found = psi(np.array([0, 100]), np.array([40, 60]), 0.95)
    p, q = np.array([0.005, 1]), np.array([0.4, 0.6])
    assert found.plain == pytest.approx(float(np.sum((p - q) * np.log(p / q))))


@pytest.mark.parametrize("draw", ["normal", "few", "one"])
def test_ks_is_that_of_scipy(draw: str) -> None:
    rng = RNG(2)
    for n, m in ((1, 1), (7, 5), (200, 90), (1500, 3000)):
        if draw == "normal":
            one, other = rng.normal(size=n), rng.normal(0.3, 1.5, m)
        else:
            one, other = rng.integers(0, 4 if draw == "few" else 1, (2, max(n, m)))
            one, other = one[:n].astype(float), other[:m] + rng.integers(0, 2)
        found = ks(of(one), of(other), 0.95)
        assert found.value == pytest.approx(stats.ks_2samp(one, other).statistic, abs=1e-12)
        assert found.low <= found.value <= found.high


def of(numbers: Any) -> Distribution:
    return Distribution.of(np.sort(np.asarray(numbers, float)))


def test_a_thinned_distribution_is_as_good() -> None:
    rng = RNG(3)
    one = np.concatenate([rng.normal(size=30_000), np.zeros(5000), np.full(5000, 2.0)])
    other = np.concatenate([rng.normal(0.1, 1, 20_000), np.zeros(1000)])
    full, thin = of(one), of(one).thinned(2000)
    assert len(thin.values) < 2100
    exact = stats.ks_2samp(one, other).statistic
    found = ks(thin, of(other), 0.95)
    assert exact - 1 / 2000 <= found.value <= exact
    # What is left out counts against the model.
    assert found.high >= ks(full, of(other), 0.95).high - 1e-12
    assert 2.0 in thin.values
    edges = edges_of(thin, 10)
    shares = binned(thin, edges) / 40_000
    assert np.array_equal(binned(thin, edges), binned(full, edges))
    # 0 is an edge that several quantiles share; elsewhere there is a tenth between two edges.
    assert shares.sum() == 1
    assert np.all((np.abs(shares - 0.1) < 0.001) | (shares > 0.12) | (shares < 0.09))


def test_bins_are_deciles_and_values_that_many_share_are_one_edge() -> None:
    assert edges_of(of(range(1, 101)), 10).tolist() == [10, 20, 30, 40, 50, 60, 70, 80, 90]
    assert binned(of(range(1, 101)), np.array([10.0, 20.0])).tolist() == [10, 10, 80]
    rare = of([0] * 97 + [1] * 3)
    assert binned(rare, edges_of(rare, 10)).tolist() == [97, 3]
    same = of([5.0] * 10)
    assert binned(same, edges_of(same, 10)).tolist() == [0, 10, 0]
    assert binned(of([4.9, 5, 5.1, 6]), edges_of(same, 10)).tolist() == [1, 1, 2]


def test_populations_at_the_bound_pass_as_rarely_as_said() -> None:
    """Two-sided 95%, so 2.5%; 400 pairs give a standard error of 0.8 points."""
    rng = RNG(4)
    deciles = stats.norm.ppf(np.arange(1, 10) / 10)

    def index(shift: float) -> float:
        shares = np.diff(stats.norm.cdf(deciles - shift), prepend=0, append=1)
        return float(np.sum((0.1 - shares) * np.log(0.1 / shares)))

    shift = optimize.brentq(lambda one: index(one) - 0.2, 0, 3)
    distance = 2 * stats.norm.cdf(shift / 2) - 1
    kept = {"psi": 0, "ks": 0}
    beyond = {"psi": 0, "ks": 0}
    values = []
    for _ in range(400):
        one, other = of(rng.normal(size=600)), of(rng.normal(shift, 1, 400))
        edges = edges_of(one, 10)
        found = psi(binned(one, edges), binned(other, edges), 0.95)
        values.append(found.value)
        for name, true, (low, high) in (
            ("psi", 0.2, (found.low, found.high)),
            ("ks", distance, (lambda d: (d.low, d.high))(ks(one, other, 0.95))),
        ):
            kept[name] += high <= true
            beyond[name] += low > true
    assert max(kept.values()) <= 0.05 * 400
    assert max(beyond.values()) <= 0.06 * 400
    # The value is right on average: what chance adds is taken off.
    assert np.mean(values) == pytest.approx(0.2, abs=0.01)


# -- rules -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"metric": "accuracy", "column": "age", "max": 1}, "accuracy is not of data: a rule"),
        ({"metric": "pis", "column": "age", "max": 1}, "did you mean psi?"),
        ({"metric": "psi", "max": 0.2}, "a rule on psi needs 'column'"),
        ({"metric": "psi", "column": "age"}, "a rule on psi needs 'max'"),
        ({"metric": "psi", "column": "age", "max": 0}, "psi is above 0"),
        ({"metric": "ks", "column": "age", "max": 1}, "ks is within 0 and 1"),
        ({"metric": "missing", "column": "age", "max": 5}, "write 0.05 for 5%"),
        ({"metric": "psi", "column": "age", "min": 0.1, "max": 0.2}, "leave 'min' out"),
        ({"metric": "psi", "column": "age", "max": 0.2, "over": "champion"}, "leave 'over' out"),
        ({"metric": "ks", "column": "age", "max": 0.2, "by": "city"}, "leave 'by' out"),
        ({"metric": "schema", "column": "age"}, "leave 'column' out"),
        ({"metric": "schema", "columns": {}}, "'columns' says none"),
        ({"metric": "schema", "columns": {"age": "int"}}, "'number' or 'text'"),
        ({"metric": "psi", "data": "dataset", "column": "age", "max": 0.2}, "not task.output"),
        ({"metric": "bytes", "max": 5}, "leave 'data' out"),
        ({"metric": "psi", "column": "", "max": 0.2}, "at least 1 character"),
    ],
)
def test_a_rule_that_says_too_much_or_too_little(said: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        rule(**said)


def test_keys_of_data_need_data() -> None:
    with pytest.raises(ValidationError, match=r"name it with 'data: task\.output'"):
        GateRule.model_validate({"metric": "psi", "column": "age", "max": 0.2})
    # A metric of that name that the run itself reports is a bound as any.
    assert GateRule.model_validate({"metric": "ks", "min": 0.3}).data is None


# -- reasons ---------------------------------------------------------------------------------------


def table_of(tmp_path: Path, columns: dict[str, Any]) -> DataTable:
    return read_data(write_csv(tmp_path / "data.csv", columns), set(columns), all_kinds=True)


def summary(tmp_path: Path, columns: dict[str, Any]) -> DataSummary:
    """A summary as it comes back from where it is kept."""
    made = summary_of("collect.dataset", "sha256:1", table_of(tmp_path, columns), whole=True)
    (tmp_path / "summary.json").write_text(json.dumps(to_json(made)))
    found = read_summary(tmp_path / "summary.json")
    assert found == made
    return found


def said(rule: GateRule, ours: DataTable, theirs: DataSummary | Unknown | None) -> Reason:
    found = data_reason(rule, ours, theirs)
    assert isinstance(found, Reason)
    return found


def test_a_drift_is_rejected_and_the_same_data_passes(tmp_path: Path) -> None:
    ages = RNG(5).integers(18, 80, 2000)
    before = summary(tmp_path, {"age": ages.tolist()})
    drift = rule(metric="psi", column="age", max=0.2, confidence=0.95)
    distance = rule(metric="ks", column="age", max=0.1, confidence=0.95)
    same, older = (table_of(tmp_path, {"age": (ages + k).tolist()}) for k in (0, 15))
    found = said(drift, same, before)
    assert found.decision == "promote"
    assert found.rule == "psi of age"
    assert found.text == (
        "psi of age 0.000 (95% CI 0.000 to 0.011), shown to be <= 0.20; "
        "2,000 rows against the champion's 2,000"
    )
    found = said(drift, older, before)
    assert found.decision == "reject"
    assert "shown to be > 0.20" in found.text
    assert "most of it: 22 to 29, 11.1% before, 0.0% now" in found.text
    assert found.estimate is not None
    assert (found.estimate.low, found.estimate.examples) > (0.2, 0)
    found = said(distance, older, before)
    exact = stats.ks_2samp(ages, ages + 15).statistic
    assert found.estimate is not None
    assert found.estimate.value == pytest.approx(exact, abs=1e-12)
    assert found.decision == "reject"
    assert said(distance, same, before).decision == "promote"


def test_a_few_rows_show_nothing_where_a_confidence_is_asked_for(tmp_path: Path) -> None:
    before = summary(tmp_path, {"age": RNG(6).normal(size=60).tolist()})
    ours = table_of(tmp_path, {"age": RNG(7).normal(size=60).tolist()})
    for metric, high in (("psi", 0.2), ("ks", 0.2)):
        sure = said(rule(metric=metric, column="age", max=high, confidence=0.95), ours, before)
        assert (sure.decision, "not shown to be" in sure.text) == ("hold", True)
    point = said(rule(metric="psi", column="age", max=0.2), ours, before)
    assert point.decision == "promote"
    assert "with what chance adds" in point.text


def test_texts_drift_by_their_categories(tmp_path: Path) -> None:
    cities = ["Oslo"] * 600 + ["Bergen"] * 395 + ["Moss"] * 5
    before = summary(tmp_path, {"city": cities})
    drift = rule(metric="psi", column="city", max=0.1)
    assert said(drift, table_of(tmp_path, {"city": cities}), before).decision == "promote"
    new = said(drift, table_of(tmp_path, {"city": [*cities[:700], *["Rome"] * 300]}), before)
    assert new.decision == "reject"
    assert "most of it: all others, 0.5% before, 30.0% now" in new.text
    none = said(drift, table_of(tmp_path, {"city": [*cities[:700], *[""] * 300]}), before)
    assert "most of it: missing, 0.0% before, 30.0% now" in none.text
    assert none.decision == "reject"
    p, q = np.array([0.6, 0.395, 0.005]), np.array([0.7, 0.295, 0.005])
    other = table_of(tmp_path, {"city": ["Oslo"] * 700 + ["Bergen"] * 295 + ["Moss"] * 5})
    found = said(drift, other, before)
    assert f"{np.sum((p - q) * np.log(p / q)):.3f} with what chance adds" in found.text


def test_a_column_of_another_kind_is_a_reject(tmp_path: Path) -> None:
    before = summary(tmp_path, {"age": [1, 2, 3], "city": ["a", "b", "c"], "none": ["", "", ""]})
    ours = table_of(tmp_path, {"age": [1, "n/a", 3], "city": ["a", "b", "c"], "none": [1, 2, 3]})
    found = said(rule(metric="psi", column="age", max=0.2), ours, before)
    assert found.decision == "reject"
    assert found.text == (
        "psi of age: the column is of texts, the champion's of numbers (one of them: 'n/a')"
    )
    found = said(rule(metric="ks", column="city", max=0.2), ours, before)
    assert (found.decision, "it is of numbers" in found.text) == ("reject", True)
    found = said(rule(metric="psi", column="none", max=0.2), ours, before)
    assert found.decision == "reject"
    gone = said(rule(metric="psi", column="aged", max=0.2), ours, before)
    assert gone.text == "psi of aged: collect.dataset has no column aged (there is age)"
    assert gone.decision == "reject"


def test_missing_is_a_bound_without_a_champion(tmp_path: Path) -> None:
    ours = table_of(tmp_path, {"age": [1] * 97 + [""] * 3, "x": range(100)})
    found = said(rule(metric="missing", column="age", max=0.05), ours, None)
    assert found.decision == "promote"
    assert found.text == ("missing of age 0.030 <= 0.05 (95% CI 0.006 to 0.085); 3 of 100 rows")
    sure = said(rule(metric="missing", column="age", max=0.05, confidence=0.95), ours, None)
    assert sure.decision == "hold"
    assert said(rule(metric="missing", column="age", max=0.02), ours, None).decision == "reject"


def test_a_schema_is_declared_or_the_champions(tmp_path: Path) -> None:
    ours = table_of(tmp_path, {"age": [1, 2], "city": ["a", "b"], "new": [1, 2]})
    declared = rule(metric="schema", columns={"age": "number", "city": "text"})
    assert said(declared, ours, None).text == (
        "schema of collect.dataset: 2 columns are there, of their kinds"
    )
    wrong = rule(metric="schema", columns={"age": "text", "town": "text"})
    found = said(wrong, ours, None)
    assert found.decision == "reject"
    assert "age is of numbers, not of texts; no column town" in found.text
    kept = rule(metric="schema")
    before = summary(tmp_path, {"age": [1, 2], "city": ["a", "b"]})
    assert said(kept, ours, before).text.endswith(
        "the champion's 2 columns are there, of their kinds; new: new"
    )
    before = summary(tmp_path, {"Age": [1], "city": [1]} | {f"c{i}": [1] for i in range(9)})
    found = said(kept, ours, before)
    assert found.decision == "reject"
    assert "no column Age (there is age); city is of texts, not of numbers" in found.text
    assert "and 6 more" in found.text


def test_without_the_champions_data_it_is_said_what_helps(tmp_path: Path) -> None:
    ours = table_of(tmp_path, {"age": [1, 2]})
    drift, schema = rule(metric="psi", column="age", max=0.2), rule(metric="schema")
    for one, name in ((drift, "psi of age"), (schema, "schema of collect.dataset")):
        note = data_reason(one, ours, None)
        assert note == f"{name}: no champion yet, so there is no data to compare with"
        found = said(one, ours, Unknown("it is gone; fetch it"))
        assert (found.decision, found.text) == (
            "hold",
            f"{name} is not known: it is gone; fetch it",
        )
        some = summary_of("collect.dataset", "d", read_data(tmp_path / "data.csv", ()), whole=False)
        found = said(one, ours, some)
        assert found.decision == "hold"
        assert "--override --reason" in found.text


def test_odd_names_are_plain_in_the_reasons(tmp_path: Path) -> None:
    odd = "a\x1b[31mb\n" + "c" * 500
    ours = table_of(tmp_path, {"age": [1, 2], odd: ["x\ny", "z"]})
    before = summary(tmp_path, {"age": [1, 2]})
    for one in (rule(metric="schema"), rule(metric="psi", column=odd, max=0.2)):
        found = said(one, ours, before)
        assert found.text.isprintable()
        assert len(found.text) <= 400
        assert found.rule.isprintable()


def test_a_summary_is_small(tmp_path: Path) -> None:
    n = 30_000
    numbers = RNG(8).normal(size=n).tolist()
    found = summary(tmp_path, {"x": numbers, "name": [f"n{i % 3000}" for i in range(n)]})
    assert len(found.columns["x"].values) < 2100
    assert len(found.columns["name"].categories) == 1000
    assert found.columns["name"].others == n - 10 * 1000
    assert len(json.dumps(to_json(found))) < 150_000


@pytest.mark.parametrize(
    "changed",
    [
        {"values": [2.0, 1.0]},
        {"values": [1.0]},
        {"below": [0, 0]},
        {"upto": [1, 1]},
        {"values": [1.0, float("nan")]},
        {"upto": [1, 1 << 70]},
        {"missing": -1},
        {"values": [], "below": [], "upto": []},
        {"categories": {"a": -1}},
        {"values": "x"},
    ],
)
def test_a_summary_that_is_not_sound_is_refused(changed: dict[str, Any], tmp_path: Path) -> None:
    data = to_json(summary(tmp_path, {"x": [1, 2]}))
    data["columns"]["x"] |= changed
    (tmp_path / "summary.json").write_text(json.dumps(data))
    with pytest.raises(UsageError, match=r"no sound summary|not a valid data summary"):
        read_summary(tmp_path / "summary.json")
