"""What a run's tasks wrote, by where KFP puts it: for clusters without ML Metadata in reach.

KFP writes to ``<root>/<pipeline>/<run id>/<task>/<random id>/<output>``. That tells neither what a
task read nor what the cache gave, and two tasks of one name in different groups are not told apart:
those are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ctflow.errors import StateError
from ctflow.model import Artifact
from ctflow.ports import ArtifactFiles, RunPlace, TaskRecord

#: KFP's own root where neither the run nor the cluster names another.
DEFAULT_ROOT = "minio://mlpipeline/v2/artifacts"


class Listed:
    """The ``RunArtifacts`` that a bucket's objects tell of.

    Args:
        root: where runs keep their artifacts that name no root of their own.
    """

    def __init__(self, files: ArtifactFiles, root: str = DEFAULT_ROOT) -> None:
        self._files = files
        self._root = root

    def of_run(self, place: RunPlace) -> Sequence[TaskRecord]:
        """What the bucket holds of a run. Raises as ``RunArtifacts`` says."""
        if not place.declared or not place.pipeline:
            return ()
        root = (place.root or self._root).partition("?")[0].rstrip("/")
        base = f"{root}/{place.pipeline}/{place.id}"
        try:
            names = self._files.below(base)
        except StateError:
            return ()
        places: dict[tuple[str, str], dict[str, None]] = {}
        for name in names:
            parts = name.split("/")
            if len(parts) >= 4 or (len(parts) == 3 and parts[2]):
                task, random, output = parts[:3]
                places.setdefault((task, output), {})[f"{base}/{task}/{random}/{output}"] = None
        same = Counter(one.path.rpartition(".")[2] for one in place.declared)
        found = []
        for declared in place.declared:
            leaf = declared.path.rpartition(".")[2]
            artifacts = {
                output: tuple(
                    Artifact(output, kind, uri) for uri in sorted(places.get((leaf, output), ()))
                )
                for output, kind in declared.outputs.items()
                if (leaf, output) in places and same[leaf] == 1
            }
            if artifacts:
                found.append(TaskRecord(declared.path, artifacts))
        return found
