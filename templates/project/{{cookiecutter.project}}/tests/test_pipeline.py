"""The pipeline compiles, and says what ctflow.yaml relies on."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import yaml
from kfp import compiler

ROOT = Path(__file__).parents[1]
STEPS = sorted(path.parent.name for path in ROOT.glob("steps/*/Dockerfile"))
IMAGES = {step: f"registry.example/{step}@sha256:{'0' * 64}" for step in STEPS}


@pytest.fixture
def spec(tmp_path, monkeypatch):
    """The compiled pipeline, as Kubeflow Pipelines gets it."""
    monkeypatch.setenv("CTFLOW_IMAGES", json.dumps(IMAGES))
    location = importlib.util.spec_from_file_location("project_pipeline", ROOT / "pipeline.py")
    module = importlib.util.module_from_spec(location)
    monkeypatch.setitem(sys.modules, "project_pipeline", module)
    location.loader.exec_module(module)
    compiler.Compiler().compile(module.pipeline, str(tmp_path / "package.yaml"))
    return next(yaml.safe_load_all((tmp_path / "package.yaml").read_text()))


@pytest.fixture
def config():
    return yaml.safe_load((ROOT / "ctflow.yaml").read_text())


def test_every_step_runs_with_a_pinned_image(spec):
    executors = spec["deploymentSpec"]["executors"].values()
{%- if cookiecutter.runner == "kubeflow" %}
    images = [executor["container"]["image"] for executor in executors]
    steps = [image for image in images if not image.startswith("ghcr.io/ctflow/ctflow")]
    assert sorted(steps) == sorted(IMAGES.values())
{%- else %}
    assert sorted(executor["container"]["image"] for executor in executors) == sorted(
        IMAGES.values()
    )
{%- endif %}


def test_the_pipeline_is_named_after_the_project(spec, config):
    assert spec["pipelineInfo"]["name"] == config["project"]


def test_ctflow_yaml_sets_parameters_that_the_pipeline_has(spec, config):
    known = spec["root"]["inputDefinitions"]["parameters"]
    assert set(config["parameters"]) <= set(known)


def test_ctflow_yaml_names_outputs_that_the_pipeline_has(spec, config):
    named = [config["model"]["artifact"]]
    keys = ("predictions", "confirm")
    named += [rule[key] for rule in config["gate"] for key in keys if key in rule]
    for where in named:
        task, output = where.rsplit(".", 1)
        component = spec["root"]["dag"]["tasks"][task]["componentRef"]["name"]
        assert output in spec["components"][component]["outputDefinitions"]["artifacts"]
