"""Deploy: makes the serving target match git, never the other way round."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ctflow.errors import StateError
from ctflow.lib.durations import seconds
from ctflow.model import OWN, Deployment, Release
from ctflow.ports import Event, ModelStore, Scm, Server, ServeRequest, Watch
from ctflow.release import files
from ctflow.release.observed import observed
from ctflow.tools import Tools

if TYPE_CHECKING:
    from ctflow.config.project import Project


def wanted(project: Project, environment: str, scm: Scm) -> tuple[Release, str]:
    """The release that git wants there, and the default branch's commit that says so.

    Raises:
        StateError: the default branch has no release for the environment.
    """
    tip = scm.tip(project.branch)
    found = files.at(scm, tip, environment) if tip else None
    if tip is None or found is None:
        raise StateError(
            f"{project.branch} holds no release for {environment}",
            next=f"promote a run to {environment} and have it approved first",
        )
    return found, tip


def deploy(
    project: Project,
    environment: str,
    *,
    scm: Scm,
    store: ModelStore,
    server: Server,
    scratch: Path,
    watch: Watch,
    dry_run: bool = False,
) -> Deployment:
    """Serve what the default branch says, with the predictor or runtime that its release names.

    Args:
        scratch: a folder for the exported predictor, removed afterwards.

    Returns the serving target's state: ``ready``, or ``failed`` with the last good model serving.

    Raises:
        StateError: git holds no release for the environment, or its commit is not here.
        OutsideError: the model cannot be had, or git or the serving target failed.
    """
    scm.fetch()
    release, tip = wanted(project, environment, scm)
    if dry_run:
        return observed(project, environment, scm=scm, server=server)
    settings = project.environments[environment]
    image = release.serving.image if release.serving else ""
    name = files.public_name(scm, tip, environment, release.project)
    if name != project.project:
        text = f"{environment} serves under the name {name}, as its manifest says"
        watch(Event("note", environment, text))
    scratch.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(dir=scratch, prefix="deploy-"))
    try:
        code = place / "code"
        serving = project.serving
        if release.serving and release.serving.runtime != OWN and not release.serving.golden:
            code.mkdir()  # a standard runtime that has nothing of the project's
        elif release.serving:
            scm.export(tip, release.serving.folder, code)
        else:  # a release of a ctflow that did not keep it
            if not scm.has(release.commit):
                raise StateError(
                    f"commit {release.commit[:10]} of the release is not in this repository",
                    cause="its branch was never pushed, or is gone",
                    next=f"fetch it, or promote another run to {environment}",
                )
            scm.export(release.commit, serving.folder, code)
        request = ServeRequest(
            project=name,
            environment=environment,
            model=release.model,
            fetch=partial(store.fetch, release.model.digest),
            code=code,
            predictor=(release.serving or serving).predictor,
            golden=(release.serving or serving).golden,
            commit=tip,
            manifest=scm.read(tip, files.path(environment, files.MANIFEST)) or b"",
            canary=settings.rollout.canary,
            pause=seconds(settings.rollout.pause),
            port=settings.port,
            runtime=release.serving.runtime if release.serving else OWN,
            requirements=release.serving.requirements if release.serving else (),
            image=image,
        )
        done = server.deploy(request, watch)
        return replace(done, wanted=release.model.digest, image=image)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def deploy_in(tools: Tools, environment: str, watch: Watch, dry_run: bool = False) -> Deployment:
    """Make the serving target match git."""
    return deploy(
        tools.project,
        environment,
        scm=tools.scm,
        store=tools.store,
        server=tools.target(environment),
        scratch=tools.places["tmp"],
        watch=watch,
        dry_run=dry_run,
    )


def released(tools: Tools) -> list[str]:
    """The environments for which the default branch holds a release."""
    tools.scm.fetch()
    tip = tools.scm.tip(tools.project.branch)
    # Whether it can be read is the business of whoever deploys it.
    held = {
        name: tip and tools.scm.read(tip, files.path(name, files.RELEASE))
        for name in tools.project.environments
    }
    return [name for name, text in held.items() if text is not None]


def also_serving(tools: Tools, environment: str, digest: str) -> list[str]:
    """The other environments whose release is this model."""
    tip = tools.scm.tip(tools.project.branch)
    found = []
    for name in tools.project.environments:
        release = files.at(tools.scm, tip, name) if tip and name != environment else None
        if release is not None and release.model.digest == digest:
            found.append(name)
    return found
