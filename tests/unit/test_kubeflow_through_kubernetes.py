"""KFP through the Kubernetes API, and pods' logs from there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctflow.config.kubeflow import KubeflowConfig
from ctflow.errors import ConfigError
from ctflow.rest.client import Api
from ctflow.rest.patience import Patience
from ctflow.runners.kubeflow.api import Kfp
from ctflow.runners.kubeflow.cluster import api_server
from ctflow.runners.kubeflow.connection import connect
from ctflow.runners.kubeflow.logs import Logs
from tests.unit.test_rest import Server, said, serving


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


@pytest.fixture
def environ(server: Server, tmp_path: Path) -> dict[str, str]:
    """Variables that name a kubeconfig with two contexts."""
    context = {"cluster": "here", "user": "me"}
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "first",
        "clusters": [{"name": "here", "cluster": {"server": server.url}}],
        "users": [{"name": "me", "user": {"token": "token-of-a-person"}}],
        "contexts": [{"name": name, "context": context} for name in ("first", "second")],
    }  # fmt: skip
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    return {"KUBECONFIG": str(tmp_path / "kubeconfig")}


def test_the_service_is_reached_through_the_proxy(
    server: Server, environ: dict[str, str], tmp_path: Path
) -> None:
    server.script = [said(200, {"tag_name": "2.17.0"})]
    config = KubeflowConfig(host="kubernetes", context="second", service="kfp/ml-pipeline:8888")
    kfp = connect(config, tmp_path, environ)
    assert kfp.health() == {"tag_name": "2.17.0"}
    _, path, headers, _ = server.asked[0]
    proxy = "/api/v1/namespaces/kfp/services/ml-pipeline:8888/proxy"
    assert path == f"{proxy}/apis/v2beta1/healthz"
    assert headers["Authorization"] == "Bearer token-of-a-person"
    assert kfp.page("runs") == ""  # the proxy is no place for a person
    with pytest.raises(ConfigError, match="no Kubernetes API server"):
        connect(KubeflowConfig(host="kubernetes", context="third"), tmp_path, environ)


def test_the_log_of_a_pod_that_lives_comes_from_kubernetes(
    server: Server, environ: dict[str, str]
) -> None:
    found = api_server(None, environ)
    cluster = Api(found.name, found.url, found.credentials)
    server.script = [(200, {"Content-Type": "text/plain"}, b"<html> is a line\nlast\n")]
    with serving() as other:
        kfp = Kfp(Api("KFP", other.url, patience=Patience(sleep=lambda s: None)))
        logs = Logs(kfp, lambda: cluster, "team-a")
        assert list(logs.lines("r", "pod-1")) == ["<html> is a line", "last"]
        method, path, _, _ = server.asked[0]
        assert (method, path.partition("?")[0]) == (
            "GET",
            "/api/v1/namespaces/team-a/pods/pod-1/log",
        )
        assert "container=main" in path
        assert other.asked == []

        # It is gone there: KFP knows the archive.
        server.script = [said(404, {"message": "no such pod"})]
        other.script = [(200, {"Content-Type": "text/plain"}, b"kept\n")]
        assert list(logs.lines("r", "pod-1")) == ["kept"]
        # KFP says with status 200 that it cannot, and never more than one line is made of that.
        other.script = [said(200, {"error_message": "no", "error_details": "no"})]
        (line,) = logs.lines("r", "pod-1")
        assert "cannot be read" in line
