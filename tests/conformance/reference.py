"""Runs pipelines of the suite by kfp.local, and prints their outputs as JSON on the last line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from kfp import local

from tests.conformance.pipelines import PIPELINES


def main(folder: str, names: list[str]) -> None:
    """Run each pipeline; one that fails has the error as its result."""
    local.init(
        runner=local.SubprocessRunner(use_venv=False), pipeline_root=folder, raise_on_error=True
    )
    found: dict[str, object] = {}
    for name in names:
        try:
            found[name] = PIPELINES[name]().outputs
        except Exception as error:  # noqa: BLE001 (whatever it raises is the result)
            found[name] = f"{type(error).__name__}: {error}"
    print()
    print(json.dumps(found, default=str))


if __name__ == "__main__":
    main(str(Path(sys.argv[1])), sys.argv[2:])
