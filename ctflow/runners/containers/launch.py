"""Runs one task's container and ends as it does; started as a script, once for each attempt.

    launch.py ENGINE [--see DIR ...] [--network N] [--cpus N] [--memory BYTES] -- IMAGE COMMAND ...

The container's variables are those of ours that begin with ``CTFLOW_CONTAINER_``. Imports as
little as possible: each task waits for it.
"""

import json
import os
import signal
import subprocess
import sys

PREFIX = "CTFLOW_CONTAINER_"
#: Variables that mean something to the engine's own program, which must not take the step's.
_ENGINES = ("PATH", "HOME", "LD_", "DOCKER_", "CONTAINER", "BUILDAH_", "XDG_", "REGISTRY_",
            "STORAGE_", "TMPDIR", "SSL_", "HTTP", "http", "NO_PROXY", "no_proxy", "GO")  # fmt: skip
#: Seconds between SIGTERM and SIGKILL when the task is stopped.
GRACE = 5
#: The label by which reap.py finds a run's containers.
LABEL = "ctflow.run"


def run_argv(words: "list[str]", environ: "dict[str, str]", folder: str, name: str) -> "list[str]":
    """The engine's command line of a task, from our own words."""
    engine, rest = words[0], words[1:]
    at = rest.index("--")
    given = list(zip(rest[:at:2], rest[1:at:2], strict=True))
    image, command = rest[at + 1], rest[at + 2 :]
    argv = [engine, "run", "--name", name]
    argv += ["--label", f"{LABEL}={environ.get('CTFLOW_RUN', '')}"]
    argv += ["--user", f"{os.getuid()}:{os.getgid()}", "--security-opt", "no-new-privileges"]
    if engine == "podman":
        argv += ["--security-opt", "label=disable"]
        if os.getuid() != 0:
            argv += ["--userns", "keep-id"]
    for flag, value in given:
        argv += ["--volume", f"{value}:{value}:ro"] if flag == "--see" else [flag, value]
    argv += ["--volume", f"{folder}:{folder}:rw"]
    for path, place in json.loads(environ.get("CTFLOW_MOUNTS") or "{}").items():
        argv += ["--volume", f"{place}:{path}:rw"]
    argv += ["--env", "HOME=/tmp", "--env", "PYTHONUNBUFFERED=1"]
    for key in ("CTFLOW_RUN", "CTFLOW_TASK"):
        argv += ["--env", f"{key}={environ.get(key, '')}"]
    for key in (name[len(PREFIX) :] for name in environ if name.startswith(PREFIX)):
        # By name only: a command line can be read by everybody on the machine.
        argv += ["--env", f"{key}={environ[PREFIX + key]}" if key.startswith(_ENGINES) else key]
    # The package's command takes the place of the image's ENTRYPOINT, as in Kubernetes.
    if command:
        argv += ["--entrypoint", command[0]]
    return [*argv, image, *command[1:]]


def memory_note(code: int, is_reported: bool, limit: int) -> str:
    """What a task's log says of its end where that is the memory limit's doing.

    Args:
        is_reported: the engine says so; podman does not always, so SIGKILL (137) is enough too.
    """
    if not is_reported and code != 128 + signal.SIGKILL:
        return ""
    surely = "killed" if is_reported else "killed, most likely"
    return (
        f"ctflow: {surely} because it used more memory than its limit of {limit / 1e6:g} MB; "
        "raise it with `set_memory_limit`\n"
    )


def main() -> int:
    """Run it; the container's exit code."""
    words = sys.argv[1:]
    engine = words[0]
    name = f"ctflow-{os.environ.get('CTFLOW_RUN', '')}-{os.getpid()}-{os.urandom(4).hex()}"
    argv = run_argv(words, dict(os.environ), os.getcwd(), name)  # noqa: PTH109
    own = {key: value for key, value in os.environ.items() if not key.startswith("CTFLOW_")}
    for key, value in os.environ.items():
        name_inside = key[len(PREFIX) :]
        if key.startswith(PREFIX) and not name_inside.startswith(_ENGINES):
            own[name_inside] = value
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": own}
    stopping: list[subprocess.Popen[bytes]] = []

    def stop(number: int, frame: object) -> None:
        if not stopping:
            stopping.append(
                subprocess.Popen([engine, "stop", "--time", str(GRACE), name], **quiet)  # type: ignore[call-overload]
            )

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, env=own)
    code = process.wait()
    for one in stopping:
        one.wait()
    given = words[: words.index("--")]
    if code and not stopping and "--memory" in given:
        limit = int(given[given.index("--memory") + 1])
        state = subprocess.run(
            [engine, "inspect", "--type", "container", "--format", "{{.State.OOMKilled}}", name],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=own,
        ).stdout  # fmt: skip
        print(memory_note(code, state.strip() == b"true", limit), file=sys.stderr, end="")
    subprocess.run([engine, "rm", "--force", name], **quiet)  # type: ignore[call-overload]
    if stopping:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
