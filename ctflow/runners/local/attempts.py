"""One attempt at a task, made ready: its folder, its log, its inputs and its command."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from ctflow.lib.secrets import KNOWN, LEAST, pieces
from ctflow.pipelinespec import executor_input
from ctflow.pipelinespec.placeholders import Context, command_line, replace
from ctflow.pipelinespec.platform import translate
from ctflow.ports import Event, Watch
from ctflow.runners.local import plan_kinds
from ctflow.runners.local.inputs import names_of
from ctflow.runners.local.jobs import Job, RunContext, folder_name, prepare_mounts
from ctflow.runners.local.logs import Log, without_executor
from ctflow.runners.local.process import Command
from ctflow.runners.local.python_components import SOURCE_FILE


def prepare(job: Job, run_context: RunContext, environ: Mapping[str, str], watch: Watch) -> Command:
    """Make the next attempt's folder, log and message; the command that runs it.

    Args:
        job: the task; its attempt is counted, and what belongs to the last one is forgotten.
        run_context: the run.
        environ: the caller's environment variables.
        watch: gets each line that the task prints.

    Raises:
        OSError: the disk is full.
    """
    node = job.node
    job.attempts += 1
    job.exit, job.timed_out, job.deadline = None, False, None
    base = run_context.folder / folder_name(node.name)
    job.folder = base / str(job.attempts)
    if job.folder.exists():  # left by an attempt before the run was interrupted
        shutil.rmtree(job.folder)
    job.folder.mkdir(parents=True)
    job.log_path = str(base / "log.txt")

    def emit(line: str) -> None:
        watch(Event("log", node.name, line))

    secrets = job.plan.platform.secrets
    KNOWN.add(*secrets)
    job.log = Log(
        Path(job.log_path),
        without_executor(emit) if job.plan.module else emit,
        changes=(*((piece.encode(), b"***") for piece in pieces(secrets)), *_folder(job)),
    )
    if any(0 < len(value.strip()) < LEAST for value in secrets):
        text = f"a secret has fewer than {LEAST} characters and is not masked in the log"
        watch(Event("note", node.name, f"{node.name}: {text}"))
    if job.attempts > 1:
        job.log.note(f"attempt {job.attempts}")
    job.message = executor_input.build(
        node.component, job.parameters, node.artifacts, str(job.folder)
    )
    context = Context(job.message, names_of(node, run_context.names), frozenset(node.parameters))
    own = {name: replace(value, context) for name, value in job.plan.env.items()}
    env = plan_kinds.process_env(job.plan, own, environ, run_context.run, node.name)
    mounts = prepare_mounts(job)
    if job.plan.contained:  # a container has mounts of its own
        env[plan_kinds.MOUNTS] = json.dumps({path: str(folder) for path, folder in mounts.items()})
        words = command_line(job.plan.words, context)
    else:
        words = command_line(translate(job.plan.words, mounts), context)
    if job.plan.source:
        source = job.folder / SOURCE_FILE
        (text,) = translate([job.plan.source], mounts)
        source.write_text(text, encoding="utf-8")
        words[words.index(SOURCE_FILE)] = str(source)  # it may run in a step's folder
    return Command(
        words,
        env,
        str(job.plan.folder or job.folder),
        job.plan.memory,
        job.plan.module,
        str(job.plan.folder or "/"),
    )


def _folder(job: Job) -> tuple[tuple[bytes, bytes], ...]:
    """What a traceback shall name instead of the snapshot that the step runs in."""
    if job.plan.folder is None or job.plan.step is None or job.plan.contained:
        return ()
    return ((bytes(job.plan.folder), f"steps/{job.plan.step}".encode()),)
