"""The rules under ``gate:`` in ``ctflow.yaml``: what may be said, and what would be a mistake."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from ctflow.config.data_rules import ColumnKind, data_fault, stray_fault
from ctflow.config.gate_metric import MetricOf
from ctflow.config.metric_names import (
    BOUNDS_ALONE,
    RIGHT_WRONG,
    is_bounded,
    is_known,
    is_lower_better,
    is_mean_of_examples,
    is_of_queries,
    is_right_wrong,
    lowest,
)
from ctflow.config.query_rules import query_fault
from ctflow.config.section import Section, task_output
from ctflow.config.serving_costs import COSTS, cost_fault
from ctflow.config.time_blocks import block_length


class Bounds(Section):
    """Absolute bounds of one slice."""

    min: float | None = Field(None, description="The smallest value that passes")
    max: float | None = Field(None, description="The largest value that passes")


class GateRule(Section):
    """One rule of the gate: absolute bounds, or a gain over the champion on the same examples."""

    metric: str = Field(
        min_length=1,
        description="A scalar metric of the run; a serving cost: bytes, p50_ms ... p99_ms; or, "
        "with `data`, psi, ks, missing or schema",
    )
    of: MetricOf | None = None
    min: float | None = Field(None, description="The smallest value that passes")
    max: float | None = Field(None, description="The largest value that passes")
    over: Literal["champion"] | None = Field(None, description="Compare with the model that serves")
    min_gain: float = Field(
        0.0,
        ge=0.0,
        description="The gain that the interval's lower end must reach; with 0, it must be above 0",
    )
    margin: float = Field(
        0.0, ge=0.0, description="Non-inferiority: how much worse the lower end may still be"
    )
    confidence: float = Field(
        0.95,
        gt=0.5,
        lt=1.0,
        description="Level of the interval; with min or max, the whole interval must pass",
    )
    predictions: str | None = Field(None, description="task.output of the per-example predictions")
    test: Literal["auto", "bootstrap", "mcnemar"] = Field(
        "auto", description="McNemar for right/wrong, paired bootstrap for any score"
    )
    exact: bool = Field(
        False,
        description="Right/wrong: use the exact test, whose error rate is never above the level",
    )
    better: Literal["higher", "lower"] | None = Field(
        None, description="Which way the metric improves; ctflow knows it for the usual metrics"
    )
    positive: str | None = Field(
        None, description="The positive class of two; default 1, true, yes or positive"
    )
    weight: str | None = Field(
        None, description="A column with the weight of each example; for means and right/wrong"
    )
    group: str | None = Field(
        None, description="A column that says which examples belong together, such as a patient"
    )
    block: str | None = Field(
        None,
        description="If group is a column of times: the length of a group, such as 12h, 7d or 4w",
    )
    looks: Literal["auto"] | int | None = Field(
        None,
        description="How many models one evaluation set may judge at this level in total, or auto; "
        "with confirm, how many may use the reserved set",
    )
    confirm: str | None = Field(
        None,
        description="task.output on a reserved set, read only for a model that passes all rules",
    )
    by: str | None = Field(
        None, description="A column of the predictions: apply the rule to each slice"
    )
    data: str | None = Field(
        None, description="task.output of training data: judge the data, not the model"
    )
    column: str | None = Field(
        None, min_length=1, description="The column of the data for psi, ks or missing"
    )
    columns: dict[str, ColumnKind] = Field(
        default_factory=dict,
        description="The kinds of columns for schema, as in {age: number, city: text}; default: "
        "those of the champion's data",
    )
    between: str | None = Field(
        None, description="A column: 'max' limits how far apart the metric of its slices may be"
    )
    slices: dict[str, Bounds] = Field(
        default_factory=dict, description="Other bounds for single slices"
    )
    min_examples: int = Field(1, ge=1, description="Smaller slices are reported, not judged")

    @property
    def is_sure(self) -> bool:
        """Whether it is a bound that the whole interval must keep to: it says a confidence."""
        return self.over is None and "confidence" in self.model_fields_set

    @property
    def falls(self) -> bool:
        """Whether the metric improves as it falls."""
        if self.better is not None:
            return self.better == "lower"
        return is_lower_better(self.metric) or (self.of is not None and self.of.is_cost)

    @field_validator("predictions", "confirm", "data")
    @classmethod
    def _predictions(cls, value: str | None) -> str | None:
        return value if value is None else task_output(value)

    @model_validator(mode="after")
    def _of_a_cost(self) -> GateRule:
        if self.metric in COSTS:
            fault = cost_fault(self.metric, self.model_fields_set, self.min, self.max)
            if fault:
                raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _of_data(self) -> GateRule:
        said = self.model_fields_set
        fault = (
            data_fault(self.metric, said, self.max, self.columns)
            if self.data is not None
            else stray_fault(said)
        )
        if fault:
            raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _says_something(self) -> GateRule:
        if self.data is not None:
            return self
        others = {
            "'between'": self.between is not None,
            "'block'": self.block is not None,
            "test: mcnemar": self.test == "mcnemar",
        }
        if fault := query_fault(self.metric, self.predictions, self.group, others):
            raise ValueError(fault)
        self._between()
        self._without_interval()
        self._weights()
        self._blocks()
        bounds = self.min is not None or self.max is not None
        if not bounds and self.over is None and not self.slices:
            raise ValueError("a gate rule needs 'min', 'max' or 'over: champion'")
        if bounds and self.over is not None:
            raise ValueError(
                "'over: champion' and 'min'/'max' cannot be in one rule; write two rules"
            )
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        if (self.over or self.by) and not self.predictions:
            raise ValueError(
                "a rule over the champion, or by slice, needs 'predictions: task.output'"
            )
        if self.slices and not self.by:
            raise ValueError("'slices' needs 'by: column'")
        if self.margin and self.min_gain:
            raise ValueError(
                "'margin' allows a loss and 'min_gain' requires a gain; write only one"
            )
        if self.is_sure and not self.predictions:
            raise ValueError(
                "a bound with 'confidence' needs 'predictions: task.output'; "
                "name them, or leave 'confidence' out"
            )
        no_interval = self.over is None and not self.is_sure and not is_of_queries(self.metric)
        if self.group and (no_interval or self.test == "mcnemar"):
            raise ValueError(
                "'group' is for a rule over the champion or a bound with 'confidence', "
                "and not for test: mcnemar"
            )
        if self.group and re.fullmatch(r"(precision|f1)(_(?!micro$).*)?", self.metric):
            raise ValueError(f"'group' does not go with {self.metric}; use recall, or accuracy")
        self._own()
        self._attempts()
        self._exactness()
        self._in_its_unit()
        return self

    def _without_interval(self) -> None:
        if self.metric in BOUNDS_ALONE and (self.over or self.is_sure or self.group):
            raise ValueError(
                f"{self.metric} has no interval, so it goes with 'min' and 'max' alone; "
                "to compare, use brier or log_loss, which see calibration too"
            )

    def _weights(self) -> None:
        if self.weight is None:
            return
        if not self.predictions:
            raise ValueError("'weight' needs 'predictions: task.output'")
        if self.exact or self.test == "mcnemar":
            raise ValueError("'weight' goes neither with 'exact' nor with test: mcnemar")
        is_mean = self.of.mean or self.of.cost if self.of else is_mean_of_examples(self.metric)
        if not is_mean:
            raise ValueError(
                f"{self.metric} does not go with 'weight'; use accuracy, a mean of losses, a "
                "score, or 'of' with a mean or a cost"
            )

    def _blocks(self) -> None:
        if self.block is not None:
            block_length(self.block)
            if self.group is None:
                raise ValueError("'block' needs 'group: column', a column of times")

    def _between(self) -> None:
        if self.between is None:
            return
        if self.over or self.by or self.min is not None or self.max is None or self.group:
            raise ValueError(
                "'between' says with 'max' how far apart slices may be, and goes with none of "
                "'min', 'over', 'by' and 'group'"
            )
        if self.max < 0:
            raise ValueError(f"max {self.max:g}: slices are at least 0 apart")
        if not self.predictions:
            raise ValueError("'between' needs 'predictions: task.output'")

    def _own(self) -> None:
        if self.of is None:
            return
        if is_known(self.metric):
            raise ValueError(f"{self.metric} is known; give the metric that 'of' says another name")
        if not self.predictions:
            raise ValueError("'of' needs 'predictions: task.output', whose columns it names")
        if self.positive is not None or self.test == "mcnemar":
            raise ValueError("'of' goes neither with 'positive' nor with test: mcnemar")
        if self.of.is_cost and self.better == "higher":
            raise ValueError("a cost is better when it is lower; write a gain as a negative cost")
        if self.over and self.better is None and not self.of.is_cost:
            raise ValueError(
                f"{self.metric}: say which way it improves, 'better: higher' or 'lower'"
            )
        if self.group and self.of.quantile is not None:
            raise ValueError("'group' does not go with a quantile; use a mean, a sum or a ratio")

    def _attempts(self) -> None:
        for name in ("looks", "confirm"):
            if getattr(self, name) is not None and self.over is None:
                raise ValueError(f"'{name}' is for a rule over the champion")
        if self.confirm is not None and self.confirm == self.predictions:
            raise ValueError("'confirm' names another output than 'predictions'")
        if isinstance(self.looks, int) and self.looks < 1:
            raise ValueError("looks is the number of models, 1 or more, or 'auto'")

    @model_serializer(mode="wrap")
    def _as_said(self, dumped: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A bound without a confidence has none: it is another rule than one that says 0.95."""
        data: dict[str, Any] = dumped(self)
        if self.over is None and not self.is_sure and "confidence" in data:
            data["confidence"] = None
        return data

    def _exactness(self) -> None:
        if self.exact and (
            self.over is None or not is_right_wrong(self.metric) or self.test == "bootstrap"
        ):
            raise ValueError(f"'exact' is for a rule over the champion of {', '.join(RIGHT_WRONG)}")
        if self.exact and self.group:
            raise ValueError("'exact' counts single examples, and 'group' does not; say one")

    def _in_its_unit(self) -> None:
        if self.over and is_bounded(self.metric):
            for name, value in (("margin", self.margin), ("min_gain", self.min_gain)):
                if value >= 1:
                    raise ValueError(
                        f"{name} {value:g}: {self.metric} is within {lowest(self.metric):g} and 1, "
                        f"so write {value / 100:g} for {value:g} points"
                    )
        if self.over and self.metric == "score" and self.better is None:
            raise ValueError("score can be a gain or a cost: say 'better: higher' or 'lower'")
