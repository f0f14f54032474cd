"""Which image of the predictor a release names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctflow.config.serving_code import folder_of
from ctflow.errors import ConfigError
from ctflow.model import ServingRef
from ctflow.ports import PredictorImages, Scm, Watch
from ctflow.release import files

if TYPE_CHECKING:
    from ctflow.config.project import Project

DOCKERFILE = "Dockerfile"


def image_of(
    serving: ServingRef,
    *,
    commit: str,
    project: Project,
    environment: str,
    scm: Scm,
    images: PredictorImages,
    watch: Watch,
    dry_run: bool = False,
) -> str:
    """The image of a commit's predictor for an environment.

    What comes after another environment keeps that one's image: the pair of model and image was
    reviewed and tried there, and a base image that has moved since must not change it.

    Args:
        serving: the predictor at the commit.

    Raises as ``PredictorImages.image``.
    """
    before = project.environments[environment].after
    check_image(scm, commit, project, environment)
    tip = scm.tip(project.branch)
    there = files.at(scm, tip, before) if before and tip else None
    if there and there.serving and there.serving.digest == serving.digest and there.serving.image:
        return there.serving.image
    return images.image(commit, watch, dry_run=dry_run)


def check_image(scm: Scm, commit: str, project: Project, environment: str) -> None:
    """See that a commit's predictor has an image where the environment needs one: on a cluster.

    Raises:
        ConfigError: there is no Dockerfile for it, or no registry.
    """
    if project.environments[environment].target != "kserve":
        return
    needs = f"{environment} is on a cluster, which needs an image of the predictor"
    folder, images = folder_of(project.serving), project.images
    if f"{folder}/{DOCKERFILE}" not in scm.files(commit, folder):
        raise ConfigError(
            f"{needs}, and commit {commit[:10]} has no {folder}/{DOCKERFILE}",
            next="write one as docs/serving.md shows and commit it, or say `serving: {runtime:"
            " standard}`",
        )
    if images.registry is None or images.builder == "local":
        lacks = "images.registry is not set"
        if images.registry is not None:
            lacks = "images.builder is local"
        raise ConfigError(f"{needs}, and {lacks}", next="set images.registry and a builder")
