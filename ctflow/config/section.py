"""What the parts of ``ctflow.yaml`` have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """What all parts of the file have in common: frozen, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def task_output(value: str) -> str:
    """Return ``value`` if it names an output of a task; raises ValueError for anything else."""
    task, _, output = value.rpartition(".")
    if not task or not output:
        raise ValueError(f"{value!r} is not task.output, such as train.model")
    return value
