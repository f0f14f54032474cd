"""Metrics of a project's own under ``gate:``: what a rule computes from columns of predictions."""

from __future__ import annotations

import re

from pydantic import Field, field_validator, model_validator

from ctflow.config.section import Section
from ctflow.lib.durations import seconds

_KINDS = ("mean", "sum", "ratio", "quantile", "cost", "function")
#: A file of the project, relative to ctflow.yaml, and a name in it.
_FUNCTION = re.compile(
    r"((?!\.{0,2}/)[^/:\\\x00-\x1f]+/)+[^/:\\\x00-\x1f]+\.py:[A-Za-z_][A-Za-z0-9_]*"
)


class MetricOf(Section):
    """A metric of the project's own, from columns of the predictions: one of these."""

    mean: str | None = Field(None, min_length=1, description="The mean of this column")
    sum: str | None = Field(None, min_length=1, description="The sum of this column")
    ratio: tuple[str, str] | None = Field(
        None, description="The sum of the first column divided by that of the second"
    )
    quantile: str | None = Field(None, min_length=1, description="A quantile of this column")
    at: float | None = Field(
        None, gt=0.0, lt=1.0, description="Which quantile: 0.9 for the 90th percentile"
    )
    cost: dict[str, dict[str, float]] | None = Field(
        None,
        description="The mean cost of an answer, by label and then by prediction; a right answer "
        "that is not named costs 0",
    )
    otherwise: float | None = Field(
        None, description="The cost of a wrong answer that `cost` does not name"
    )
    function: str | None = Field(
        None,
        description="A function of the project, `steps/evaluate/metrics.py:profit`, that makes one "
        "number of the columns; it runs in the step's environment",
    )
    timeout: str = Field("10m", description="How long the function may take in all")

    @field_validator("function")
    @classmethod
    def _a_function(cls, value: str | None) -> str | None:
        if value is not None and not _FUNCTION.fullmatch(value):
            raise ValueError(
                f"{value!r} is not a function of a step, such as steps/evaluate/metrics.py:profit"
            )
        return value

    @field_validator("timeout")
    @classmethod
    def _a_timeout(cls, value: str) -> str:
        if seconds(value) <= 0:
            raise ValueError(f"{value!r}: a function needs time, such as 10m")
        return value

    @model_validator(mode="after")
    def _one(self) -> MetricOf:
        said = [kind for kind in _KINDS if getattr(self, kind) is not None]
        if len(said) != 1:
            raise ValueError(f"'of' needs exactly one of {', '.join(_KINDS)}")
        if (self.at is None) != (self.quantile is None):
            raise ValueError("'quantile' and 'at' go together, as in {quantile: wait, at: 0.9}")
        if self.otherwise is not None and self.cost is None:
            raise ValueError("'otherwise' goes with 'cost'")
        if self.cost is not None and not any(self.cost.values()):
            raise ValueError("'cost' names no cost: write {label: {prediction: 5}}")
        if self.function is None and "timeout" in self.model_fields_set:
            raise ValueError("'timeout' goes with 'function'")
        if self.ratio is not None and self.ratio[0] == self.ratio[1]:
            raise ValueError("'ratio' names two different columns")
        return self

    @property
    def is_cost(self) -> bool:
        """Whether it falls as it improves, whatever the rule says."""
        return self.cost is not None

    @property
    def is_nonnegative(self) -> bool:
        """Whether it cannot be below 0."""
        costs = [cost for row in (self.cost or {}).values() for cost in row.values()]
        return self.cost is not None and min([*costs, self.otherwise or 0.0, 0.0]) == 0.0
