"""An image that is in a registry on this machine is what a pod of the node runs."""

from __future__ import annotations

import json

import pytest

from tests.containers import Containers
from tests.e2e.node import Node


@pytest.mark.timeout(400)
def test_a_pod_runs_an_image_of_a_local_registry(node: Node, containers: Containers) -> None:
    pod = {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "from-registry", "namespace": "kubeflow"},
        "spec": {"restartPolicy": "Never", "containers": [{
            "name": "main", "image": containers.base,
            "command": ["python3", "-c", "print('from the registry')"],
        }]},
    }  # fmt: skip
    manifest = containers.folder / "pod.json"
    manifest.write_text(json.dumps(pod))
    node.kubectl("apply", "-f", str(manifest))
    try:
        node.kubectl(
            "wait", "pod/from-registry", "-n", "kubeflow", "--timeout=120s",
            "--for=jsonpath={.status.phase}=Succeeded",
        )  # fmt: skip
        assert node.kubectl("logs", "-n", "kubeflow", "from-registry") == "from the registry\n"
    finally:
        node.kubectl("delete", "pod", "from-registry", "-n", "kubeflow", "--wait=false")
