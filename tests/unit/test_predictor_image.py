"""The predictor's image: in releases, in holds, in manifests, and as a source beside the steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ctflow.errors import ConfigError
from ctflow.model import (
    Hold,
    ModelRef,
    Release,
    ServingRef,
    Verdict,
    from_json,
    is_local_image,
    to_json,
)
from ctflow.ports import StepSource
from ctflow.release import files
from ctflow.release.manifest import render
from ctflow.steps.context import discover_predictor

IMAGE = "ghcr.io/acme/digits/predictor@sha256:" + "1" * 64
OTHER = IMAGE.replace("1" * 64, "2" * 64)
LOCAL = "ctflow.local/digits/predictor@sha256:" + "3" * 64
OWN = ServingRef("deploy/staging/serving", "predictor.py", "golden.json", "sha256:code")
SKLEARN = ServingRef("f", "", "", "sha256:std", "sklearn", ("scikit-learn==1.7.2",))


def release(serving: ServingRef | None, uri: str = "s3://m/one/model") -> Release:
    return Release(
        "digits", "staging", ModelRef(uri, "sha256:m", "sklearn"), "r-1", "digits", "v", "sha256:p",
        "c" * 40, 0.0, Verdict("digits", "staging", "r-1", "promote", ()), serving=serving,
    )  # fmt: skip


def made(image: str, before: str | None = None, uri: str = "s3://m/one/model") -> str:
    return render(release(replace(OWN, image=image), uri), before, "m.yaml")


def predictor(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text)["spec"]["predictor"]
    return found


def test_a_release_keeps_its_image_and_one_of_before_has_none() -> None:
    now = release(replace(OWN, image=IMAGE))
    data = to_json(now)
    assert from_json(Release, data) == now
    old = data | {"version": 3}
    old["serving"] = {k: v for k, v in data["serving"].items() if k != "image"}
    assert from_json(Release, old).serving == OWN


def test_the_image_is_part_of_what_a_release_is() -> None:
    bare, one, two = (files.identity_of(release(replace(OWN, image=i))) for i in ("", IMAGE, OTHER))
    assert bare.serving == bare.code == OWN.digest
    assert len({bare.serving, one.serving, two.serving}) == 3
    assert one.code == two.code == OWN.digest


def test_a_hold_on_one_image_leaves_the_other_with_the_same_code() -> None:
    first, second = release(replace(OWN, image=IMAGE)), release(replace(OWN, image=OTHER))
    held = files.held_serving(second, first)
    hold = Hold("sha256:m", "slow", "ada", "now", held)
    assert files.is_held(files.identity_of(second), (hold,)) == hold
    assert files.is_held(files.identity_of(first), (hold,)) is None
    # One that was written before releases named images still holds.
    old = replace(hold, serving=OWN.digest)
    assert files.is_held(files.identity_of(first), (old,)) == old


def test_a_new_manifest_has_a_container_as_kserve_takes_it() -> None:
    assert predictor(made(IMAGE)) == {
        "containers": [
            {
                "name": "kserve-container",
                "image": IMAGE,
                "args": ["--model_name=digits"],
                "env": [{"name": "STORAGE_URI", "value": "s3://m/one/model"}],
            }
        ]
    }
    assert made(IMAGE, made(IMAGE)) == made(IMAGE)


@pytest.mark.parametrize("image", ["", LOCAL])
def test_an_image_that_nobody_can_pull_is_in_no_manifest(image: str) -> None:
    assert predictor(made(image))["model"]["modelFormat"] == {"name": "sklearn"}
    assert is_local_image(LOCAL)
    assert not is_local_image(IMAGE)


def test_updating_a_container_leaves_what_people_wrote() -> None:
    first = made(IMAGE)
    edited = first.replace(
        "        env:\n",
        "        # enough for one image\n        resources: {limits: {memory: 2Gi}}\n        env:\n"
        "          - name: LEVEL\n            value: debug  # for now\n",
    ).replace("--model_name=digits", "--model_name=other")
    text = made(OTHER, edited, "s3://m/two/model")
    lost = set(edited.splitlines()) - set(text.splitlines())
    assert [line.split(":")[0].strip() for line in sorted(lost)] == ["value", "image"]
    (found,) = predictor(text)["containers"]
    assert found["image"] == OTHER
    assert found["env"] == [
        {"name": "LEVEL", "value": "debug"},
        {"name": "STORAGE_URI", "value": "s3://m/two/model"},
    ]
    assert found["args"] == ["--model_name=other"]


def test_a_missing_variable_is_added() -> None:
    text = made(IMAGE).replace("STORAGE_URI", "LEVEL")
    (found,) = predictor(made(IMAGE, text))["containers"]
    assert [one["name"] for one in found["env"]] == ["STORAGE_URI", "LEVEL"]
    bare = "\n".join(made(IMAGE).splitlines()[:-3]) + "\n"
    (found,) = predictor(made(IMAGE, bare))["containers"]
    assert found["env"] == [{"name": "STORAGE_URI", "value": "s3://m/one/model"}]


SERVER = """\
metadata:
  name: digits-public
  annotations: {a: b}
spec:
  predictor:
    minReplicas: 2  # two, since the outage
    model:
      # the server
      modelFormat:
        name: sklearn
      protocolVersion: v2
      runtime: kserve-mlserver
      # enough
      resources:
        limits:
          cpu: "1"   # one
      env:
        - name: LEVEL
          value: debug
      storageUri: s3://m/zero
      args: [--workers=2]
    # and this
    serviceAccountName: ada
"""


def block_style(text: str) -> str:
    return text.replace("  annotations: {a: b}\n", "  annotations:\n    a: b\n")


def test_a_model_becomes_a_container_with_what_people_added() -> None:
    text = made(IMAGE, block_style(SERVER))
    found = predictor(text)
    assert found == {
        "minReplicas": 2,
        "containers": [
            {
                "name": "kserve-container",
                "image": IMAGE,
                "args": ["--model_name=digits-public"],
                "resources": {"limits": {"cpu": "1"}},
                "env": [
                    {"name": "STORAGE_URI", "value": "s3://m/one/model"},
                    {"name": "LEVEL", "value": "debug"},
                ],
            }
        ],
        "serviceAccountName": "ada",
    }
    for comment in ("# two, since the outage", "# one", "# and this"):
        assert comment in text
    assert made(IMAGE, text) == text


def test_a_container_becomes_a_model_with_what_people_added() -> None:
    text = made(IMAGE, block_style(SERVER))
    back = render(release(SKLEARN), text, "m.yaml")
    assert predictor(back) == {
        "minReplicas": 2,
        "model": {
            "modelFormat": {"name": "sklearn"},
            "storageUri": "s3://m/one/model",
            "resources": {"limits": {"cpu": "1"}},
            "env": [{"name": "LEVEL", "value": "debug"}],
        },
        "serviceAccountName": "ada",
    }
    for comment in ("# two, since the outage", "# one", "# and this"):
        assert comment in back
    assert predictor(render(release(SKLEARN), made(IMAGE), "m.yaml")) == {
        "model": {"modelFormat": {"name": "sklearn"}, "storageUri": "s3://m/one/model"}
    }


@pytest.mark.parametrize("sidecar_first", [True, False])
def test_other_containers_stay(sidecar_first: bool) -> None:
    side = "    containers:\n      - name: side\n        image: side:1\n"
    head, tail = block_style(SERVER).split("    minReplicas")
    text = f"{head}{side}    minReplicas{tail}" if sidecar_first else block_style(SERVER) + side
    text = made(IMAGE, text)
    found = predictor(text)
    assert [one["name"] for one in found["containers"]] == ["kserve-container", "side"]
    assert found["containers"][0]["resources"] == {"limits": {"cpu": "1"}}
    assert "model" not in found
    back = predictor(render(release(SKLEARN), text, "m.yaml"))
    assert back["containers"] == [{"name": "side", "image": "side:1"}]
    assert back["model"]["resources"] == {"limits": {"cpu": "1"}}


def test_a_container_of_a_person_is_not_ours_to_take_away() -> None:
    theirs = block_style(SERVER).split("    model:")[0] + (
        "    containers:\n      - name: kserve-container\n        image: mine:1\n"
    )
    found = predictor(render(release(SKLEARN), theirs, "m.yaml"))
    assert found["containers"] == [{"name": "kserve-container", "image": "mine:1"}]


def test_a_predictor_in_one_line_is_refused() -> None:
    text = "metadata:\n  annotations:\n    a: b\nspec:\n  predictor:\n    model: {modelFormat: x}\n"
    with pytest.raises(ConfigError, match=r"spec\.predictor is not written in lines of its own"):
        made(IMAGE, text)


def test_the_predictor_is_a_source_where_it_has_a_dockerfile(tmp_path: Path) -> None:
    folder = tmp_path / "serving"
    folder.mkdir()
    (tmp_path / "common").mkdir()
    assert discover_predictor(tmp_path, "serving", (), ()) is None
    (folder / "Dockerfile").write_text("FROM x\n")
    found = discover_predictor(tmp_path, "serving", ("common",), ())
    assert found == StepSource("predictor", folder.resolve(), (tmp_path.resolve() / "common",))
    with pytest.raises(ConfigError, match="has the name that the image of serving/ gets"):
        discover_predictor(tmp_path, "serving", (), (StepSource("predictor", tmp_path),))
    with pytest.raises(ConfigError, match="does not exist"):
        discover_predictor(tmp_path, "serving", ("nothing",), ())
