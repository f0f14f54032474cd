"""CreatePVC and DeletePVC of ``kfp-kubernetes``: the folders that stand for volumes.

Kubeflow runs no container for them, its driver does what they say; so does this.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from ctflow.model import Value
from ctflow.pipelinespec.platform import VolumeError, volume_folder

CREATE = "argostub/createpvc"
DELETE = "argostub/deletepvc"
#: The images by which Kubeflow's driver knows these components.
IMAGES = frozenset({CREATE, DELETE})


def run_volume_task(
    image: str, task: str, parameters: Mapping[str, Value], volumes: Path
) -> tuple[dict[str, Value], str]:
    """Make or remove a volume's folder; the task's outputs, or none and what is wrong.

    A volume that is there already is used as it is. One without a name is called after the task,
    so that a run that goes on finds it again.

    Args:
        image: one of ``IMAGES``.
        task: a name of the run's task that no other run has.
        parameters: the task's input parameters.
        volumes: the folder of all volumes.
    """
    try:
        if image == DELETE:
            _delete(volume_folder(volumes, parameters.get("pvc_name")))
            return {}, ""
        name = _name(task, parameters)
        volume_folder(volumes, name).mkdir(parents=True, exist_ok=True)
    except VolumeError as error:
        return {}, str(error)
    except OSError as error:
        return {}, f"cannot make or remove a volume: {error}"
    return {"name": name}, ""


def _name(task: str, parameters: Mapping[str, Value]) -> Value:
    name, suffix = parameters.get("pvc_name"), parameters.get("pvc_name_suffix")
    if name and suffix:
        raise VolumeError("give pvc_name or pvc_name_suffix, not both")
    return name or re.sub(r"[^-a-z0-9.]", "-", f"{task}{suffix or ''}".lower())


def _delete(folder: Path) -> None:
    if folder.is_symlink():  # what it leads to is not the pipeline's
        folder.unlink()
    elif folder.is_dir():
        shutil.rmtree(folder)
    else:
        raise VolumeError(f"there is no volume {folder.name}")
