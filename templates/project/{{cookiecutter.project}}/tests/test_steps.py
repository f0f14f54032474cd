"""The steps' own tests: each step is run as the pipeline runs it, on small data made here."""

import csv
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

STEPS = Path(__file__).parents[1] / "steps"
HEADER = ["id", "label", *(f"p{i}" for i in range(64))]


def run(step, **options):
    """Run a step with `--some-option value` for each option; the finished process."""
    words = []
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return subprocess.run(
        [sys.executable, "main.py", *words],
        cwd=STEPS / step,
        capture_output=True,
        text=True,
        check=False,
    )


def examples(count=300):
    """Easy images: a digit lights its own six pixels, with a little noise everywhere."""
    noise = random.Random(3)
    rows = []
    for index in range(count):
        label = index % 10
        pixels = [noise.randint(0, 4) for _ in range(64)]
        pixels[label * 6 : label * 6 + 6] = [16] * 6
        rows.append([f"example-{index}", label, *pixels])
    return rows


def write(path, rows, header=HEADER):
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    return path


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def validate(folder, dataset, **options):
    folder.mkdir(exist_ok=True)
    return run(
        "validate",
        dataset=dataset,
        min_examples=100,
        report=folder / "report.md",
        metrics=folder / "metrics.json",
        training_set=folder / "training.csv",
        evaluation_set=folder / "evaluation.csv",
        **options,
    )


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A folder with a training and an evaluation set."""
    folder = tmp_path_factory.mktemp("parts")
    result = validate(folder, write(folder / "dataset.csv", examples()))
    assert result.returncode == 0, result.stderr
    return folder


def train(parts, folder, **options):
    options = {"epochs": 20, "seed": 1, **options}
    result = run(
        "train",
        training_set=parts / "training.csv",
        model=folder / "model",
        metrics=folder / "train.json",
        **options,
    )
    assert result.returncode == 0, result.stderr
    return folder / "model" / "model.joblib"


def test_collect_writes_the_digits_the_same_each_time(tmp_path):
    for name in ("one.csv", "two.csv"):
        assert run("collect", dataset=tmp_path / "new" / name).returncode == 0
    rows = table(tmp_path / "new" / "one.csv")
    assert list(rows[0]) == HEADER
    assert len(rows) == len({row["id"] for row in rows}) == 1797
    assert (tmp_path / "new/one.csv").read_bytes() == (tmp_path / "new/two.csv").read_bytes()


def test_collect_reads_a_folder_and_names_what_has_no_id(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    rows = examples(20)
    write(source / "a.csv", rows[:10])
    write(source / "b.csv", [row[1:] for row in rows[10:]], HEADER[1:])
    result = run("collect", source=source, dataset=tmp_path / "dataset.csv")
    assert result.returncode == 0, result.stderr
    found = table(tmp_path / "dataset.csv")
    assert [row["label"] for row in found] == [str(row[1]) for row in rows]
    assert found[0]["id"] == "example-0"
    assert len({row["id"] for row in found}) == 20


@pytest.mark.parametrize("source", ["missing.csv", "empty"])
def test_collect_says_what_it_cannot_read(tmp_path, source):
    (tmp_path / "empty").mkdir()
    result = run("collect", source=tmp_path / source, dataset=tmp_path / "dataset.csv")
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert source in result.stderr


def test_validate_splits_by_id_whatever_the_order(parts, tmp_path):
    rows = examples()
    random.Random(1).shuffle(rows)
    more = [[f"new-{row[0]}", row[1], *row[:1:-1]] for row in rows]
    assert validate(tmp_path / "more", write(tmp_path / "more.csv", rows + more)).returncode == 0
    before = {row["id"] for row in table(parts / "evaluation.csv")}
    after = {row["id"] for row in table(tmp_path / "more" / "evaluation.csv")}
    assert before == {name for name in after if not name.startswith("new-")}
    assert 0.35 < len(before) / len(rows) < 0.65
    assert not before & {row["id"] for row in table(parts / "training.csv")}


def spoil(rows, kind):
    if kind == "range":
        rows[5][10] = 17
    elif kind == "not a number":
        rows[5][10] = "nan"
    elif kind == "label":
        rows[5][1] = "x"
    elif kind == "id":
        rows[5][0] = rows[6][0]
    elif kind == "repeated":
        for row in rows[10:30]:
            row[2:] = rows[0][2:]
    elif kind == "class":
        rows = [row for row in rows if row[1] != 4]
    elif kind == "few":
        rows = rows[:50]
    elif kind == "short":
        rows[5].pop()
    return rows


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("range", "p8 is '17'"),
        ("not a number", "p8 is 'nan'"),
        ("label", "label 'x'"),
        ("id", "twice"),
        ("repeated", "images are there twice"),
        ("class", "class 4"),
        ("few", "50 examples"),
        ("short", "65 values"),
    ],
)
def test_validate_refuses_bad_data_in_one_line(tmp_path, kind, told):
    result = validate(tmp_path, write(tmp_path / "dataset.csv", spoil(examples(), kind)))
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert told in result.stderr
    assert "Not good" in (tmp_path / "report.md").read_text()
    assert json.loads((tmp_path / "metrics.json").read_text())["problems"] >= 1
    assert not (tmp_path / "training.csv").exists()


def test_validate_refuses_other_columns(tmp_path):
    path = write(tmp_path / "dataset.csv", [row[:-1] for row in examples()], HEADER[:-1])
    result = validate(tmp_path, path)
    assert result.returncode == 1
    assert "p63" in result.stderr


def test_train_gives_the_same_bytes_for_the_same_input(parts, tmp_path):
    one = train(parts, tmp_path / "one", epochs=3).read_bytes()
    assert train(parts, tmp_path / "two", epochs=3).read_bytes() == one
    assert train(parts, tmp_path / "other", epochs=3, seed=2).read_bytes() != one


def test_train_refuses_impossible_parameters(parts, tmp_path):
    result = run(
        "train",
        training_set=parts / "training.csv",
        model=tmp_path / "model",
        metrics=tmp_path / "train.json",
        epochs=0,
    )
    assert result.returncode == 1
    assert "--epochs" in result.stderr


def test_evaluate_scores_every_example(parts, tmp_path):
    model = train(parts, tmp_path)
    result = run(
        "evaluate",
        evaluation_set=parts / "evaluation.csv",
        model=model.parent,
        metrics=tmp_path / "metrics.json",
        confusion=tmp_path / "confusion.json",
        predictions=tmp_path / "predictions.csv",
        reserved=tmp_path / "reserved.csv",
        executor_output=tmp_path / "kfp" / "executor_output.json",
    )
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["accuracy"] > 0.9

    truth = {row["id"]: row["label"] for row in table(parts / "evaluation.csv")}
    predictions = table(tmp_path / "predictions.csv")
    reserved = table(tmp_path / "reserved.csv")
    assert {row["id"]: row["label"] for row in [*predictions, *reserved]} == truth
    assert len(predictions) + len(reserved) == len(truth)
    assert 0.3 < len(reserved) / len(truth) < 0.7
    right = sum(row["label"] == row["prediction"] for row in predictions)
    assert metrics["accuracy"] == pytest.approx(right / len(predictions))
    for row in [*predictions, *reserved]:
        shares = [float(row[f"p_{digit}"]) for digit in range(10)]
        assert sum(shares) == pytest.approx(1, abs=1e-4)
        assert row["prediction"] == str(shares.index(max(shares)))
        assert row["ink"] in {"light", "medium", "heavy"}

    matrix = json.loads((tmp_path / "confusion.json").read_text())["confusionMatrix"]["rows"]
    assert sum(matrix[digit]["row"][digit] for digit in range(10)) == right
    shown = json.loads((tmp_path / "kfp" / "executor_output.json").read_text())["artifacts"]
    assert shown["metrics"]["artifacts"][0]["metadata"] == metrics
