"""The command line: a table of verbs, one error boundary, the exit codes.

A verb is a module of this package with ``add_arguments(parser)`` and ``run(args)``; only the verb
that is called is imported, so that ``ctflow --help`` costs nothing. Exit codes: 0 done; 1 a bug;
2 usage or configuration; 3 the gate said no; 4 a step or run failed; 5 an outside system failed;
130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from ctflow import __version__
from ctflow.errors import CtflowError

#: verb -> (module, what it does); the order is a user's way through them.
VERBS: dict[str, tuple[str, str]] = {
    "new": ("new", "create a project from a template"),
    "init": ("init", "write a ctflow.yaml for an existing pipeline"),
    "ct": ("ct", "continuous training: build, compile, run, gate, promote"),
    "build": ("build", "build the images of the steps that changed"),
    "images": ("images", "list, lock and prune the steps' images"),
    "compile": ("compile", "compile the pipeline to a KFP package"),
    "run": ("run", "run the pipeline"),
    "runs": ("runs", "list, show and compare runs; read their logs"),
    "gate": ("gate", "judge a run's model by the rules of the gate"),
    "promote": ("promote", "propose a run's model for an environment"),
    "promotions": ("promotions", "list, show, approve and reject proposals"),
    "deploy": ("deploy", "make the serving target match git"),
    "status": ("status", "show what serves where, and the open proposals"),
    "why": ("why", "show why an environment serves its model"),
    "rollback": ("rollback", "restore the previous release, and hold the model"),
    "trigger": ("trigger", "run ct and deploy on every push to a bare repository"),
    "upload": ("upload", "upload the pipeline to Kubeflow Pipelines as a version"),
    "schedule": ("schedule", "run the pipeline by itself: here, or on Kubeflow Pipelines"),
    "doctor": ("doctor", "look at every system outside, and say what will not work"),
    "config": ("config", "show each setting and where it comes from"),
    "schema": ("schema", "print the JSON schema of ctflow.yaml"),
    "store": ("store", "copy the releases' models to or from another store"),
    "cache": ("cache", "list and prune cached environments, copies of models, and snapshots"),
    "completion": ("completion", "print a script for shell completion"),
}
#: What no person calls.
_INTERNAL = {"task": ("task", "what the tasks of ctflow.components run")}


def _usage() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {text}" for verb, (_, text) in VERBS.items())
    return (
        "usage: ctflow [-h] [--version] VERB ...\n\n"
        "Continuous training and delivery of models, from git push to a served model.\n\n"
        f"{verbs}\n\n"
        "`ctflow VERB --help` shows the flags of a verb. Start with `ctflow new`.\n"
    )


def _complain(text: str, details: Sequence[str] = ()) -> None:
    """Say what is wrong. What a step or a server said is in it: it is made harmless first."""
    from ctflow.cli.common import clean

    print(f"ctflow: {clean(text)}", file=sys.stderr)
    for line in details:
        print(f"  {clean(line)}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in {"-h", "--help", "help"}:
        print(_usage(), end="")
        return 0 if words else 2
    if words[0] in {"-V", "--version"}:
        print(f"ctflow {__version__}")
        return 0
    verb = words[0]
    known = VERBS | _INTERNAL
    if verb not in known:
        import difflib

        near = difflib.get_close_matches(verb, VERBS, n=1)
        mend = f"did you mean `{near[0]}`?" if near else "see `ctflow --help`"
        _complain(f"there is no verb {verb!r}; {mend}")
        return 2
    module = importlib.import_module(f"ctflow.cli.{known[verb][0]}")
    parser = _Parser(prog=f"ctflow {verb}", description=module.__doc__, formatter_class=_Formatter)
    module.add_arguments(parser)
    parser.add_argument("-v", "--verbose", action="store_true", help="show tracebacks of errors")
    try:
        # Anywhere on the line, behind a verb's own verb too.
        plain = [word for word in words[1:] if word not in ("-v", "--verbose")]
        args = parser.parse_args(plain)
        args.verbose = len(plain) < len(words) - 1
    except SystemExit as stop:
        return int(stop.code or 0)
    from ctflow.cli.stopping import listen
    from ctflow.lib.git_command import REDIRECTIONS

    listen()
    for name in REDIRECTIONS:
        os.environ.pop(name, None)
    return _masked(module.run, args)


def _masked(run: object, args: argparse.Namespace) -> int:
    """Run with both outputs masked: whatever prints a secret, it does not come out here."""
    from contextlib import redirect_stderr, redirect_stdout

    from ctflow.lib.secrets import KNOWN, MaskedStream

    KNOWN.learn(os.environ)
    out: Any = MaskedStream(sys.stdout, KNOWN)
    err: Any = MaskedStream(sys.stderr, KNOWN)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            return _bounded(run, args)
    finally:
        out.close()
        err.close()


class _Parser(argparse.ArgumentParser):
    """Names the nearest word where one is misspelt; also for the verbs below a verb."""

    def error(self, message: str) -> NoReturn:
        import difflib
        import re

        choice = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message)
        flag = re.search(r"unrecognized arguments: (--[\w-]+)", message)
        word, known = "", []
        if choice:
            word, known = choice[1], re.findall(r"[\w-]+", choice[2])
        elif flag:
            word, known = flag[1], list(self._option_string_actions)
        if near := difflib.get_close_matches(word, known, n=1):
            message += f"; did you mean {near[0]!r}?"
        super().error(message)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)


def _bounded(run: object, args: argparse.Namespace) -> int:
    """The one error boundary."""
    try:
        code = run(args)  # type: ignore[operator]
        sys.stdout.flush()
        return int(code or 0)
    except KeyboardInterrupt:
        if args.verbose:
            raise
        _complain("interrupted; run the same command again to continue")
        return 130
    except BrokenPipeError:
        # The reader of our output went away (`ctflow runs list | head`): not an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except CtflowError as error:
        if args.verbose:
            import traceback

            traceback.print_exc()
        _complain(error.message(), error.details)
        return error.exit_code
    except OSError as error:
        if args.verbose:
            raise
        _complain(f"{_os_error(error)}; fix that and run the same command again")
        return 5


def _os_error(error: OSError) -> str:
    import errno

    # Where two files are named (a copy, a renaming), the second is the one that was to be written.
    name = error.filename2 or error.filename
    place = f" ({name})" if name else ""
    if error.errno == errno.ENOSPC:
        return f"the disk is full{place}"
    if error.errno == errno.EACCES:
        return f"no permission{place}"
    return f"{error.strerror or error}{place}"
