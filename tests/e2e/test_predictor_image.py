"""The predictor's image: built, pushed, named by a release, it answers as the same code does here.

With images made without an engine and by podman, run by the real podman and a real dockerd.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from tests.containers import Containers
from tests.engines import Docker
from tests.projects import git

#: Sends requests to the model server in its own container, once it is ready, and prints what it
#: answers.
ASK = """
import json, sys, time, urllib.error, urllib.request
end = time.monotonic() + 120
while True:
    try:
        urllib.request.urlopen("http://127.0.0.1:8080/v2/health/ready")
        break
    except OSError:
        assert time.monotonic() < end, "it does not answer"
        time.sleep(0.05)
answers = []
for path, body in json.loads(sys.stdin.read()):
    asked = urllib.request.Request(f"http://127.0.0.1:8080{path}", json.dumps(body).encode(),
                                   {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(asked) as answer:
            answers.append((answer.status, json.loads(answer.read())))
    except urllib.error.HTTPError as error:
        answers.append((error.code, json.loads(error.read())))
print(json.dumps(answers))
"""


def call(root: Path, environ: Mapping[str, str], *words: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "ctflow", *words], cwd=root, capture_output=True, text=True,
        env={**os.environ, **environ},
    )  # fmt: skip
    assert done.returncode == code, done.stderr + done.stdout
    return done.stdout


@dataclass(frozen=True)
class Demo:
    """The template's project, its first model served in staging on this machine."""

    root: Path
    environ: Mapping[str, str]
    said: str
    containers: Containers

    def call(self, *words: str) -> str:
        return call(self.root, self.environ, *words)

    def approve(self, environment: str = "staging") -> None:
        rows = self.json("promotions", "list")
        (reviewed,) = [row["id"] for row in rows if row["environment"] == environment]
        self.call("promotions", "approve", environment, reviewed)

    def json(self, *words: str) -> Any:
        return json.loads(self.call(*words, "--json"))

    def release(self, environment: str = "staging") -> Any:
        return self.json("why", environment)["release"]

    def manifest(self, environment: str = "staging") -> Any:
        text = git(self.root, "show", f"HEAD:deploy/{environment}/inferenceservice.yaml")
        return yaml.safe_load(text)["spec"]["predictor"]

    def requests(self) -> list[tuple[str, Any]]:
        """The golden requests, and one that is refused: path and body."""
        golden = json.loads((self.root / "serving" / "golden.json").read_text())
        places = {"v1": "/v1/models/demo:predict", "v2": "/v2/models/demo/infer"}
        asked = [(places[one.get("protocol", "v1")], one["request"]) for one in golden]
        return [*asked, (places["v1"], {"instances": [[1, 2, 3]]})]

    def here(self) -> list[Any]:
        """What this machine's model server answers."""
        url = self.json("status")[0]["deployment"]["url"]
        found = (
            requests.post(f"{url}{path}", json=body, timeout=60) for path, body in self.requests()
        )
        return [[one.status_code, without_ids(one.json())] for one in found]

    def there(self, engine: Sequence[str], environ: Mapping[str, str], image: str) -> list[Any]:
        """What a container of the image answers, started as the manifest says."""
        (container,) = self.manifest()["containers"]
        (storage,) = container["env"]
        assert storage["name"] == "STORAGE_URI"
        model = storage["value"].removeprefix("file://")

        def run(*words: str, data: str = "") -> str:
            done = subprocess.run(
                [*engine, *words], input=data, capture_output=True, text=True,
                env={**os.environ, **environ},
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            return done.stdout.strip()

        # Without a network it can listen where KServe expects it, and nobody else sees it.
        started = run(
            "run", "--detach", "--network", "none", "--volume", f"{model}:/mnt/models:ro",
            image, *container["args"],
        )  # fmt: skip
        try:
            asked = json.dumps(self.requests())
            words = ("exec", "--interactive", started, "python", "-c", ASK)
            assert run("exec", started, "id", "-u") == "1000"
            return [[code, without_ids(body)] for code, body in json.loads(run(*words, data=asked))]
        finally:
            run("rm", "--force", started)


def without_ids(answer: Any) -> Any:
    """Each response has an id of its own, where the request has none."""
    return {k: v for k, v in answer.items() if k != "id"} if isinstance(answer, dict) else answer


@pytest.fixture(scope="module")
def demo(containers: Containers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    base = tmp_path_factory.mktemp("predictor")
    environ = {
        **containers.environ,
        "CTFLOW_CACHE": str(base / "cache"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    call(base, environ, "new", "demo", "--no-input")
    root = base / "demo"
    config = root / "ctflow.yaml"
    text = config.read_text().replace("base: python:3.11-slim", f"base: {containers.base}")
    config.write_text(text.replace(
        "\nimages:\n", f"\nimages:\n  registry: {containers.address}/predictor\n  builder: layers\n"
    ))  # fmt: skip
    git(root, "commit", "-qam", "a registry")
    said = call(root, environ, "ct")
    made = Demo(root, environ, said, containers)
    made.approve()
    made.call("deploy", "staging")
    yield made
    made.call("deploy", "staging", "--stop")


def test_the_release_names_what_is_in_the_registry(demo: Demo) -> None:
    image = demo.release()["serving"]["image"]
    assert image.startswith(f"{demo.containers.address}/predictor/predictor@sha256:")
    assert demo.manifest()["containers"][0]["image"] == image
    assert image in demo.said
    found = [one for one in demo.json("images", "list") if one["step"] == "predictor"]
    assert [(one["digest"], one["used"]) for one in found] == [(image.partition("@")[2], True)]
    assert image.partition("@")[0] in demo.call("why", "staging")
    assert f"predictor {image}" in demo.call("deploy", "staging")
    # Nothing is built again where nothing has changed, nor is it pruned.
    assert demo.json("promote", "--dry-run")["state"] == "none"
    assert demo.json("images", "prune", "--keep", "0")["deleted"] == []


def test_podman_answers_the_same(demo: Demo) -> None:
    image = demo.release()["serving"]["image"]
    here = demo.here()
    assert {one[0] for one in here} == {200, 400}
    assert demo.there(["podman"], demo.environ, image) == here


def test_docker_answers_the_same(demo: Demo, docker: Docker) -> None:
    image = demo.release()["serving"]["image"]
    environ = {**demo.environ, **docker.environ}
    assert demo.there(["docker"], environ, image) == demo.here()


def test_an_image_that_podman_builds_answers_the_same(demo: Demo) -> None:
    """Its base has the requirements already: nothing is fetched."""
    base = demo.release()["serving"]["image"]
    words = ("--set", "images.builder=podman", "--set", f"images.base={base}")
    built = demo.json("build", "--push", "--only", "predictor", *words)
    assert built["images"] == []
    image = built["predictor"]["reference"]
    assert built["predictor"]["built"]
    assert image != base
    assert demo.there(["podman"], demo.environ, image) == demo.here()


def test_production_gets_the_pair_that_staging_has(demo: Demo) -> None:
    demo.call("promote", "--to", "production")
    demo.approve("production")
    for name in ("model", "serving"):
        mine, theirs = demo.release("production")[name], demo.release()[name]
        assert {**mine, "folder": ""} == {**theirs, "folder": ""}
    assert demo.manifest("production") == demo.manifest()


def test_after_other_code_a_rollback_brings_the_image_back(demo: Demo) -> None:
    before = demo.release()["serving"]
    here = demo.here()
    code = demo.root / "serving" / "predictor.py"
    code.write_text(code.read_text() + "\n# changed\n")
    git(demo.root, "commit", "-qam", "changed")
    assert "same model, new serving code" in demo.call("ct")
    demo.approve()
    demo.call("deploy", "staging")
    after = demo.release()["serving"]
    assert after["image"] != before["image"]
    assert demo.here() == here
    said = demo.call("rollback", "staging", "--reason", "not that")
    assert f"predictor {before['image']}" in said
    assert demo.release()["serving"] == before
    assert demo.manifest()["containers"][0]["image"] == before["image"]
    assert demo.there(["podman"], demo.environ, before["image"]) == demo.here() == here
