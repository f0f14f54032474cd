"""Runs pipelines of the suite by kfp.local, and prints what it does as JSON on the last line.

For each pipeline: its outputs, or the error that it ends with; each task that it really ran, with
what that gave; and what kfp.local warned of, for it skips what it cannot evaluate with a warning.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from kfp import dsl, local
from kfp.local import importer_handler, task_dispatcher

from tests.conformance.pipelines import PIPELINES

_COLOUR = re.compile("\x1b\\[[0-9;]*m")


class Seen:
    """What kfp.local did while one pipeline ran."""

    def __init__(self) -> None:
        self.tasks: list[list[Any]] = []
        self.warnings: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Note a warning. A filter, for kfp.local takes the logger's handlers away meanwhile."""
        if record.levelno >= logging.WARNING:
            self.warnings.append(_COLOUR.sub("", record.getMessage()))
        return True

    def watch(self, module: Any, name: str) -> None:
        """Note each call of the function that runs one task."""
        original = getattr(module, name)

        def noted(**arguments: Any) -> Any:
            outputs, status = original(**arguments)
            given = {key: plain(value) for key, value in outputs.items()}
            failed = status.name != "SUCCESS"
            self.tasks.append([name_of(arguments["component_name"]), "failed" if failed else given])
            return outputs, status

        setattr(module, name, noted)

    def take(self) -> dict[str, Any]:
        """What was seen since the last time."""
        found = {
            "tasks": sorted(self.tasks, key=json.dumps),
            "warnings": sorted(set(self.warnings)),
        }
        self.tasks, self.warnings = [], []
        return found


def name_of(component: str) -> str:
    """A component's name without what makes it unique in its package."""
    return re.sub(r"(-\d+)+$", "", component.removeprefix("comp-"))


def plain(value: Any) -> Any:
    """A parameter as it is; an artifact as its type, metadata and (small) content."""
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    if isinstance(value, list):
        return [plain(item) for item in value]
    if not isinstance(value, dsl.Artifact):
        return value
    return [value.schema_title, value.metadata, content(value.path)]


def content(path: str) -> str | None:
    """The text of a file of an artifact; None: there is none."""
    return Path(path).read_text(encoding="utf-8") if Path(path).is_file() else None


def main(folder: str, names: list[str]) -> None:
    """Run each pipeline; one that fails has the error as its result."""
    Path(folder).mkdir(exist_ok=True)
    seen = Seen()
    logging.getLogger().addFilter(seen)
    seen.watch(task_dispatcher, "run_single_task_implementation")
    seen.watch(importer_handler, "run_importer")
    found: dict[str, object] = {}
    for name in names:
        local.init(  # anew, for a pipeline's end removes the workspace
            runner=local.SubprocessRunner(use_venv=False),
            pipeline_root=folder,
            workspace_root=tempfile.mkdtemp(dir=folder),
            raise_on_error=True,
        )
        try:
            outputs = PIPELINES[name]().outputs
            result: dict[str, Any] = {key: plain(value) for key, value in outputs.items()}
            found[name] = {"outputs": result}
        except Exception as error:  # noqa: BLE001 (whatever it raises is the result)
            text = _COLOUR.sub("", f"{type(error).__name__}: {error}")
            found[name] = {"error": text}
        found[name] |= seen.take()  # type: ignore[operator]
    print()
    print(json.dumps(found, default=str))


if __name__ == "__main__":
    main(str(Path(sys.argv[1])), sys.argv[2:])
