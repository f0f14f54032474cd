"""Predictions files: what is read, what is refused, and the metrics against scikit-learn."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from ctflow.errors import ConfigError, UsageError
from ctflow.gate.files.evidence import Predictions, confusion, has_classes, read_predictions
from ctflow.gate.metrics.scores import computable, measure

SOME = "id,label,prediction,site\na,1,1,x\nb,0,1,y\nc,1,1,x\n"


def write(folder: Path, text: str, name: str = "p.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def made(labels: list[str], answers: list[str], **more: list[str]) -> Predictions:
    ids = [f"e{i}" for i in range(len(labels))]
    return Predictions(ids, {"label": labels, "prediction": answers, **more}, Path("made.csv"))


def value(name: str, predictions: Predictions) -> float:
    return float(measure(name, [predictions]).values()[0])


def test_reads_csv_json_lines_gzip_and_folders(tmp_path: Path) -> None:
    first = read_predictions(write(tmp_path, SOME))
    assert list(first.ids) == ["a", "b", "c"]
    assert first.columns["site"] == ["x", "y", "x"]
    assert len(first) == 3

    lines = [{"id": "a", "label": 1, "prediction": 1.0}, {"prediction": 1, "label": 0, "id": "b"}]
    lines.append({"id": "c", "label": 1, "prediction": 1})
    text = "\n".join(map(json.dumps, lines)) + "\n\n"
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / ".hidden").write_text("x")
    write(folder, text, "predictions")
    for path in (folder, folder / "predictions", write(tmp_path, text, "p.jsonl")):
        again = read_predictions(path)
        assert again.evaluation_set == first.evaluation_set
        assert value("accuracy", again) == value("accuracy", first) == pytest.approx(2 / 3)

    zipped = tmp_path / "p.csv.gz"
    zipped.write_bytes(gzip.compress(b"\xef\xbb\xbf" + SOME.encode()))
    assert read_predictions(zipped).evaluation_set == first.evaluation_set


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("id,label,prediction\n", "no examples"),
        ("a,1,1\n", "no column id, label, prediction"),
        ("id,label\na,1\n", "no column prediction"),
        ("id,label,prediction,id\na,1,1,b\n", "twice"),
        ("id,label,prediction\na,1,1\na,0,1\n", "line 2: id 'a' is there twice"),
        ("id,label,prediction\na,1,1\nb,0\n", "line 3: 2 values under 3 columns"),
        ("id,label,prediction\na,1,1\nb,,1\n", "line 3: label '' is empty"),
        ("id,label,prediction\na,1,NaN\n", "line 2: prediction 'NaN' is not finite"),
        ("id,label,prediction\n\na,1,-inf\n", "line 3: prediction '-inf' is not finite"),
        ("id,label,prediction\n ,1,1\n", "line 2: id '' is empty"),
        ("id,label,prediction,score\na,1,1,nan\n", "line 2: score 'nan' is not a finite number"),
        ("id,label,prediction,score\na,1,1,\n", "score '' is not a finite number"),
        ("id,label,prediction,p_1\na,1,1,1.5\n", "p_1 is not within 0 and 1"),
        ('id,label,prediction\na,1,"1\n', "not CSV"),
        ('{"id": "a", "label": 1, "prediction": 1}\n{"id": "b"\n', "line 2: not JSON"),
        ('{"id": "a", "label": 1, "prediction": 1}\n[1]\n', "line 2: not a JSON object"),
        ('{"id": "a", "label": 1, "prediction": 1}\n{"id": "b", "label": 1}\n', "not in every"),
        ('{"id": "a", "label": 1}\n', "no key prediction"),
        ('{"id": "a", "label": 1, "prediction": null}\n', "line 1: prediction '' is empty"),
        ('{"id": "a", "label": 1, "prediction": [1]}\n', "list or an object"),
        ('{"id": "\\ud800", "label": 1, "prediction": 1}\n', "not Unicode"),
        ('{"id": "a", "label": 1, "prediction": NaN}\n', "prediction 'NaN' is not finite"),
    ],
)
def test_refuses_with_file_and_mend(tmp_path: Path, text: str, says: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UsageError) as error:
        read_predictions(path)
    assert says in error.value.fact
    assert str(path) in error.value.fact
    assert error.value.next


def test_refuses_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no predictions file"):
        read_predictions(tmp_path)
    with pytest.raises(UsageError, match="no such predictions file"):
        read_predictions(tmp_path / "none.csv")
    write(tmp_path, SOME, "a.csv")
    write(tmp_path, SOME, "b.csv.gz")
    with pytest.raises(UsageError, match="2 possible"):
        read_predictions(tmp_path)


def test_refuses_broken_bytes(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    for content in (gzip.compress(SOME.encode())[:-9], b"\x1f\x8bno", SOME.encode("utf-16")):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"p\.csv"):
            read_predictions(path)


def test_a_message_shows_no_control_characters(tmp_path: Path) -> None:
    path = write(tmp_path, "id,label,prediction\n\x1b[31ma\u202e,1,1\n\x1b[31ma\u202e,1,1\n")
    with pytest.raises(UsageError) as error:
        read_predictions(path)
    assert error.value.message().isprintable()


@given(st.permutations(range(6)), st.lists(st.sampled_from("ab"), min_size=6, max_size=6))
def test_the_evaluation_set_is_that_of_ids_and_labels(order: list[int], answers: list[str]) -> None:
    ids, labels = list("pqrstu"), list("abbaab")
    first = Predictions(ids, {"label": labels, "prediction": labels}, Path("x"))
    moved = Predictions(
        [ids[i] for i in order],
        {"label": [labels[i] for i in order], "prediction": answers},
        Path("y"),
    )
    assert moved.evaluation_set == first.evaluation_set
    changed = [*labels[:-1], "a"]
    other = Predictions(ids, {"label": changed, "prediction": labels}, Path("x"))
    assert other.evaluation_set != first.evaluation_set
    assert first.evaluation_set.startswith("sha256:")


def test_ids_and_labels_cannot_run_into_each_other() -> None:
    def set_of(*pairs: tuple[str, str]) -> str:
        labels = [label for _, label in pairs]
        columns = {"label": labels, "prediction": labels}
        return Predictions([name for name, _ in pairs], columns, Path("x")).evaluation_set

    assert set_of(("a", "bc")) != set_of(("ab", "c"))
    assert set_of(("a1", "1:b")) != set_of(("a", "11:b"))


def classes(seed: int, n: int = 400, k: int = 4) -> Predictions:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    answers = np.where(rng.random(n) < 0.7, labels, rng.integers(0, k + 1, n))
    return made([str(x) for x in labels], [str(x) for x in answers])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("base", ["precision", "recall", "f1"])
@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
def test_averages_are_scikit_learns(seed: int, base: str, average: str) -> None:
    p = classes(seed)
    y, z = p.columns["label"], p.columns["prediction"]
    function = getattr(sk, f"{base}_score")
    expected = function(y, z, average=average, zero_division=0)
    assert value(f"{base}_{average}", p) == pytest.approx(expected, abs=1e-12)
    single = function(y, z, average=None, labels=["2"], zero_division=0)[0]
    assert value(f"{base}_2", p) == pytest.approx(single, abs=1e-12)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_other_class_metrics_are_scikit_learns() -> None:
    p = classes(7)
    y, z = p.columns["label"], p.columns["prediction"]
    assert value("accuracy", p) == pytest.approx(sk.accuracy_score(y, z))
    assert value("error_rate", p) == pytest.approx(1 - sk.accuracy_score(y, z))
    assert value("balanced_accuracy", p) == pytest.approx(sk.balanced_accuracy_score(y, z))


def test_binary_metrics_are_scikit_learns() -> None:
    rng = np.random.default_rng(3)
    y = rng.integers(0, 2, 300)
    p1 = np.round(np.clip(rng.normal(0.3 + 0.4 * y, 0.2), 0, 1), 2)
    z = (p1 > 0.5).astype(int)
    p = made([*map(str, y)], [*map(str, z)], p_1=[*map(str, p1)])
    for base in ("precision", "recall", "f1"):
        assert value(base, p) == pytest.approx(getattr(sk, f"{base}_score")(y, z))
    assert value("roc_auc", p) == pytest.approx(sk.roc_auc_score(y, p1))
    assert value("log_loss", p) == pytest.approx(sk.log_loss(y, p1))
    assert value("brier", p) == pytest.approx(sk.brier_score_loss(y, p1))


def test_probabilities_of_several_classes_are_scikit_learns() -> None:
    rng = np.random.default_rng(4)
    chances = rng.dirichlet([1, 1, 1], 200)
    y = rng.integers(0, 3, 200)
    columns = {f"p_{k}": [repr(float(x)) for x in chances[:, k]] for k in range(3)}
    p = made([*map(str, y)], [*map(str, chances.argmax(axis=1))], **columns)
    assert value("log_loss", p) == pytest.approx(sk.log_loss(y, chances))
    expected = ((chances - np.eye(3)[y]) ** 2).sum(axis=1).mean()
    assert value("brier", p) == pytest.approx(expected)
    with pytest.raises(ConfigError):
        measure("roc_auc", [p])


def test_regression_metrics_are_scikit_learns() -> None:
    rng = np.random.default_rng(5)
    y = rng.normal(100, 3, 250)
    z = y + rng.normal(0, 1, 250)
    p = made([repr(float(x)) for x in y], [repr(float(x)) for x in z])
    assert value("mae", p) == pytest.approx(sk.mean_absolute_error(y, z))
    assert value("mse", p) == pytest.approx(sk.mean_squared_error(y, z))
    assert value("rmse", p) == pytest.approx(sk.root_mean_squared_error(y, z))
    assert value("r2", p) == pytest.approx(sk.r2_score(y, z))


def test_a_resample_of_every_metric_is_centred_on_its_value() -> None:
    rng = np.random.default_rng(6)
    y = rng.integers(0, 2, 500)
    p1 = np.clip(rng.normal(0.3 + 0.4 * y, 0.2), 0, 1)
    z = (p1 > 0.5).astype(int)
    score = [*map(str, rng.random(500))]
    p = made([*map(str, y)], [*map(str, z)], p_1=[*map(str, p1)], score=score)
    names = [name for name in computable(p) if "<" not in name]
    assert {"roc_auc", "log_loss", "score", "f1", "r2"} <= set(names)
    for name in names:
        metric = measure(name, [p, p])
        drawn = metric.resample(None, 300, rng)
        assert drawn.shape == (300, 2)
        assert (drawn[:, 0] == drawn[:, 1]).all(), name
        spread = max(float(drawn.std()), 1e-9)
        assert abs(drawn.mean() - metric.values()[0]) < 0.5 * spread, name


def test_an_area_resampled_in_steps_of_rank_is_centred_on_the_exact_one() -> None:
    rng = np.random.default_rng(8)
    y = rng.integers(0, 2, 9000)
    score = y + rng.normal(0, 1, 9000)
    p = made([*map(str, y)], [*map(str, y)], score=[*map(repr, score.tolist())])
    metric = measure("roc_auc", [p])
    exact = sk.roc_auc_score(y, score)
    assert metric.values()[0] == pytest.approx(exact, abs=1e-12)
    drawn = metric.resample(None, 300, rng)[:, 0]
    assert drawn.mean() == pytest.approx(exact, abs=4 * drawn.std() / np.sqrt(300))
    assert 0.002 < drawn.std() < 0.008


def test_slices_are_the_rows_of_each_value() -> None:
    p = made(["1", "0", "1"], ["1", "1", "1"], site=["x", "y", "x"])
    rows = p.slices("site")
    assert {name: list(r) for name, r in rows.items()} == {"x": [0, 2], "y": [1]}
    assert measure("accuracy", [p]).values(rows["x"])[0] == 1.0


def test_confusion_counts_by_label_and_prediction() -> None:
    p = made(["10", "2", "2", "1"], ["10", "10", "2", "2.0"])
    names, counts = confusion(p)
    assert names == ["1", "2", "10"]
    assert counts == [[0, 1, 0], [0, 1, 1], [0, 0, 1]]
    names, counts = confusion(p, limit=2)
    assert names == ["2", "other"]
    assert counts == [[1, 1], [1, 1]]
    assert sum(map(sum, counts)) == len(p)


def test_a_regressions_numbers_are_no_classes() -> None:
    for label, answer, found in (("1", "2.0", True), ("cat", "dog", True), ("1", "2.5", False),
                                 ("0.25", "1", False)):  # fmt: skip
        columns = {"label": [label], "prediction": [answer]}
        assert has_classes(Predictions(["a"], columns, Path("p.csv"))) is found
