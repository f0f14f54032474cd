"""The part of ``ctflow.yaml`` about schedules."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from ctflow.config.section import Section
from ctflow.lib import cron
from ctflow.lib.durations import seconds

#: What names the newest version of the pipeline.
LATEST = "latest"


class ScheduleConfig(Section):
    """When the pipeline runs by itself: `cron` or `interval`. All times are UTC."""

    cron: str | None = Field(
        None,
        description="Minute, hour, day of the month, month, day of the week, such as '0 3 * * *';"
        " or @hourly, @daily, @weekly, @monthly, @yearly",
    )
    interval: str | None = Field(None, description="Time between two starts, such as 30m or 24h")
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="Parameters of its runs, over those of `parameters`"
    )
    enabled: bool = Field(True, description="Whether it starts runs")
    catch_up: bool = Field(
        False,
        description="Start a run for each missed time; false: for the newest of them only",
    )
    concurrency: int = Field(
        1, ge=1, le=10, description="How many of its runs may be at work at once; here always one"
    )
    version: str = Field(
        LATEST, min_length=1, max_length=127,
        description="The pipeline version on Kubeflow Pipelines that runs: its name, or `latest`",
    )  # fmt: skip

    @field_validator("cron")
    @classmethod
    def _cron(cls, value: str | None) -> str | None:
        if value is not None:
            cron.parse(value)
        return value

    @field_validator("interval")
    @classmethod
    def _interval(cls, value: str | None) -> str | None:
        if value is not None and (seconds(value) < 1 or seconds(value) % 1):
            raise ValueError(f"{value!r} is not one or more whole seconds")
        return value

    @model_validator(mode="after")
    def _one(self) -> ScheduleConfig:
        if (self.cron is None) == (self.interval is None):
            raise ValueError("give either 'cron' or 'interval'")
        return self
