"""The whole pipeline, for a table: numbers, categories and missing values in a CSV file.

`source` is the CSV file (an absolute path, or a URL). If it is empty, a table of customers is
generated. For your own table, change the columns below and `serving/golden.json`.
"""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output

PACKAGES = ["scikit-learn==1.7.2", "numpy==2.2.6"]
#: Columns: numbers, categories (both may be empty), the label to predict, and an example's id.
NUMBERS = ["months", "spent"]
CATEGORIES = ["plan", "country"]
LABEL = "leaves"
ID = "customer"


@dsl.component
def collect(source: str, numbers: list, categories: list, label: str, id: str, table: Output[Dataset]):
    """Read or generate the table, and check its columns and values."""
    import csv
    import io
    import random
    import urllib.request

    if source.startswith(("http://", "https://")):
        with urllib.request.urlopen(source) as answer:
            text = answer.read().decode("utf-8")
    elif source:
        with open(source, encoding="utf-8", newline="") as file:
            text = file.read()
    else:
        chance = random.Random(1)
        lines = ["customer,months,spent,plan,country,leaves"]
        for number in range(2400):
            months, plan = chance.randrange(1, 60), chance.choice(["basic", "plus", "gold", ""])
            spent = round(chance.gauss({"basic": 10, "plus": 25, "gold": 60}.get(plan, 20), 4), 2)
            unhappy = 2.2 - months / 15 - (plan == "gold") + (plan == "basic") * 0.8
            leaves = "yes" if chance.gauss(unhappy, 0.7) > 0 else "no"
            country = chance.choice(["at", "fr", "it", ""])
            shown = "" if chance.random() < 0.1 else spent
            lines.append(f"c{number},{months},{shown},{plan},{country},{leaves}")
        text = "\n".join(lines) + "\n"
    rows = list(csv.DictReader(io.StringIO(text)))
    missing = [name for name in (id, *numbers, *categories, label) if rows and name not in rows[0]]
    if not rows or missing:
        raise SystemExit(f"the table has no rows, or no column {', '.join(missing)}")
    if len({row[id] for row in rows}) != len(rows):
        raise SystemExit(f"column {id} has a value twice; each example needs its own id")
    for number, row in enumerate(rows, 2):
        for name in numbers:
            try:
                float(row[name] or 0)
            except ValueError:
                raise SystemExit(f"line {number}: {name} is {row[name]!r}, not a number") from None
        if not row[label]:
            raise SystemExit(f"line {number}: {label} is empty")
    with open(table.path, "w", encoding="utf-8") as file:
        file.write(text)


@dsl.component(packages_to_install=PACKAGES)
def train(
    table: Input[Dataset], numbers: list, categories: list, label: str, id: str, trees: int,
    seed: int, model: Output[Model],
):
    """Fit on one half of the examples; an example's id decides which half it is in."""
    import csv
    import hashlib
    import os

    import joblib
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    with open(table.path, encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file)
                if hashlib.sha256(row[id].encode()).digest()[0] < 128]
    values = [[float(row[name]) if row[name] else float("nan") for name in numbers]
              + [row[name] or "(none)" for name in categories] for row in rows]
    first = len(numbers)
    columns = ColumnTransformer([
        ("numbers", SimpleImputer(strategy="median"), list(range(first))),
        ("categories", OneHotEncoder(handle_unknown="ignore"),
         list(range(first, first + len(categories)))),
    ])
    fitted = make_pipeline(columns, GradientBoostingClassifier(n_estimators=trees, random_state=seed))
    import numpy as np

    fitted.fit(np.array(values, dtype=object), [row[label] for row in rows])
    os.makedirs(model.path)
    kept = {"model": fitted, "numbers": numbers, "categories": categories}
    joblib.dump(kept, os.path.join(model.path, "model.joblib"))


@dsl.component(packages_to_install=PACKAGES)
def evaluate(
    table: Input[Dataset], model: Input[Model], label: str, id: str, slices: str,
    metrics: Output[Metrics], predictions: Output[Dataset], reserved: Output[Dataset],
):
    """Predict the other half: a line for each example, and the accuracy.

    Half of these examples, by their ids, are reserved: the gate reads their predictions only for a
    model that passes on the others. They do not count in the accuracy.
    """
    import csv
    import hashlib
    import os

    import joblib
    import numpy as np

    def is_reserved(name):
        return hashlib.sha256(f"reserved {name}".encode()).digest()[0] < 128

    kept = joblib.load(os.path.join(model.path, "model.joblib"))
    with open(table.path, encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file)
                if hashlib.sha256(row[id].encode()).digest()[0] >= 128]
    values = [[float(row[name]) if row[name] else float("nan") for name in kept["numbers"]]
              + [row[name] or "(none)" for name in kept["categories"]] for row in rows]
    answers = kept["model"].predict(np.array(values, dtype=object))
    lines = [[row[id], row[label], str(answer), row[slices] or "(none)"]
             for answer, row in zip(answers, rows)]
    seen = [line for line in lines if not is_reserved(line[0])]
    others = [line for line in lines if is_reserved(line[0])]
    if not seen or not others:
        raise SystemExit(f"{len(lines)} examples to evaluate are too few to reserve some of them")
    right = sum(answer == truth for _, truth, answer, _ in seen)
    metrics.log_metric("accuracy", right / len(seen))
    for path, part in ((predictions.path, seen), (reserved.path, others)):
        with open(path, "w", encoding="utf-8", newline="") as file:
            out = csv.writer(file)
            out.writerow(["id", "label", "prediction", slices])
            out.writerows(part)


@dsl.pipeline(name="table")
def pipeline(source: str = "", trees: int = 20, seed: int = 7):
    """Collect, train, evaluate."""
    collected = collect(
        source=source, numbers=NUMBERS, categories=CATEGORIES, label=LABEL, id=ID
    )
    table = collected.outputs["table"]
    trained = train(
        table=table, numbers=NUMBERS, categories=CATEGORIES, label=LABEL, id=ID, trees=trees,
        seed=seed,
    )
    evaluate(table=table, model=trained.outputs["model"], label=LABEL, id=ID, slices="plan")
