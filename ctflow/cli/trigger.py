"""Start `ctflow ct` and `ctflow deploy` on every push to a bare repository on this machine.

A push to the default branch starts ct for the pushed commit, in a clone of its own; a change below
deploy/ starts deploy. One at a time; a newer push supersedes a waiting one.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ctflow.cli.common import add_json_flag, add_project_flags, print_json, tools_of
from ctflow.errors import StateError
from ctflow.lib.secrets import KNOWN

if TYPE_CHECKING:
    from ctflow.agent.local_trigger import LocalTrigger

_TEXTS = {
    "install": "write the hook into the bare repository that the remote names",
    "uninstall": "remove it",
    "status": "list the jobs",
    "logs": "print a job's output; follow it, and exit with its exit code",
    "receive": "add a push to the queue; the hook calls this",
    "work": "run the waiting jobs now",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Verbs of ``ctflow trigger``."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, text in _TEXTS.items():
        verb = verbs.add_parser(name, help=text, description=text)
        add_project_flags(verb)
        if name in ("install", "uninstall"):
            verb.add_argument("--remote", default="origin", help="default: origin")
        if name == "install":
            verb.add_argument("--replace", action="store_true",
                              help="replace the hook of another clone of this project")  # fmt: skip
        if name == "status":
            add_json_flag(verb)
        if name == "logs":
            verb.add_argument(
                "job", nargs="?", type=int, help="the job's number; default: the newest"
            )


def run(args: argparse.Namespace) -> int:
    """Call the verb."""
    trigger = tools_of(args).trigger
    if args.verb == "install":
        print(f"wrote {trigger.install(args.remote, replace=args.replace)}")
    elif args.verb == "uninstall":
        print(f"removed {trigger.uninstall(args.remote)}")
    elif args.verb == "status":
        _status(trigger, args.json)
    elif args.verb == "logs":
        return _logs(trigger, args.job)
    elif args.verb == "work":
        trigger.work()
    else:
        for job in trigger.receive(Path.cwd(), sys.stdin.read().splitlines()):
            print(f"ctflow: job {job.number} ({job.kind} of {job.commit[:10]}) is in the queue;")
            print(f"ctflow: follow it with `ctflow trigger logs {job.number}` in {args.folder}")
    return 0


def _status(trigger: LocalTrigger, as_json: bool) -> None:
    from dataclasses import asdict

    trigger.wake()
    jobs = trigger.jobs()
    if as_json:
        print_json([asdict(job) for job in jobs])
        return
    for job in jobs[-20:]:
        code = "" if job.code is None else f"  exit code {job.code}"
        print(f"{job.number:>4}  {job.kind:<6}  {job.commit[:10]}  {job.state}{code}")
    if not jobs:
        print("no push has started a job yet")


def _logs(trigger: LocalTrigger, number: int | None) -> int:
    """Print a job's output as it comes, until the job is over."""
    trigger.wake()
    jobs = {job.number: job for job in trigger.jobs()}
    job = jobs.get(number or max(jobs, default=0))
    if job is None:
        raise StateError("there is no such job", next="see `ctflow trigger status`")
    at, woken = 0, time.monotonic()
    while True:
        if time.monotonic() - woken > 1:
            # The command of a worker that was killed may have been at work until now.
            trigger.wake()
            woken = time.monotonic()
        # The state first: what was written before the job ended is then read below.
        job = next(one for one in trigger.jobs() if one.number == job.number)
        over = job.state in ("superseded", "done")
        at = _copy(trigger.log(job), at, whole=over)
        if job.state == "superseded":
            print(f"job {job.number} was replaced by a job of a newer push")
            return 0
        if job.state == "done":
            return job.code or 0
        time.sleep(0.1)


def _copy(path: Path, at: int, *, whole: bool) -> int:
    """Print what a log has from ``at`` on: whole lines, or (``whole``) all of it; where it ends."""
    try:
        with path.open("rb") as stream:
            stream.seek(at)
            data = stream.read()
    except FileNotFoundError:
        return at
    if not whole:
        data = data[: data.rfind(b"\n") + 1]
    # The log is the output of ctflow's own verbs, which have tamed what came from steps, and
    # masked what they knew. Bytes, as the log need not fit this terminal's encoding: so what is
    # known here is masked here.
    text = KNOWN.mask(data.decode("utf-8", "surrogateescape"))
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
    sys.stdout.buffer.flush()
    return at + len(data)
