"""Uploading pipeline versions, once, whatever happens on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ctflow.errors import ConfigError, StateError
from ctflow.lib.digests import digest_bytes
from ctflow.model import Commit, Upload
from ctflow.pipelinespec.packages import load, load_documents
from ctflow.ports import VersionRequest
from ctflow.rest.faults import ApiError
from ctflow.runners.kubeflow import api, labels
from ctflow.runners.kubeflow.api import Json, Kfp

#: How the embedded runner names the steps of a project without a registry.
_LOCAL = "ctflow.local/"
#: How often the same thing is asked for, each time after a look whether it is there.
_TRIES = 3


class KfpPipelines:
    """The ``Pipelines`` of a KFP server.

    Args:
        pipeline: the pipeline's name there.
        describe: what a commit is, for people: its subject.
    """

    def __init__(
        self, kfp: Kfp, pipeline: str, describe: Callable[[Commit | None], str] = lambda commit: ""
    ) -> None:
        self._kfp = kfp
        self._describe = describe
        self._pipeline = pipeline

    def find(self, request: VersionRequest) -> Upload | None:
        """The version, where it is there already. Raises as ``Pipelines`` says."""
        pipeline = self._kfp.pipeline(self._pipeline)
        if pipeline is None:
            return None
        version = self._kfp.version(pipeline["pipeline_id"], request.name)
        return None if version is None else self._same(request, version)

    def upload(self, request: VersionRequest) -> Upload:
        """Upload the package as a version, once. Raises as ``Pipelines`` says.

        A server that is asked to make what somebody makes at the same time says that the name is
        taken, and one whose answer is lost may have made it: in both cases what is there decides.
        """
        package = _read(request)
        pipeline = self._kfp.pipeline(self._pipeline) or self._made()
        pipeline_id = pipeline["pipeline_id"]
        if (found := self._kfp.version(pipeline_id, request.name)) is not None:
            return self._same(request, found)
        said = dict(request.labels) | {"package": request.package.digest}
        text = labels.written(self._describe(request.package.commit), said)
        for attempt in range(1, _TRIES + 1):
            try:
                made = self._kfp.upload_version(
                    pipeline_id, request.name, text, labels.tags(said), package
                )
            except ApiError as error:
                if error.status != 409 and not error.unsure:
                    raise self._explained(error) from None
                found = self._kfp.version(pipeline_id, request.name)
                if found is not None:
                    ours = error.unsure and labels.read(found.get("description")) == said
                    return self._same(request, found, uploaded=ours)
                if error.status == 409:
                    raise StateError(
                        f"another pipeline has a version {request.name} already",
                        cause="this server keeps versions as Kubernetes resources, by name",
                        next=f"name it yourself: --name {self._pipeline}-{request.name[:12]}",
                    ) from None
                if attempt == _TRIES:
                    raise
                self._kfp.api.patience.wait(attempt, None)
                continue
            return self._result(request, made, uploaded=True)
        raise AssertionError("the last try returns or raises")

    def _made(self) -> Json:
        """The pipeline, made now; or by somebody else at the same time."""
        for attempt in range(1, _TRIES + 1):
            try:
                return self._kfp.create_pipeline(self._pipeline, "Made by ctflow.")
            except ApiError as error:
                if error.status != 409 and not error.unsure:
                    raise
                if (found := self._kfp.pipeline(self._pipeline)) is not None:
                    return found
                if attempt == _TRIES or error.status == 409:
                    raise
                self._kfp.api.patience.wait(attempt, None)
        raise AssertionError("the last try returns or raises")

    def _same(self, request: VersionRequest, version: Json, *, uploaded: bool = False) -> Upload:
        """The version that is there, if it is this package."""
        theirs = labels.package_digest(version.get("description"))
        if not theirs and _content(version) == _documents(request):
            theirs = request.package.digest
        if theirs != request.package.digest:
            whose = labels.read(version.get("description")).get("commit", "")
            raise StateError(
                f"version {request.name} of pipeline {self._pipeline} exists with another package",
                cause=f"there {theirs[:19] or 'one that ctflow did not upload'}"
                f"{' of commit ' + whose[:10] if whose else ''},"
                f" here {request.package.digest[:19]}",
                next="commit what has changed, or give it another name with --name",
            )
        return self._result(request, version, uploaded=uploaded)

    def _result(self, request: VersionRequest, version: Json, *, uploaded: bool) -> Upload:
        pipeline_id, version_id = str(version["pipeline_id"]), str(version["pipeline_version_id"])
        return Upload(
            request.package.project,
            self._pipeline,
            pipeline_id,
            str(version.get("name") or version.get("display_name") or ""),
            version_id,
            request.package.digest,
            uploaded,
            self._kfp.page(f"pipelines/details/{pipeline_id}/version/{version_id}"),
            request.package.commit,
        )

    def _explained(self, error: ApiError) -> Exception:
        """The refusal of an upload. Servers with users answer 400 where a right is missing."""
        if error.status == 400 and error.said.startswith("Failed to create a pipeline"):
            return ApiError(
                f"{self._kfp.api.name} refuses the package",
                cause="servers with users answer so, too, where the right to upload is missing",
                next="ask for the right to create pipelines in the namespace, or see the server's"
                " log",
                status=400,
                said=error.said,
            )
        return error


def _read(request: VersionRequest) -> bytes:
    """The package's bytes, checked: a server may hang on one that is not valid YAML."""
    images = request.package.images
    if local := [one.step for one in images if one.reference.startswith(_LOCAL)]:
        raise ConfigError(
            f"the images of {', '.join(local[:5])} are on this machine only",
            cause="no cluster can pull them",
            next="set images.registry, and images.builder to anything but local, then build again",
        )
    path = Path(request.package.path)
    load(path)
    data = path.read_bytes()
    if digest_bytes(data) != request.package.digest:
        raise ConfigError(
            f"{path} is not the package {request.package.digest[:19]}", next="compile it again"
        )
    if len(data) > api.LARGEST:
        raise ConfigError(
            f"the package has {len(data) / 2**20:.1f} MiB, and Kubeflow Pipelines takes 32 MiB",
            next="pass large values as artifacts",
        )
    if len(request.name) > api.VERSION_NAME:
        raise ConfigError(
            f"the version's name has {len(request.name)} characters, and Kubeflow Pipelines takes"
            f" {api.VERSION_NAME}"
        )
    return data


def _documents(request: VersionRequest) -> Any:
    """The package's content as a server gives it back."""
    found = load_documents(Path(request.package.path))
    return found[0] if len(found) == 1 else {"pipeline_spec": found[0], "platform_spec": found[1]}


def _content(version: Mapping[str, Any]) -> Any:
    return version.get("pipeline_spec")
