"""The doctor's checks, each against a server that answers; and how they are asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ctflow.doctor.cluster_parts import ClusterParts
from ctflow.doctor.forge import Forge
from ctflow.doctor.git_remote import GitRemote
from ctflow.doctor.kfp import KubeflowPipelines
from ctflow.doctor.kubernetes import Kubernetes
from ctflow.doctor.model_store import Store
from ctflow.doctor.programs import Engine, Git, Uv
from ctflow.doctor.registry import Registry
from ctflow.doctor.run_outputs import RunOutputs
from ctflow.errors import ConfigError, OutsideError
from ctflow.images.registry.credentials import Keychain
from ctflow.images.registry.http import Host
from ctflow.model.doctor import Finding, Skipped
from ctflow.ports.doctor import Check
from ctflow.rest.client import Api
from ctflow.rest.patience import Patience
from ctflow.runners.kubeflow.api import Kfp
from ctflow.stages.doctor import examine, fails
from ctflow.stores.folder_store import FolderStore
from tests.contracts.small_registry import SmallRegistry
from tests.kfp_server import KfpServer
from tests.kube_server import KubeServer, kubeflow_parts
from tests.mlmd_server import mlmd_server
from tests.projects import git


def looked(check: Check) -> list[tuple[str, str]]:
    """The marks and texts of one check."""
    return [(one.mark, one.text) for one in examine([check], 60)]


def only(check: Check, mark: str) -> list[str]:
    return [text for found, text in looked(check) if found == mark]


# -- how they are asked ---------------------------------------------------------------------------


class Says:
    def __init__(self, system: str, *found: Finding, needed: bool = True) -> None:
        self.system, self.needed, self._found = system, needed, found

    def look(self) -> Sequence[Finding] | Skipped:
        return self._found


class Raises(Says):
    def look(self) -> Sequence[Finding] | Skipped:
        raise OutsideError("it is down", cause="refused", next="start it")


class Skips(Says):
    def look(self) -> Sequence[Finding] | Skipped:
        return Skipped("not configured")


class Hangs(Says):
    def __init__(self, system: str, *, needed: bool = True) -> None:
        super().__init__(system, needed=needed)
        self.go = threading.Event()

    def look(self) -> Sequence[Finding] | Skipped:
        self.go.wait()
        return ()


def test_what_fails_is_a_finding_as_it_is_needed() -> None:
    found = examine([Raises("a"), Raises("b", needed=False), Skips("c")], 60)
    assert found == (
        Finding("a", "failed", "it is down (refused)", next="start it"),
        Finding("b", "warning", "it is down (refused)", next="start it"),
        Finding("c", "skipped", "not configured"),
    )
    assert fails(found)
    assert not fails(found[1:])


def test_one_that_hangs_holds_up_no_other() -> None:
    hangs = [Hangs("a"), Hangs("b", needed=False)]
    found = examine([*hangs, Says("c", Finding("c", "ok", "here"))], 0.2)
    for one in hangs:
        one.go.set()
    assert [(one.system, one.mark) for one in found] == [
        ("a", "failed"), ("b", "warning"), ("c", "ok"),
    ]  # fmt: skip
    assert "no answer within 0.2 s" in found[0].text


def test_all_are_asked_at_the_same_time() -> None:
    meet = threading.Barrier(3, timeout=60)

    class Meets(Says):
        def look(self) -> Sequence[Finding] | Skipped:
            meet.wait()
            return [Finding(self.system, "ok", "")]

    assert not fails(examine([Meets("a"), Meets("b"), Meets("c")], 60))


def test_a_bug_in_a_check_is_one() -> None:
    class Broken(Says):
        def look(self) -> Sequence[Finding] | Skipped:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        examine([Broken("a")], 60)


# -- programs -------------------------------------------------------------------------------------


def test_programs_say_their_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for check in (Git(os.environ), Uv(os.environ)):
        (found,) = examine([check], 60)
        assert found.mark == "ok"
        assert found.version[0].isdigit()
    podman = tmp_path / "podman"
    podman.write_text("#!/bin/sh\necho Version: 5.4.2\n")
    podman.chmod(0o755)
    environ = {"PATH": str(tmp_path)}
    (found,) = examine([Engine("auto", True, environ)], 60)
    assert (found.mark, found.mode, found.version) == ("ok", "podman", "5.4.2")
    podman.write_text("#!/bin/sh\nexit 1\n")
    assert only(Engine("auto", True, environ), "warning") == [
        "podman do not answer: only simple Dockerfiles can be built"
    ]
    assert (
        "podman is installed, but does not answer"
        in only(Engine("podman", True, environ), "failed")[0]
    )
    assert "not on the PATH" in only(Engine("docker", True, environ), "failed")[0]
    for builder, images in (("auto", False), ("layers", True), ("local", True)):
        assert looked(Engine(builder, images, environ))[0][0] == "skipped"


# -- git ------------------------------------------------------------------------------------------


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q", "--bare", "-b", "master", "bare.git")
    git(tmp_path, "clone", "-q", "bare.git", "clone")
    folder = tmp_path / "clone"
    git(folder, "commit", "-q", "--allow-empty", "-m", "first")
    git(folder, "push", "-q", "origin", "HEAD:master")
    return folder


def test_a_remote_is_asked_and_not_changed(clone: Path) -> None:
    hook = clone / ".git" / "hooks" / "pre-push"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    check = GitRemote(clone, "master", 60)
    assert [mark for mark, _ in looked(check)] == ["ok", "ok"]
    assert looked(check)[1][1] == "may push"
    assert git(clone, "ls-remote", "--heads", "origin").count("refs/heads/") == 1
    assert only(GitRemote(clone, "main", 60), "warning") == ["it has no branch main"]


def test_a_remote_that_refuses(clone: Path) -> None:
    # As a server answers whom it does not let push.
    git(clone, "config", "remote.origin.receivepack", "false")
    assert "may not push" in only(GitRemote(clone, "master", 60), "failed")[0]
    git(clone, "remote", "set-url", "origin", "https://ada:secret-of-ada@127.0.0.1:9/x.git")
    (text,) = only(GitRemote(clone, "master", 60), "failed")
    assert "git ls-remote failed" in text
    assert "secret-of-ada" not in text
    git(clone, "remote", "remove", "origin")
    assert looked(GitRemote(clone, "master", 60))[0][0] == "skipped"


# -- registry, store, forge -----------------------------------------------------------------------


def host(name: str) -> Host:
    return Host(name, Keychain({"HOME": "/nonexistent"}), patience=Patience(1), timeout=(60, 60))


def test_a_registry() -> None:
    server = SmallRegistry()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    (found,) = examine([Registry(host(server.address), "acme/train", pushed=True)], 60)
    server.shutdown()
    server.server_close()
    thread.join()
    assert (found.mark, found.who) == ("ok", "nobody")
    assert found.text == f"{server.address}/acme/train answers"
    # Nobody listens any more.
    gone = Registry(host(server.address), "acme/train", pushed=True)
    assert looked(gone)[0][0] == "failed"
    assert looked(Registry(host(server.address), "x", pushed=False))[0][0] == "warning"
    assert looked(Registry(None, "", pushed=False))[0][0] == "skipped"
    assert "is not set" in only(Registry(None, "", pushed=True), "failed")[0]


def test_a_model_store(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there" / "yet"
    store = Store("models", folder, lambda: FolderStore(folder))
    assert looked(store) == [("ok", f"folder {folder}")]
    assert not (tmp_path / "not").exists()
    (tmp_path / "not").write_text("a file")
    assert "cannot be written to" in only(store, "failed")[0]

    def refused() -> FolderStore:
        raise OutsideError("the bucket is not there")

    assert only(Store("s3://x", None, refused), "failed") == ["the bucket is not there"]


def test_a_forge() -> None:
    assert looked(Forge("none", ("none",)))[0][0] == "skipped"
    assert only(Forge("github", ("none",)), "failed") == [
        "forge.kind 'github' is not in this version"
    ]


# -- Kubeflow Pipelines ---------------------------------------------------------------------------


def api(url: str) -> Api:
    return Api("Kubeflow Pipelines", url, patience=Patience(1))


def kubeflow(
    url: str, namespace: str = "", *, user: str = "", needed: bool = True, **health: object
) -> KubeflowPipelines:
    class Told(Kfp):
        def health(self) -> dict[str, object]:
            return super().health() | health

    made = api(url)
    if user:

        class Named:
            def headers(self) -> dict[str, str]:
                return {"kubeflow-userid": user}

            def renew(self) -> bool:
                return False

        made.credentials = Named()
    return KubeflowPipelines(
        lambda: Told(made, namespace), url, "digits", user or "nobody", needed=needed
    )


def test_kubeflow_as_it_should_be() -> None:
    with KfpServer() as server:
        found = examine([kubeflow(server.url)], 60)
        assert [one.mark for one in found] == ["ok", "ok", "ok"]
        assert (found[0].version, found[0].mode) == (
            "2.17.0", "single-user, pipelines in database",
        )  # fmt: skip
        assert "pipeline digits is not there yet" in found[2].text
        # Nothing but reading.
        assert {method for method, _ in server.requests} == {"GET"}
        Kfp(api(server.url)).create_pipeline("digits", "")
        assert "pipeline digits is there" in looked(kubeflow(server.url))[2][1]


@pytest.mark.parametrize(
    ("version", "mark", "said"),
    [
        ("2.16.1", "warning", "versions get no tags"),
        ("2.5.0", "warning", "tried with 2.15 and newer"),
        ("2.18.0", "warning", "up to 2.17"),
        ("1.8.5", "failed", "before 2.0"),
        ("unknown", "warning", "does not say its version (unknown)"),
    ],
)
def test_what_a_version_lacks(version: str, mark: str, said: str) -> None:
    with KfpServer() as server:
        assert any(said in one for one in only(kubeflow(server.url, tag_name=version), mark))


def test_kubeflow_with_users() -> None:
    with KfpServer(grants=[("ada@acme.dev", "digits")]) as server:
        text = only(kubeflow(server.url, user="ada@acme.dev"), "failed")
        assert text == ["it has users, and runs need a namespace"]
        right = kubeflow(server.url, "digits", user="ada@acme.dev")
        found = examine([right], 60)
        assert [one.mark for one in found] == ["ok", "ok", "ok"]
        assert found[0].mode.startswith("multi-user")
        assert "ada@acme.dev may upload is seen only when it is done" in found[2].text
        other = kubeflow(server.url, "digits", user="bob@acme.dev")
        refused = [one.partition(":")[0] for one in only(other, "failed")]
        assert {"may not list pipelines", "may not list runs"} <= set(refused)
        # Who is not known at all is told so once.
        assert len(only(kubeflow(server.url, "digits"), "failed")) == 1
        assert only(kubeflow(server.url, "digits", needed=False), "failed") == []


def test_kubeflow_that_is_not_there() -> None:
    with KfpServer() as server:
        url = server.url
    assert "cannot reach Kubeflow Pipelines" in only(kubeflow(url), "failed")[0]
    with KubeServer() as another:
        (found,) = examine([kubeflow(another.url)], 60)
    assert "Kubeflow Pipelines is not there (404)" in found.text
    assert "kubeflow.host" in found.next
    assert len(only(kubeflow(url, needed=False), "warning")) == 1

    def unset() -> Kfp:
        raise ConfigError("kubeflow.host is not set", next="set it")

    assert looked(KubeflowPipelines(unset, None, "x", "", needed=False))[0][0] == "skipped"
    assert only(KubeflowPipelines(unset, None, "x", "", needed=True), "failed") == [
        "kubeflow.host is not set"
    ]


def test_what_records_the_outputs_of_runs() -> None:
    from ctflow.runners.kubeflow.metadata import Metadata

    def outputs(address: str | None, *, listed: bool = False, needed: bool = True) -> RunOutputs:
        return RunOutputs(address, Metadata, listed=listed, needed=needed)

    with mlmd_server() as (address, _):
        assert looked(outputs(address)) == [("ok", f"{address} answers")]
    assert "cannot be reached" in only(outputs(address), "failed")[0]
    assert len(only(outputs(address, needed=False), "warning")) == 1
    assert "listing the bucket" in only(outputs(None, listed=True), "ok")[0]
    assert "only by a gate in the pipeline" in only(outputs(None), "warning")[0]
    assert looked(outputs(None, needed=False))[0][0] == "skipped"


# -- the cluster ----------------------------------------------------------------------------------


@pytest.fixture
def kube() -> Iterator[KubeServer]:
    with KubeServer() as server:
        kubeflow_parts(server)
        yield server


def cluster(kube: KubeServer) -> Api:
    return Api("Kubernetes", kube.url, patience=Patience(1))


def kubernetes(kube: KubeServer, *, users: bool = False) -> Kubernetes:
    return Kubernetes(lambda: cluster(kube), "kubeflow", users=users, used=True, needed=False)


def parts(kube: KubeServer, account: str = "pipeline-runner") -> ClusterParts:
    return ClusterParts(lambda: cluster(kube), "kubeflow", "kubeflow", account, needed=True)


def no_kubeconfig() -> Api:
    raise ConfigError("no Kubernetes API server", next="set KUBECONFIG")


def test_kubernetes(kube: KubeServer) -> None:
    found = examine([kubernetes(kube)], 60)
    assert [one.mark for one in found] == ["ok", "ok"]
    assert (found[0].version, found[0].who) == ("v1.36.0", "ada")
    kube.denied = {("get", "pods/log"), ("create", "pipelines")}
    assert len(only(kubernetes(kube), "warning")) == 1
    assert "may not create pipelines" in only(kubernetes(kube, users=True), "warning")[1]


def test_without_a_kubeconfig() -> None:
    asked = Kubernetes(no_kubeconfig, "kubeflow", users=False, used=True, needed=False)
    assert "logs of tasks at work cannot be read" in only(asked, "warning")[0]
    through = Kubernetes(no_kubeconfig, "kubeflow", users=False, used=True, needed=True)
    assert only(through, "failed") == ["no Kubernetes API server"]
    unused = Kubernetes(no_kubeconfig, "kubeflow", users=False, used=False, needed=False)
    assert looked(unused)[0][0] == "skipped"
    unseen = ClusterParts(no_kubeconfig, "kubeflow", "kubeflow", "x", needed=True)
    assert "cannot be seen" in looked(unseen)[0][1]


def test_a_cluster_that_has_all_parts(kube: KubeServer) -> None:
    assert {mark for mark, _ in looked(parts(kube))} == {"ok"}
    assert "artifacts go to minio://mlpipeline/v2/artifacts, KFP's default" in only(
        parts(kube), "ok"
    )
    # Of a secret only its head is asked for, and nothing is written.
    secrets = [accept for _, path, accept in kube.asked if "/secrets/" in path]
    assert all("PartialObjectMetadata" in accept for accept in secrets)
    assert {method for method, _, _ in kube.asked} == {"GET"}


CORE = "/api/v1/namespaces/kubeflow"


@pytest.mark.parametrize(
    ("path", "mark", "said"),
    [
        ("/apis/argoproj.io/v1alpha1", "failed", "no workflows of argoproj.io/v1alpha1"),
        ("/apis/kubeflow.org/v1beta1", "failed", "no scheduledworkflows"),
        (f"{CORE}/serviceaccounts/pipeline-runner", "failed", "no service account pipeline-runner"),
        ("/apis/rbac.authorization.k8s.io/v1/namespaces/kubeflow/rolebindings", "warning",
         "no RoleBinding"),
        (f"{CORE}/secrets/mlpipeline-minio-artifact", "failed",
         "no secret mlpipeline-minio-artifact"),
        (f"{CORE}/configmaps/workflow-controller-configmap", "warning",
         "no workflow-controller-configmap"),
    ],
)  # fmt: skip
def test_each_part_that_is_missing_is_named_with_the_mend(
    kube: KubeServer, path: str, mark: str, said: str
) -> None:
    del kube.objects[path]
    (found,) = [one for one in examine([parts(kube)], 60) if one.mark != "ok"]
    assert found.mark == mark
    assert said in found.text
    assert found.next
    kube.forbidden.add(path)
    (found,) = [one for one in examine([parts(kube)], 60) if one.mark != "ok"]
    assert (found.mark, found.text[:14]) == ("warning", "may not look a")


@pytest.mark.parametrize(
    ("data", "fits"),
    [
        ({"executor": "securityContext: {runAsUser: 8737}"}, True),
        ({"config": "executor:\n  securityContext:\n    runAsUser: 1000\n"}, True),
        ({"executor": "securityContext: {runAsUser: 0}"}, False),
        ({"executor": "securityContext: {runAsNonRoot: true}"}, False),
        ({"executor": "imagePullPolicy: Always"}, False),
        ({"executor": "- [broken"}, False),
        ({"config": "just text"}, False),
        ({}, False),
    ],
)
def test_argos_user(kube: KubeServer, data: dict[str, str], fits: bool) -> None:
    kube.put(f"{CORE}/configmaps/workflow-controller-configmap", data=data)
    failed = only(parts(kube), "failed")
    assert failed == [] if fits else "runs are RUNNING for ever" in failed[0]


def test_the_object_store_that_the_launcher_is_told_of(kube: KubeServer) -> None:
    providers = (
        "s3:\n  default:\n    credentials:\n      secretRef:\n        secretName: s3-login\n"
    )
    data = {"defaultPipelineRoot": "s3://acme/runs", "providers": providers}
    kube.put(f"{CORE}/configmaps/kfp-launcher", data=data)
    del kube.objects[f"{CORE}/secrets/mlpipeline-minio-artifact"]
    assert "no secret s3-login" in only(parts(kube), "failed")[0]
    assert "artifacts go to s3://acme/runs" in only(parts(kube), "ok")
    kube.put(f"{CORE}/secrets/s3-login")
    assert only(parts(kube), "failed") == []
    data["providers"] = "s3:\n  default:\n    credentials:\n      fromEnv: true\n"
    del kube.objects[f"{CORE}/secrets/s3-login"]
    assert only(parts(kube), "failed") == []
