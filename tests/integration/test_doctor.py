"""`ctflow doctor` as a command."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from tests.kfp_server import KfpServer
from tests.kube_server import KubeServer, kubeflow_parts
from tests.projects import TinyProject


def files(folder: Path) -> set[str]:
    return {
        str(Path(place) / name)
        for place, _, names in os.walk(folder)
        for name in names
        if name != "FETCH_HEAD"
    }


def test_a_project_on_this_machine(tmp_path: Path) -> None:
    project = TinyProject(tmp_path)
    # Nothing at all is written, not even the state's folder.
    for one in project.state.rglob("*"):
        if one.is_file():
            one.unlink()
    before = files(tmp_path)
    said = project.ok("doctor")
    assert files(tmp_path) == before
    assert "may push" in said
    assert "model store" in said
    assert "kubeflow.host is not set" in said
    found = project.json("doctor")
    assert found["ok"] is True
    marks = {one["system"]: one["mark"] for one in found["findings"]}
    assert (marks["git"], marks["remote"], marks["kubernetes"]) == ("ok", "ok", "skipped")
    project.write("ctflow.yaml", (project.folder / "ctflow.yaml").read_text().replace(
        "project: tiny", "project: tiny\nstore: {models: pipeline.py}"
    ))  # fmt: skip
    assert "cannot be written to" in project.call("doctor").stdout
    assert project.call("doctor").returncode == 5


def test_a_project_on_a_cluster(tmp_path: Path) -> None:
    project = TinyProject(tmp_path)
    with KfpServer() as kfp, KubeServer() as kube:
        kubeflow_parts(kube)
        project.env |= {
            "KUBECONFIG": str(kube.kubeconfig(tmp_path)),
            "KFP_TOKEN": "kfp-token-of-ada",
            "CTFLOW_RUNNER": "kubeflow",
            "CTFLOW_KUBEFLOW__HOST": kfp.url,
        }
        config = (project.folder / "ctflow.yaml").read_text()
        project.write("ctflow.yaml", f"{config}kubeflow: {{auth: {{token_env: KFP_TOKEN}}}}\n")
        done = project.call("doctor")
        # The images have nowhere to go.
        assert done.returncode == 5
        assert "✗ images.registry is not set" in done.stdout
        assert (
            "2.17.0   single-user, pipelines in database   as the token in KFP_TOKEN" in done.stdout
        )
        assert "v1.36.0   as ada" in done.stdout
        assert "secret mlpipeline-minio-artifact in namespace kubeflow is there" in done.stdout
        assert done.stdout.count("✗") == 1
        # Also by way of Kubernetes itself.
        project.env |= {"CTFLOW_KUBEFLOW__HOST": "kubernetes"}
        kube.put(
            "/api/v1/namespaces/kubeflow/services/ml-pipeline:8888/proxy/apis/v2beta1/healthz",
            tag_name="2.17.0", multi_user=True,
        )  # fmt: skip
        through = project.call("doctor")
        assert "multi-user, pipelines in database   as the kubeconfig's login" in through.stdout
        for text in (done.stdout, done.stderr, through.stdout, through.stderr):
            assert "token-of-ada" not in text


def test_a_server_that_hangs(tmp_path: Path) -> None:
    project = TinyProject(tmp_path)
    with socket.socket() as silent:
        # It takes connections and never answers.
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        project.env |= {"CTFLOW_RUNNER": "kubeflow", "CTFLOW_KUBEFLOW__HOST": url}
        found = project.json("doctor", "--timeout", "2s", code=5)
    (kubeflow,) = [one for one in found["findings"] if one["system"] == "kubeflow"]
    assert kubeflow["mark"] == "failed"
    assert "does not answer" in kubeflow["text"] or "no answer within" in kubeflow["text"]
    assert "--timeout" in project.fails(2, "doctor", "--timeout", "soon")
    assert "above 0" in project.fails(2, "doctor", "--timeout", "0s")
