"""The whole pipeline: two Python components. The irises come with scikit-learn."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output

PACKAGES = ["scikit-learn==1.7.2", "numpy==2.2.6"]


@dsl.component(packages_to_install=PACKAGES)
def train(depth: int, seed: int, model: Output[Model]):
    """Fit a forest on one half of the examples."""
    import os

    import joblib
    from sklearn.datasets import load_iris
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import train_test_split

    features, labels = load_iris(return_X_y=True)
    mine, _, truth, _ = train_test_split(
        features, labels, test_size=0.5, random_state=0, stratify=labels
    )
    forest = RandomForestClassifier(max_depth=depth, random_state=seed).fit(mine, truth)
    os.makedirs(model.path)
    joblib.dump(forest, os.path.join(model.path, "model.joblib"))


@dsl.component(packages_to_install=PACKAGES)
def evaluate(model: Input[Model], metrics: Output[Metrics], predictions: Output[Dataset]):
    """Predict the other half: the accuracy, and a line for each example."""
    import os

    import joblib
    from sklearn.datasets import load_iris
    from sklearn.model_selection import train_test_split

    features, labels = load_iris(return_X_y=True)
    _, others, _, truth = train_test_split(
        features, labels, test_size=0.5, random_state=0, stratify=labels
    )
    answers = joblib.load(os.path.join(model.path, "model.joblib")).predict(others)
    metrics.log_metric("accuracy", float((answers == truth).mean()))
    with open(predictions.path, "w", encoding="utf-8") as file:
        file.write("id,label,prediction\n")
        for number, (label, answer) in enumerate(zip(truth, answers)):
            file.write(f"iris-{number},{label},{answer}\n")


@dsl.pipeline(name="flowers")
def pipeline(depth: int = 2, seed: int = 7):
    """Train, then evaluate."""
    trained = train(depth=depth, seed=seed)
    evaluate(model=trained.outputs["model"])
