"""ctflow.yaml: what may be said, what is refused and where, and which source wins."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctflow.config.project import Project
from ctflow.config.reading import known_keys, parse
from ctflow.config.settings import Settings, find_root, flatten, load_settings, origin_of
from ctflow.config.values import check_name
from ctflow.errors import ConfigError
from ctflow.lib.durations import seconds
from ctflow.model.store_url import OBJECT_STORES
from ctflow.stores.folder_store import FolderStore
from ctflow.wiring import choices, wire

FULL = """\
project: digits
pipeline: pipeline.py:digits
parameters: {epochs: 30, seed: 7}
images:
  registry: ghcr.io/acme/digits
  base: python:3.11-slim
steps:
  train: {include: [common]}
runner: local
kubeflow: {host: https://kfp.acme.dev, namespace: digits, experiment: digits}
model: {artifact: train.model, format: sklearn}
gate:
  - {metric: accuracy, min: 0.80}
  - metric: accuracy
    over: champion
    min_gain: 0.0
    confidence: 0.95
    predictions: evaluate.predictions
store: {models: s3://digits-models}
forge: {kind: github, repository: acme/digits}
environments:
  staging: {merge: auto}
  production: {after: staging, merge: review, rollout: {canary: [10, 50, 100], pause: 5m}}
"""


def load(
    tmp_path: Path, text: str, environ: Mapping[str, str] | None = None, flags: Sequence[str] = ()
) -> Settings:
    (tmp_path / "ctflow.yaml").write_text(text)
    return load_settings(tmp_path, environ or {}, flags)


def refused(
    tmp_path: Path, text: str, environ: Mapping[str, str] | None = None, flags: Sequence[str] = ()
) -> str:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, text, environ, flags)
    assert raised.value.exit_code == 2
    assert "\n" not in str(raised.value)
    return str(raised.value).replace(f"{tmp_path}/", "")


def test_the_documented_file(tmp_path: Path) -> None:
    project = load(tmp_path, FULL).project
    assert project.project == "digits"
    assert project.parameters == {"epochs": 30, "seed": 7}
    assert project.steps["train"].include == ("common",)
    assert project.gate[1].over == "champion"
    assert project.environments["production"].rollout.canary == (10, 50, 100)
    assert project.first_environments() == ("staging",)


def test_defaults(tmp_path: Path) -> None:
    project = load(tmp_path, "project: digits\n").project
    assert (project.branch, project.runner, project.forge.kind) == ("master", "local", "none")
    assert project.pipeline == "pipeline.py:pipeline"
    assert list(project.environments) == ["staging"]
    assert project.environments["staging"].merge == "review"
    assert project.gate == ()


def test_models_are_frozen(tmp_path: Path) -> None:
    project = load(tmp_path, "project: digits\n").project
    with pytest.raises(ValueError, match="frozen"):
        project.project = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "ctflow.yaml is empty; start it with `project: name`"),
        ("# nothing\n", "ctflow.yaml is empty"),
        ("- a\n", "ctflow.yaml is not a mapping of keys"),
        ("just words\n", "ctflow.yaml is not a mapping of keys"),
        ("project: digits\nimages: {base: [\n", "ctflow.yaml:3: not valid YAML"),
        ("project: digits\n\timages: x\n", "ctflow.yaml:2: not valid YAML"),
        ("project: a\nbranch: b\nproject: c\n", "ctflow.yaml:3: key 'project' is there twice"),
        ("project: a\nimages:\n  base: b\n  base: c\n", "ctflow.yaml:4: key 'base' is there twice"),
        ("branch: main\n", "'project' is missing; add `project: ...`"),
        ("projct: digits\n", "ctflow.yaml:1: unknown key 'projct'; did you mean 'project'?"),
        ("project: a\ngates: []\n", "ctflow.yaml:2: unknown key 'gates'; did you mean 'gate'?"),
        ("project: a\nzzz: 1\n", "ctflow.yaml:2: unknown key 'zzz'; known keys: branch"),
        ("project: a\nimages:\n  registy: x\n",
         "ctflow.yaml:3: unknown key 'images.registy'; did you mean 'registry'?"),
        ("project: a\ngate:\n  - metric: m\n    min: 1\n  - metric: m\n    mim: 1\n",
         "ctflow.yaml:6: unknown key 'gate.1.mim'; did you mean 'min'?"),
        ("project: a\nenvironments:\n  prod:\n    merg: auto\n",
         "ctflow.yaml:4: unknown key 'environments.prod.merg'; did you mean 'merge'?"),
        ("project: a\nsteps:\n  train: {includes: [x]}\n",
         "ctflow.yaml:3: unknown key 'steps.train.includes'; did you mean 'include'?"),
        ("project: Digits\n", "ctflow.yaml:1: project: 'Digits' is not a project name"),
        ("project: 3\n", "ctflow.yaml:1: project: "),
        ("project: a\npipeline: pipeline.py\n", "ctflow.yaml:2: pipeline: 'pipeline.py' is not"),
        ("project: a\npipeline: 'p.py:not valid'\n", "is not file.py:function"),
        ("project: a\nrunner: remote\n", "ctflow.yaml:2: runner: "),
        ("project: a\nmodel: {artifact: model}\n", "'model' is not task.output, such as"),
        ("project: a\ngate:\n  - {metric: m}\n", "ctflow.yaml:3: gate.0: a gate rule needs 'min'"),
        ("project: a\ngate:\n  - {metric: m, min: .nan}\n", "ctflow.yaml:3: gate.0.min"),
        ("project: a\ngate:\n  - {metric: m, min: .inf}\n", "ctflow.yaml:3: gate.0.min"),
        ("project: a\ngate:\n  - {metric: m, min: 2, max: 1}\n", "min 2 is above max 1"),
        ("project: a\ngate:\n  - {metric: m, min: 1, over: champion}\n", "write two rules"),
        ("project: a\ngate:\n  - {metric: m, over: champion}\n", "needs 'predictions: task."),
        ("project: a\ngate:\n  - {metric: m, min: 1, by: x}\n", "needs 'predictions: task."),
        ("project: a\ngate:\n  - {metric: m, slices: {a: {min: 1}}}\n", "'slices' needs 'by"),
        (("project: a\ngate:\n  - metric: m\n    over: champion\n    predictions: e.p\n"
         "    margin: 1\n    min_gain: 1\n"), "ctflow.yaml:3: gate.0: 'margin' allows a loss"),
        ("project: a\ngate:\n  - {metric: m, over: champion, predictions: e.p, confidence: 1.0}\n",
         "ctflow.yaml:3: gate.0.confidence"),
        ("project: a\nforge: {kind: github}\n", "forge kind github needs 'repository: owner/name'"),
        ("project: a\nenvironments: {}\n", "ctflow.yaml:2: environments"),
        ("project: a\nenvironments: {Prod: {}}\n", "'Prod' is not an environment's name"),
        ("project: a\nenvironments: {p: {after: s}}\n", "comes after 's', which is none of p"),
        ("project: a\nenvironments: {p: {after: q}, q: {after: p}}\n", "comes after itself"),
        ("project: a\nenvironments: {p: {port: 80}}\n", "environments.p.port"),
        ("project: a\nenvironments: {p: {rollout: {pause: 5}}}\n", "environments.p.rollout.pause"),
        ("project: a\nenvironments: {p: {rollout: {pause: soon}}}\n", "'soon' is not a duration"),
        ("project: a\nenvironments: {p: {rollout: {canary: [50, 10]}}}\n", "percentages must rise"),
        ("project: a\nenvironments: {p: {rollout: {canary: [0]}}}\n", "rollout.canary.0"),
    ],
)  # fmt: skip
def test_refused(tmp_path: Path, text: str, message: str) -> None:
    assert message in refused(tmp_path, text)


def test_a_misspelt_key_comes_before_what_it_leaves_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, "branch: main\nprojet: digits\n")
    assert "unknown key 'projet'" in str(raised.value)
    assert raised.value.details == ("and 1 more",)


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "ctflow.yaml").write_bytes(b"project: \xff\n")
    with pytest.raises(ConfigError, match="cannot read"):
        load_settings(tmp_path, {})


def test_tags_do_not_make_objects(tmp_path: Path) -> None:
    assert "not valid YAML" in refused(tmp_path, "project: !!python/object/apply:os.getcwd []\n")


# -- precedence --------------------------------------------------------------------------------


def test_flags_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    text = "project: digits\nbranch: file\nimages: {base: file}\n"
    environ = {"CTFLOW_BRANCH": "variable", "CTFLOW_IMAGES__BASE": "variable"}
    settings = load(tmp_path, text, environ, ["branch=flag"])
    project, origins = settings.project, settings.origins
    assert (project.branch, project.images.base, project.runner) == ("flag", "variable", "local")
    assert origin_of("branch", origins) == "--set branch"
    assert origin_of("images.base", origins) == "CTFLOW_IMAGES__BASE"
    assert origin_of("project", origins) == "ctflow.yaml:1"
    assert origin_of("runner", origins) == "default"
    assert origin_of("images.registry", origins) == "default"


def test_values_outside_the_file_are_yaml(tmp_path: Path) -> None:
    flags = ["parameters.epochs=5", "parameters.name='5'", "gate=[{metric: m, min: 0.5}]"]
    project = load(tmp_path, "project: a\n", {"CTFLOW_PARAMETERS__SEED": "7"}, flags).project
    assert project.parameters == {"epochs": 5, "name": "5", "seed": 7}
    assert project.gate[0].min == 0.5


def test_ctflow_s_own_variables_are_no_settings(tmp_path: Path) -> None:
    own = {"CTFLOW_IMAGES": "{}", "CTFLOW_STATE": str(tmp_path / "s"), "CTFLOW_CACHE": "/c"}
    assert load(tmp_path, "project: a\n", own).state == tmp_path / "s"
    assert load(tmp_path, "project: a\n").state == tmp_path / ".ctflow"


@pytest.mark.parametrize(
    ("environ", "flags", "message"),
    [
        (
            {"CTFLOW_RUNER": "local"},
            [],
            "CTFLOW_RUNER: unknown key 'runer'; did you mean 'runner'?",
        ),
        ({"CTFLOW_RUNNER": "remote"}, [], "CTFLOW_RUNNER: runner: "),
        ({"CTFLOW_BRANCH": "["}, [], "CTFLOW_BRANCH: '[' is not a YAML value; quote it"),
        ({"CTFLOW_PROJECT__NAME": "x"}, [], "CTFLOW_PROJECT__NAME: 'project' holds a value"),
        ({}, ["branch"], "--set branch has no value; write --set key=value"),
        ({}, ["runner=remote"], "--set runner: runner: "),
        ({}, ["images.bas=x"], "--set images.bas: unknown key 'images.bas'; did you mean 'base'?"),
        ({}, ["project.name=x"], "'project' holds a value, not keys"),
        ({}, ["branch="], "--set branch: branch: "),
    ],
)
def test_refused_outside_the_file(
    tmp_path: Path, environ: dict[str, str], flags: list[str], message: str
) -> None:
    assert message in refused(tmp_path, "project: digits\n", environ, flags)


def test_root_is_found_from_below(tmp_path: Path) -> None:
    (tmp_path / "ctflow.yaml").write_text("project: a\n")
    below = tmp_path / "steps" / "train"
    below.mkdir(parents=True)
    assert find_root(below) == tmp_path
    assert load_settings(below, {}).file == tmp_path / "ctflow.yaml"


def test_no_project(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="make one with `ctflow new`"):
        find_root(tmp_path)


def test_flatten_and_load_again(tmp_path: Path) -> None:
    flat = flatten(load(tmp_path, FULL).project)
    assert flat["environments.production.rollout.pause"] == "5m"
    assert flat["gate.0.min"] == 0.8
    assert flat["environments.production.rollout.canary"] == [10, 50, 100]
    assert next(iter(flat)) == "project"


def test_known_keys_at_every_depth() -> None:
    assert "gate" in known_keys(())
    assert known_keys(("steps", "train")) == ["folder", "include"]
    assert known_keys(("gate", 0, "slices", "any")) == ["max", "min"]
    assert known_keys(("environments", "prod", "rollout")) == ["canary", "pause"]
    assert known_keys(("parameters", "x")) == []


def test_schema_describes_every_key() -> None:
    schema = Project.model_json_schema()
    json.dumps(schema)
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == set(Project.model_fields)


# -- small parts -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "digits", "a-1", "a" * 40])
def test_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "A", "1a", "-a", "a-", "a_b", "a.b", "a" * 41, "a\n", "é"])
def test_names_that_kserve_refuses(name: str) -> None:
    with pytest.raises(ValueError, match="is not a project name"):
        check_name(name)


@pytest.mark.parametrize(
    ("text", "value"), [("30s", 30), ("5m", 300), ("1h", 3600), ("250ms", 0.25), ("1.5m", 90)]
)
def test_durations(text: str, value: float) -> None:
    assert seconds(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "5", "m", "-5m", "5 m", "5d", "1h30m"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        seconds(text)


@given(st.text(alphabet="ab:-{}[]&*!|>'\"%@#,? \n\t", max_size=60))
def test_any_text_is_data_or_a_config_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        data, lines = parse(text, "ctflow.yaml")
        assert len(data) == len({loc[0] for loc in lines})
        assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())


@pytest.mark.parametrize("key", ["1", "null", "on", "2026-01-01", "[a]", "{a: b}"])
def test_keys_that_are_no_names(tmp_path: Path, key: str) -> None:
    assert "ctflow.yaml:2: a key is not text" in refused(tmp_path, f"project: a\n? {key}\n: b\n")


def test_a_target_of_a_later_version_is_said(tmp_path: Path) -> None:
    """Each environment has its own; what this version does not have is refused when it is asked."""
    (tmp_path / "ctflow.yaml").write_text(
        "project: digits\nenvironments:\n  staging: {}\n  production: {target: kserve}\n"
    )
    tools = wire(load_settings(tmp_path, {}))
    assert tools.target("staging") is tools.target("staging")
    with pytest.raises(ConfigError, match=r"production\.target 'kserve' is not in this version"):
        tools.target("production")


@pytest.mark.parametrize(
    ("yaml", "port", "message"),
    [
        (
            "forge: {kind: gitea, repository: a/b}",
            "forge",
            "forge.kind 'gitea' is not in this version; use one of: none",
        ),
    ],
)
def test_kinds_of_a_later_version_are_refused_alike(
    tmp_path: Path, yaml: str, port: str, message: str
) -> None:
    (tmp_path / "ctflow.yaml").write_text(f"project: digits\n{yaml}\n")
    with pytest.raises(ConfigError) as caught:
        getattr(wire(load_settings(tmp_path, {})), port)
    assert str(caught.value) == message


def test_every_store_that_a_url_can_name_has_an_entry() -> None:
    """A scheme that ctflow.yaml may hold, and that nothing opens, would be no setting."""
    assert set(choices.STORES) == {"file", *OBJECT_STORES}


def test_a_folder_store_is_made_of_a_path_and_of_a_url(tmp_path: Path) -> None:
    (tmp_path / "ctflow.yaml").write_text("project: digits\n")
    tools = wire(load_settings(tmp_path, {}))
    for place in ("models", f"file://{tmp_path}/models"):
        assert isinstance(tools.store_at(place), FolderStore)
    with pytest.raises(ConfigError, match="a model store is a folder or one of"):
        tools.store_at("ftp://models")
