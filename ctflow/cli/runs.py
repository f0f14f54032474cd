"""The recorded runs: list them, look at one, read its logs, compare two, follow or stop one,
remove old ones.

`latest` stands for the newest run, and a run's id may be cut as long as it is unique.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from ctflow.cli.common import add_json_flag, add_project_flags, clean, print_json, tools_of
from ctflow.cli.progress import marks, seconds

if TYPE_CHECKING:
    from ctflow.model import Run, Task

STATES = ("pending", "running", "succeeded", "failed", "canceled")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of ``ctflow runs``."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="list runs, the newest first")
    listing.add_argument(
        "--limit", type=int, default=20, metavar="N", help="at most N runs (default: 20)"
    )
    listing.add_argument("--state", choices=STATES, help="only runs in this state")
    show = actions.add_parser("show", help="show a run: its tasks, parameters and metrics")
    show.add_argument("run", metavar="RUN", nargs="?", default="latest")
    show.add_argument(
        "--why-not-cached", metavar="TASK", help="show why this task did not come from the cache"
    )
    logs = actions.add_parser("logs", help="print the logs of a run's tasks")
    logs.add_argument("run", metavar="RUN", nargs="?", default="latest")
    logs.add_argument("task", metavar="TASK", nargs="?", help="only this task")
    compare = actions.add_parser("compare", help="compare two runs")
    compare.add_argument("runs", metavar="RUN", nargs=2)
    wait = actions.add_parser("wait", help="follow a running run until it ends")
    wait.add_argument("run", metavar="RUN", nargs="?", default="latest")
    cancel = actions.add_parser("cancel", help="stop a running run")
    cancel.add_argument("run", metavar="RUN")
    retry = actions.add_parser("retry", help="run the failed tasks of a run again")
    retry.add_argument("run", metavar="RUN")
    opening = actions.add_parser("open", help="open a run's page in the browser")
    opening.add_argument("run", metavar="RUN", nargs="?", default="latest")
    opening.add_argument("--print", action="store_true", help="print its address only")
    prune = actions.add_parser("prune", help="remove old runs and their files")
    prune.add_argument(
        "--keep", type=int, default=50, metavar="N", help="keep the N newest (default: 50)"
    )
    prune.add_argument("--size", type=float, metavar="GB", help="keep at most this size of files")
    prune.add_argument("--dry-run", action="store_true", help="show what would be removed")
    for action in (listing, show, logs, compare, wait, cancel, retry, opening, prune):
        add_project_flags(action)
        if action is not prune:
            action.add_argument("--on", choices=("local", "kubeflow"),
                                help="whose runs; default: `runner` of ctflow.yaml")  # fmt: skip
        if action not in (logs, opening):
            add_json_flag(action)


def run(args: argparse.Namespace) -> int:
    """Do what was asked for."""
    if args.action != "prune" and args.on:
        args.settings.append(f"runner={args.on}")
    return _ACTIONS[args.action](args)


def _list(args: argparse.Namespace) -> int:
    from ctflow.errors import UsageError

    if args.limit < 1:
        raise UsageError(f"--limit {args.limit} is less than 1")
    tools = tools_of(args)
    judged = tuple(dict.fromkeys(rule.metric for rule in tools.project.gate))
    runs = tools.runs.list(args.limit, args.state)
    if args.json:
        from ctflow.model import to_json

        print_json([to_json(one) for one in runs])
        return 0
    if not runs:
        print("no runs yet; start one with `ctflow run`" if args.state is None else "no such run")
        return 0
    rows = [
        [one.id, one.state, _when(one.created), _took(one.created, one.ended),
         one.commit.sha[:7] + ("+" if one.commit.dirty else "") if one.commit else "-",
         _metrics(one, judged)]
        for one in runs
    ]  # fmt: skip
    _table(["RUN", "STATE", "STARTED", "TOOK", "COMMIT", "METRICS"], rows)
    return 0


def _show(args: argparse.Namespace) -> int:
    found = tools_of(args).runs.get(args.run)
    if args.why_not_cached:
        return _why(found, args.why_not_cached, args.json)
    if args.json:
        print_json(found)
        return 0
    facts = {"run": found.id, "state": found.state, "pipeline": found.pipeline,
             "package": found.package, "started": _when(found.created),
             "took": _took(found.created, found.ended)}  # fmt: skip
    if found.commit:
        dirty = f" and {len(found.commit.dirty)} uncommitted files" if found.commit.dirty else ""
        facts["commit"] = f"{found.commit.sha[:12]} on {found.commit.branch or '-'}{dirty}"
    if found.name:
        facts["name"] = found.name
    if found.version:
        facts["version"] = found.version
    if found.url:
        facts["page"] = found.url
    if found.error:
        facts["error"] = found.error
    facts |= {f"parameter {name}": _value(value) for name, value in found.parameters.items()}
    facts |= {
        f"metric {name}": f"{value:g}" for name, value in found.metrics.items() if "." not in name
    }
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{clean(name):<{width}}  {clean(value)}")
    print()
    signs = marks(sys.stdout)
    rows = [
        [f"{signs[task.state]} {task.name}", task.state, _took(task.started, task.ended),
         task.error or _outputs(task)]
        for task in sorted(found.tasks, key=lambda task: task.started or float("inf"))
    ]  # fmt: skip
    _table(["TASK", "STATE", "TOOK", ""], rows)
    return 0


def _why(found: Run, name: str, as_json: bool) -> int:
    from ctflow.errors import StateError

    task = found.task(name)
    if task is None:
        names = ", ".join(one.name for one in found.tasks if not one.group)
        raise StateError(f"run {found.id} has no task {name!r}", next=f"it has {names or 'none'}")
    hit = task.state == "cached"
    reason = "it came from the cache" if hit else task.cache_miss
    if not reason:
        reason = f"it was {task.state}" if not task.attempts else "caching is off for it"
    if as_json:
        print_json({"run": found.id, "task": name, "cached": hit, "reason": reason})
    else:
        print(f"{clean(name)}: {clean(reason)}")
    return 0


def _logs(args: argparse.Namespace) -> int:
    for task, line in tools_of(args).runs.logs(args.run, args.task):
        print(clean(line) if args.task == task else f"{clean(task)} | {clean(line)}")
    return 0


def _compare(args: argparse.Namespace) -> int:
    runner = tools_of(args).runs
    one, other = (runner.get(name) for name in args.runs)
    sections = {
        "parameters": _pairs(one.parameters, other.parameters),
        "metrics": _pairs(
            {key: value for key, value in one.metrics.items() if "." not in key},
            {key: value for key, value in other.metrics.items() if "." not in key},
        ),
        "images": _pairs(
            {image.step: image.digest for image in one.images},
            {image.step: image.digest for image in other.images},
        ),
        "artifacts": _pairs(_digests(one), _digests(other)),
    }
    if args.json:
        print_json({"runs": [one.id, other.id], **sections})
        return 0
    rows = [["state", one.state, other.state, ""]]
    for title, pairs in sections.items():
        for name, (left, right) in pairs.items():
            same = left == right
            if title in ("images", "artifacts") and same:
                continue
            rows.append([f"{title[:-1]} {name}", _value(left), _value(right), _gain(left, right)])
    _table(["", one.id, other.id, ""], rows)
    return 0


def _prune(args: argparse.Namespace) -> int:
    from ctflow.errors import UsageError

    if args.keep < 1:
        raise UsageError(f"--keep {args.keep} would leave no run", next="keep one at least")
    size = None if args.size is None else int(args.size * 1e9)
    pruned = tools_of(args).local_runs.prune(args.keep, size, dry_run=args.dry_run)
    if args.json:
        print_json({"runs": list(pruned.runs), "unknown": list(pruned.unknown),
                    "bytes": pruned.bytes, "dry_run": args.dry_run})  # fmt: skip
        return 0
    verb = "would remove" if args.dry_run else "removed"
    count = f"{len(pruned.runs)} run{'s'[: len(pruned.runs) != 1]}"
    if pruned.unknown:
        shown = ", ".join(clean(name) for name in pruned.unknown[:3])
        more = ", ..." if len(pruned.unknown) > 3 else ""
        count += f", {len(pruned.unknown)} folders of no recorded run ({shown}{more})"
    print(f"{verb} {count}, {pruned.bytes / 1e6:.1f} MB")
    return 0


def _digests(found: Run) -> dict[str, str]:
    return {
        f"{task.name}.{name}": ", ".join(one.digest for one in some)
        for task in found.tasks
        if not task.group
        for name, some in task.artifacts.items()
    }


def _pairs(one: dict[str, Any], other: dict[str, Any]) -> dict[str, list[Any]]:
    return {key: [one.get(key), other.get(key)] for key in dict.fromkeys((*one, *other))}


def _gain(left: Any, right: Any) -> str:
    if left == right:
        return "same"
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in (left, right))
    return f"{right - left:+.6g}" if numbers else "differs"


def _value(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if text.startswith("sha256:"):
        text = text[7:19]
    return text if len(text) <= 60 else text[:57] + "..."


def _retry(args: argparse.Namespace) -> int:
    from ctflow.cli.progress import show
    from ctflow.stages.train import check_run

    tools = tools_of(args)
    with show(plain=args.json) as watch:
        done = tools.runner.resume(args.run, watch)
    if args.json:
        print_json(done)
    check_run(tools, done)
    return 0


def _open(args: argparse.Namespace) -> int:
    import webbrowser

    from ctflow.errors import StateError

    found = tools_of(args).runs.get(args.run)
    if not found.url:
        raise StateError(f"run {found.id} has no page", next=f"see `ctflow runs show {found.id}`")
    print(clean(found.url))
    if not args.print and not webbrowser.open(found.url):
        print("no browser can be started here; open the address yourself", file=sys.stderr)
    return 0


def _wait(args: argparse.Namespace) -> int:
    from ctflow.cli.progress import show
    from ctflow.cli.run import ask_to_terminate
    from ctflow.stages.train import check_run

    tools = tools_of(args)
    tools.watch_runs(ask_to_terminate(), None)
    with show(plain=args.json) as watch:
        done = tools.runner.wait(tools.runner.get(args.run).id, watch)
    if args.json:
        print_json(done)
    check_run(tools, done)
    return 0


def _cancel(args: argparse.Namespace) -> int:
    done = tools_of(args).runner.terminate(args.run)
    if args.json:
        print_json(done)
    else:
        print(f"{done.id} {done.state}; continue it with `ctflow run --resume {done.id}`")
    return 0


def _outputs(task: Task) -> str:
    words = [f"{name}={_value(value)}" for name, value in task.outputs.items()]
    words += [
        f"{name} {one.digest[7:19] or one.uri}"
        for name, some in task.artifacts.items()
        for one in some[:3]
    ]
    return "  ".join(words) if not task.group else ""


def _metrics(found: Run, first: tuple[str, ...]) -> str:
    """Some of a run's metrics, those that the gate judges before all others."""
    short = [(key, value) for key, value in found.metrics.items() if "." not in key]
    short.sort(key=lambda one: first.index(one[0]) if one[0] in first else len(first))
    return "  ".join(f"{key}={value:.4g}" for key, value in short[:4])


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _took(started: float | None, ended: float | None) -> str:
    return seconds(max(0.0, ended - started)) if started is not None and ended is not None else "-"


def _table(head: list[str], rows: list[list[str]]) -> None:
    """Aligned columns; everything in them is made harmless first."""
    table = [head, *([clean(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    for row in table:
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


_ACTIONS = {
    "list": _list,
    "show": _show,
    "logs": _logs,
    "compare": _compare,
    "wait": _wait,
    "cancel": _cancel,
    "retry": _retry,
    "open": _open,
    "prune": _prune,
}
