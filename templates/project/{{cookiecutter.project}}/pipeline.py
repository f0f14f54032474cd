"""The training pipeline: plain KFP v2 DSL.

`ctflow compile` compiles it to the package for Kubeflow Pipelines; the embedded runner executes the
same package. `ctflow.image` returns the step's image, pinned by digest.
"""

import ctflow
{%- if cookiecutter.runner == "kubeflow" %}
from ctflow import components
{%- endif %}
from kfp import dsl

# KFP reads the metadata of a step's artifacts from this file, and shows the metrics in it.
METADATA = dsl.PIPELINE_TASK_EXECUTOR_OUTPUT_PATH_PLACEHOLDER
{%- if cookiecutter.runner == "kubeflow" %}
# Where the gate reads the rules and the releases, and the promotion is pushed to.
REPOSITORY = "https://github.com/{{ cookiecutter.repository or ("acme/" ~ cookiecutter.project) }}.git"
# Kubernetes secrets in the runs' namespace: key token; keys accesskey and secretkey.
GIT_SECRET = "ctflow-git"
STORE_SECRET = "mlpipeline-minio-artifact"
{%- endif %}


@dsl.container_component
def collect(source: str, dataset: dsl.Output[dsl.Dataset]):
    return dsl.ContainerSpec(
        image=ctflow.image("collect"),
        command=["python", "main.py"],
        args=["--source", source, "--dataset", dataset.path],
    )


@dsl.container_component
def validate(
    dataset: dsl.Input[dsl.Dataset],
    test_fraction: float,
    report: dsl.Output[dsl.Markdown],
    metrics: dsl.Output[dsl.Metrics],
    training_set: dsl.Output[dsl.Dataset],
    evaluation_set: dsl.Output[dsl.Dataset],
):
    return dsl.ContainerSpec(
        image=ctflow.image("validate"),
        command=["python", "main.py"],
        args=[
            *("--dataset", dataset.path),
            *("--test-fraction", test_fraction),
            *("--report", report.path),
            *("--metrics", metrics.path),
            *("--training-set", training_set.path),
            *("--evaluation-set", evaluation_set.path),
            *("--executor-output", METADATA),
        ],
    )


@dsl.container_component
def train(
    training_set: dsl.Input[dsl.Dataset],
    epochs: int,
    hidden_units: int,
    learning_rate: float,
    seed: int,
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
):
    return dsl.ContainerSpec(
        image=ctflow.image("train"),
        command=["python", "main.py"],
        args=[
            *("--training-set", training_set.path),
            *("--epochs", epochs),
            *("--hidden-units", hidden_units),
            *("--learning-rate", learning_rate),
            *("--seed", seed),
            *("--model", model.path),
            *("--metrics", metrics.path),
            *("--executor-output", METADATA),
        ],
    )


@dsl.container_component
def evaluate(
    evaluation_set: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    confusion: dsl.Output[dsl.ClassificationMetrics],
    predictions: dsl.Output[dsl.Dataset],
    reserved: dsl.Output[dsl.Dataset],
):
    return dsl.ContainerSpec(
        image=ctflow.image("evaluate"),
        command=["python", "main.py"],
        args=[
            *("--evaluation-set", evaluation_set.path),
            *("--model", model.path),
            *("--metrics", metrics.path),
            *("--confusion", confusion.path),
            *("--predictions", predictions.path),
            *("--reserved", reserved.path),
            *("--executor-output", METADATA),
        ],
    )


@dsl.pipeline(
    name="{{ cookiecutter.project }}",
    description={{ cookiecutter.description | jsonify }},
)
def pipeline(
    source: str = "digits",
    test_fraction: float = 0.5,
    epochs: int = 30,
    hidden_units: int = 24,
    learning_rate: float = 0.001,
    seed: int = 7,
{%- if cookiecutter.runner == "kubeflow" %}
    # ctflow fills these in when it starts a run.
    ctflow_commit: str = "",
    ctflow_package: str = "",
{%- endif %}
):
    collected = collect(source=source)
    # Never cached: the file at a path can change while the path stays the same.
    collected.set_caching_options(False)
    checked = validate(dataset=collected.outputs["dataset"], test_fraction=test_fraction)
    trained = train(
        training_set=checked.outputs["training_set"],
        epochs=epochs,
        hidden_units=hidden_units,
        learning_rate=learning_rate,
        seed=seed,
    )
    {% if cookiecutter.runner == "kubeflow" %}evaluated = {% endif %}evaluate(
        evaluation_set=checked.outputs["evaluation_set"],
        model=trained.outputs["model"],
    )
{%- if cookiecutter.runner == "kubeflow" %}
    # Judged and proposed where it was trained: no other machine waits for the run.
    judged = components.gate(
        {
            "train.model": trained.outputs["model"],
            "evaluate.metrics": evaluated.outputs["metrics"],
            "evaluate.predictions": evaluated.outputs["predictions"],
            "evaluate.reserved": evaluated.outputs["reserved"],
        },
        repository=REPOSITORY,
        commit=ctflow_commit,
        package=ctflow_package,
        parameters={
            "source": source,
            "test_fraction": test_fraction,
            "epochs": epochs,
            "hidden_units": hidden_units,
            "learning_rate": learning_rate,
            "seed": seed,
        },
        # A pod may not reach the package index; `ctflow deploy` asks the golden requests.
        golden=False,
        git_secret=GIT_SECRET,
        store_secret=STORE_SECRET,
    )
    with dsl.If(judged.outputs["decision"] == "promote"):
        components.promote(
            judged.outputs["evidence"],
            repository=REPOSITORY,
            git_secret=GIT_SECRET,
            store_secret=STORE_SECRET,
        )
{%- endif %}
