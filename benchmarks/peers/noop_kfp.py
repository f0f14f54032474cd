"""No-op Python components of KFP, run by kfp.local: ``noop_kfp.py chain|wide TASKS``."""

import sys
from pathlib import Path

from kfp import dsl, local

shape, tasks = sys.argv[1], int(sys.argv[2])


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def add(a: int) -> int:
    return a + 1


@dsl.pipeline
def noop() -> None:
    task = add(a=0)
    for number in range(1, tasks):
        task = add(a=task.output if shape == "chain" else number)


local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(Path.home() / "root"))
noop()
