"""Run the pipeline at the times that `schedules` of ctflow.yaml names; all times are UTC.

`sync` makes the recurring runs of Kubeflow Pipelines match. `run` starts the runs here.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ctflow.cli.common import add_json_flag, add_project_flags, line, print_json, tools_of
from ctflow.errors import ConfigError, StateError

if TYPE_CHECKING:
    from ctflow.agent.local_schedule import LocalSchedule
    from ctflow.model.schedules import Schedule, Times
    from ctflow.wiring import ProjectTools

#: Seconds after which a waiting process looks at ctflow.yaml and the clock again.
_LOOK = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Sub-verbs of ``ctflow schedule``."""
    nouns = parser.add_subparsers(dest="noun", required=True, metavar="list|sync|run")
    listing = nouns.add_parser("list", help="list the schedules and their next times")
    sync = nouns.add_parser("sync", help="make Kubeflow Pipelines' recurring runs match")
    here = nouns.add_parser("run", help="start the runs here when their time comes")
    for one in (listing, sync, here):
        add_project_flags(one)
    for one in (listing, sync):
        add_json_flag(one)
    sync.add_argument("--dry-run", action="store_true",
                      help="show what would be done, and change nothing")  # fmt: skip
    here.add_argument("--once", action="store_true",
                      help="start what is due, and end; for cron or a systemd timer")  # fmt: skip
    here.add_argument("--ct", action="store_true",
                      help="also judge each model and propose it, as `ctflow ct` does")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Call the sub-verb."""
    return {"list": _list, "sync": _sync, "run": _run}[args.noun](args)


def _sync(args: argparse.Namespace) -> int:
    from ctflow.stages.schedule import schedules_of, sync

    # Whatever runs the pipeline usually: recurring runs are Kubeflow Pipelines'.
    args.settings.append("runner=kubeflow")
    tools = tools_of(args)
    changes = sync(tools.schedules, schedules_of(tools.project), dry_run=args.dry_run)
    if args.json:
        print_json({"dry_run": args.dry_run, "schedules": {c.name: c.state for c in changes}})
        return 0
    for one in changes:
        would = "would be " if args.dry_run and one.state != "unchanged" else ""
        line("schedule", f"{one.name}   {would}{one.state}")
    if not changes:
        line("schedule", "none in ctflow.yaml, and none of ours on Kubeflow Pipelines")
    return 0


def _list(args: argparse.Namespace) -> int:
    from ctflow.stages.schedule import schedules_of

    tools = tools_of(args)
    schedules = schedules_of(tools.project)
    cluster = tools.project.runner != "local"
    rows = _on_cluster(tools, schedules) if cluster else _here(tools, schedules)
    if args.json:
        print_json({"schedules": rows})
        return 0
    for row in rows:
        parts = [row["when"], row["state"]]
        parts += [f"{word} {row[word]}" for word in ("last", "next") if row.get(word)]
        line(row["name"], "   ".join(part for part in parts if part))
    if not rows:
        line("schedule", "none in ctflow.yaml")
    return 0


def _row(schedule: Schedule) -> dict[str, Any]:
    from dataclasses import asdict

    found = asdict(schedule)
    return {"name": schedule.name, "when": schedule.when, "state": ""} | found


def _here(tools: ProjectTools, schedules: tuple[Schedule, ...]) -> list[dict[str, Any]]:
    """What this machine knows of them."""
    from ctflow.model import iso
    from ctflow.stages.schedule.due import current, due, next_time

    now = time.time()
    times = current(schedules, tools.local_schedule.times(), now)
    rows = []
    for one in schedules:
        row, known = _row(one), times[one.name]
        if not one.enabled:
            row["state"] = "disabled"
        elif due(one, known, now) is not None:
            row["state"] = "due"
        elif known.last is not None and known.ended is None:
            row["state"] = "at work, or ended without a word"
        if known.last is not None:
            row["last"] = iso(known.last)
        row["code"] = known.code
        at = next_time(one, known, now) if one.enabled else None
        row["next"] = None if at is None else iso(at)
        rows.append(row)
    return rows


def _on_cluster(tools: ProjectTools, schedules: tuple[Schedule, ...]) -> list[dict[str, Any]]:
    """Whether Kubeflow Pipelines has them so."""
    from ctflow.model import iso
    from ctflow.stages.schedule import sync

    words = {"created": "missing", "replaced": "differs", "removed": "not in ctflow.yaml",
             "unchanged": "as in ctflow.yaml", "duplicate removed": "there twice"}  # fmt: skip
    by_name = {one.name: one for one in schedules}
    rows: list[dict[str, Any]] = []
    row: dict[str, Any]
    for change in sync(tools.schedules, schedules, dry_run=True):
        schedule = by_name.get(change.name)
        row = {"name": change.name, "when": ""} if schedule is None else _row(schedule)
        row["state"] = words.get(change.state, "not " + change.state)
        if schedule is not None and schedule.enabled and schedule.cron:
            from ctflow.lib import cron

            at = cron.parse(schedule.cron).next(time.time())
            row["next"] = None if at is None else iso(at)
        elif schedule is not None and not schedule.enabled:
            row["state"] += ", disabled"
        rows.append(row)
    return rows


def _run(args: argparse.Namespace) -> int:
    from ctflow.stages.schedule import schedules_of

    given = tuple(args.settings)
    tools = _local_tools(args)
    with tools.local_schedule.working() as free:
        if free:
            if not args.once:
                return _serve(tools.local_schedule, args, given)
            schedules = schedules_of(tools.project)
            return _start_due(tools.local_schedule, schedules, args.ct, given)
    text = "another `ctflow schedule run` starts this project's runs"
    if not args.once:
        raise StateError(text, next="end that one first")
    line("schedule", text)
    return 0


def _serve(record: LocalSchedule, args: argparse.Namespace, given: Sequence[str]) -> int:
    """Start runs until this process is ended; ctflow.yaml is read again before each look."""
    from ctflow.stages.schedule import schedules_of

    said = ""
    while True:
        try:
            schedules = schedules_of(_local_tools(args).project)
            _start_due(record, schedules, args.ct, given, most=1)
            text, pause = _next(schedules, record.times())
        except ConfigError as error:
            # Somebody may be at work on it.
            text, pause = error.message(), _LOOK
        if text and text != said:
            line("schedule", text)
            said = text
        time.sleep(min(pause, _LOOK))


def _local_tools(args: argparse.Namespace) -> ProjectTools:
    """The tools with ctflow.yaml as it is now.

    Raises:
        ConfigError: the runs are on a cluster, or a schedule names a version.
    """
    tools = tools_of(args)
    if tools.project.runner != "local":
        raise ConfigError(
            "the pipeline runs on Kubeflow Pipelines (runner)",
            next="run `ctflow schedule sync`, or start the runs here with --set runner=local",
        )
    for name, one in tools.project.schedules.items():
        if one.enabled and one.version != "latest":
            raise ConfigError(
                f"schedule {name} is of version {one.version}, and runs here have no versions",
                cause="they run what is checked out",
                next="set its version to latest",
            )
    return tools


def _start_due(
    record: LocalSchedule,
    schedules: Sequence[Schedule],
    ct: bool,
    given: Sequence[str],
    most: int | None = None,
) -> int:
    """Start what is due, one run after another; the worst exit code."""
    from ctflow.model import iso
    from ctflow.stages.schedule.due import run_due

    def start(schedule: Schedule, at: float) -> int:
        line("schedule", f"{schedule.name}   starts for {iso(at)}")
        code = record.start(schedule, "ct" if ct else "run", given)
        line("schedule", f"{schedule.name}   ended with exit code {code}")
        return code

    done = run_due(schedules, record, start, time.time(), time.time, most)
    if not done and most is None:
        line("schedule", _next(schedules, record.times())[0])
    return max((one.code for one in done), default=0)


def _next(schedules: Sequence[Schedule], known: Mapping[str, Times]) -> tuple[str, float]:
    """The next time for people, and the seconds until then; 0 where one has come."""
    from ctflow.model import iso
    from ctflow.stages.schedule.due import current, due, next_time

    now = time.time()
    times = current(schedules, known, now)
    enabled = [one for one in schedules if one.enabled]
    if any(due(one, times[one.name], now) is not None for one in enabled):
        return "", 0.0
    found = [(at, one.name) for one in enabled
             if (at := next_time(one, times[one.name], now)) is not None]  # fmt: skip
    if not found:
        return "no schedule in ctflow.yaml starts runs", _LOOK
    at, name = min(found)
    return f"next is {name} at {iso(at)}", at - now
