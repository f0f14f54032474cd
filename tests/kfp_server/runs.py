"""Runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.kfp_server import parameters
from tests.kfp_server.errors import Refused, during, invalid, missing
from tests.kfp_server.experiments import Experiments
from tests.kfp_server.listing import Listing
from tests.kfp_server.pipelines import Pipelines
from tests.kfp_server.store import Store, move
from tests.kfp_server.values import NEVER, Body, Item, number

_LIST = Listing(
    "runs", "Run", "run_id",
    ("id", "name", "display_name", "created_at", "finished_at", "scheduled_at", "storage_state",
     "state", "status", "experiment_id", "recurring_run_id"),
    "Failed to create list options", "Failed to create list options",
)  # fmt: skip
_FIELDS = (
    "display_name", "description", "experiment_id", "pipeline_id", "pipeline_spec",
    "pipeline_version_reference", "runtime_config", "service_account", "recurring_run_id",
    "plugins_input", "state", "storage_state", "run_id", "created_at", "scheduled_at",
    "finished_at", "error", "run_details", "state_history",
)  # fmt: skip
#: The shipped configuration has an MLflow plug-in, whose failure is on every run; the run is fine.
_PLUGIN = {
    "mlflow": {
        "entries": {"experiment_name": {"value": "KFP-Default"}},
        "state": "PLUGIN_FAILED",
        "state_message": "failed to build MLflow request context: no certificate",
    }
}
ENDED = frozenset({"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"})


class Runs:
    """The calls on runs."""

    def __init__(self, store: Store, pipelines: Pipelines, experiments: Experiments) -> None:
        self.store, self.pipelines, self.experiments = store, pipelines, experiments

    def create(self, body: Body, headers: Mapping[str, str]) -> Item:
        fields = body.fields(*_FIELDS)
        config = body.fields("parameters", "pipeline_root", of=fields.get("runtime_config") or {})
        name = fields.get("display_name") or ""
        with (
            during("CreateJob(job.ToV2())Failed to create a run due to conversion error"),
            during(
                "Failed to convert a API run detail to its internal representation", internal=True
            ),
        ):
            if not name:
                raise invalid("Run name cannot be empty")
        with during("Failed to create a new run"):
            with during("Failed to create a run due to invalid experimentId and namespace "
                        "combination"):  # fmt: skip
                experiment = self.experiments.for_run(fields.get("experiment_id") or "")
            self.store.access.check(headers, experiment["namespace"], "create", "runs", name)
            reference, spec = self._package(fields)
            with (
                during("Failed to generate the ExecutionSpec"),
                during("invalid pipeline job inputs"),
            ):
                parameters.check(spec, config.get("parameters") or {})
            with during("Failed to create a run"):
                return self.add(fields, config, experiment, reference, spec)

    def add(
        self, fields: Item, config: Item, experiment: Item, reference: Item, spec: Item
    ) -> Item:
        """Start a run whose inputs have been checked."""
        name = fields["display_name"]
        at = self.store.clock()
        run = {
            "experiment_id": experiment["experiment_id"],
            "run_id": fields.get("run_id") or self.store.new_id("run"),
            "display_name": name,
            "storage_state": "AVAILABLE",
            "description": fields.get("description") or "",
            "pipeline_version_reference": reference,
            "pipeline_spec": None if reference else fields.get("pipeline_spec"),
            "runtime_config": number(config),
            "service_account": fields.get("service_account") or "pipeline-runner",
            "created_at": at,
            "scheduled_at": at,
            "finished_at": NEVER,
            "state": "PENDING",
            "state_history": [{"update_time": at, "state": "PENDING"}],
            "recurring_run_id": fields.get("recurring_run_id") or "",
            "plugins_output": _PLUGIN,
            "_spec": spec,
        }
        self.store.runner.start(run, spec)
        if len(name) > 255:  # The workflow has been made, as there.
            message = "Error 1406 (22001): Data too long for column 'DisplayName' at row 1"
            words = f"InternalServerError: Failed to store run {name} to table: {message}"
            raise Refused(500, 13, words)
        experiment["last_run_created_at"] = at
        return self.store.runs.setdefault(run["run_id"], run)

    def _package(self, fields: Item) -> tuple[Item, Item]:
        """The resolved reference, empty for a specification in the call, and the package."""
        if given := fields.get("pipeline_spec"):
            return {}, given
        with during("Failed to create a run due to error fetching manifest", internal=True):
            reference = fields.get("pipeline_version_reference") or {}
            if not reference:
                raise invalid("Failed to fetch a template with an empty pipeline spec manifest")
            with during("Failed to fetch a template due to error retrieving pipeline version"):
                version = self.referenced(reference)
        return {key: version[key] for key in ("pipeline_id", "pipeline_version_id")}, \
            version["pipeline_spec"]  # fmt: skip

    def referenced(self, reference: Item) -> Item:
        """The version that is named, or the newest of the pipeline."""
        of, wanted = reference.get("pipeline_id", ""), reference.get("pipeline_version_id", "")
        what = f"pipeline version {wanted}" if wanted else f"pipeline {of}"
        with during(f"Failed to fetch a pipeline version and its manifest from {what}"):
            if wanted:
                with during(f"Failed to get a pipeline version with id {wanted}"):
                    version: Item | None = self.pipelines.version(wanted)
            else:
                with during("Failed to get the latest pipeline version as pipeline was not found"):
                    self.pipelines.pipeline(of)
                version = self.pipelines.latest(of)
        if version is None:
            raise missing("PipelineVersion", of)
        if of and version["pipeline_id"] != of:
            raise invalid(
                f"Pipeline version {wanted} belongs to pipeline {version['pipeline_id']} (not {of})"
            )
        return version

    def run(self, run_id: str) -> Item:
        """The run as it is now; refuses as the server's store does."""
        with during(f"Failed to fetch run {run_id}"):
            if run_id not in self.store.runs:
                raise missing("Run", run_id)
        run = self.store.runs[run_id]
        if run["state"] not in ENDED:
            self.store.runner.refresh(run)
        return run

    def get(self, run_id: str) -> Item:
        with during("Failed to get a run"):
            return self.run(run_id)

    def list(self, query: dict[str, str], headers: Mapping[str, str]) -> Item:
        experiment = query.get("experiment_id", "")
        with during("Failed to list runs"):
            if experiment:
                with (
                    during("Failed to list runs due to error fetching namespace for experiment "
                           f"{experiment}. Try filtering based on namespace"),
                    during(f"Failed to fetch namespace from experiment {experiment}"),
                ):  # fmt: skip
                    self.experiments.experiment(experiment)
            elif self.store.access.multi_user:
                namespace = query.get("namespace", "")
                with during("Failed to list runs due to authorization error. Check if you have "
                            f"permission to access namespace {namespace}"):  # fmt: skip
                    if not namespace:
                        raise invalid("A run cannot have an empty namespace in multi-user mode")
                    self.store.access.check(headers, namespace, "list", "runs")
        items = [self.run(run_id) for run_id in list(self.store.runs)]
        if experiment:
            items = [run for run in items if run["experiment_id"] == experiment]
        return _LIST.page(items, query)

    def terminate(self, run_id: str) -> Item:
        with during("Failed to terminate a run"):
            words = f"Failed to terminate run {run_id} due to error fetching the run"
            with during(words):
                run = self.run(run_id)
            with during(f"Failed to terminate run {run_id}"):
                if run["state"] not in {"PENDING", "RUNNING"}:
                    raise invalid(f"Failed to terminate a run {run_id}. Row not found")
        self.store.runner.terminate(run)
        run["state"] = "CANCELING"  # In its history only once it changes again.
        return {}

    def retry(self, run_id: str) -> Item:
        with during("Failed to retry a run"), during(f"Failed to retry run {run_id}"):
            run = self.run(run_id)
            if run["state"] != "FAILED":
                message = "Workflow must be Failed/Error to retry"
                words = f"BadRequestError: {message}: workflow cannot be retried"
                raise Refused(409, 10, words, message)
            self.store.runner.retry(run)
        move(run, "RUNNING", self.store.clock())
        run["finished_at"] = NEVER
        return {}

    def archive(self, run_id: str, state: str) -> Item:
        with during(f"Failed to {'archive' if state == 'ARCHIVED' else 'unarchive'} a run"):
            self.run(run_id)["storage_state"] = state
        return {}

    def delete(self, run_id: str) -> Item:
        with (
            during("Failed to delete a run"),
            during(f"Failed to delete run {run_id} as it does not exist"),
        ):
            run = self.run(run_id)
        self.store.runner.delete(run)
        del self.store.runs[run_id]
        return {}

    def log(self, run_id: str, pod: str) -> bytes | Item:
        """A pod's log, or the reason why not; both are a 200."""
        words = f"BadRequestError: Failed to read logs for run {run_id}"
        try:
            run = self.run(run_id)
        except Refused as refused:
            text = f"{words} due to run fetching error: {refused.message}"
            return {"error_message": text, "error_details": text}
        found = self.store.runner.log(run, pod)
        if found is not None:
            return found
        path = f"/artifacts/{run.get('_workflow', '')}/{pod}/main.log"
        text = (
            f"{words}: InternalServerError: Failed to read logs from archive {pod} due to error "
            f"fetching the log file: InternalServerError: Failed to get file reader for {path}: "
            f'blob (key "{path}") (code=NotFound): operation error S3: GetObject, https response '
            "error StatusCode: 404, NoSuchKey: The specified key does not exist."
        )
        return {"error_message": text, "error_details": f"{text}\n{TRACE}"}

    def artifact(self, run_id: str, pod: str, name: str) -> Any:
        """Argo's own output `main-logs`; anything else is not found, in plain text."""
        run = self.store.runs.get(run_id)
        found = self.store.runner.log(run, pod) if run and name == "main-logs" else None
        if found is None:
            message = "artifact not found: <nil>"
            raise Refused(404, 5, message, message, plain=True)
        return found


#: Stands for the stack traces of some thousand characters that the server puts into answers.
TRACE = "\n".join(f"server.(*Handler).call{n}\n\t/go/src/server/handler.go:{n}" for n in range(9))
