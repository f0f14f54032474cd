"""Recurring runs. The stand-in keeps them; a run is made of one only when a test triggers it."""

from __future__ import annotations

import re
import uuid
import zlib

from tests.kfp_server import parameters
from tests.kfp_server.errors import during, invalid, missing
from tests.kfp_server.experiments import Experiments
from tests.kfp_server.listing import Listing
from tests.kfp_server.runs import Runs
from tests.kfp_server.store import Store
from tests.kfp_server.values import Body, Item, number

_LIST = Listing(
    "recurringRuns", "Job", "recurring_run_id",
    ("id", "name", "display_name", "created_at", "updated_at"),
    "Failed to list recurring runs due to error parsing the listing options",
    "Failed to list recurring runs due to error parsing the listing options",
)  # fmt: skip
_FIELDS = (
    "display_name", "description", "experiment_id", "pipeline_version_reference", "pipeline_spec",
    "runtime_config", "service_account", "max_concurrency", "trigger", "mode", "no_catchup",
    "namespace", "plugins_input",
)  # fmt: skip
#: Highest value of each field of a cron, seconds first.
_HIGHEST = (59, 59, 23, 31, 12, 6)
#: Where the server and its runs are.
_NAMESPACE = "kubeflow"


class Recurring:
    """The calls on recurring runs."""

    def __init__(self, store: Store, experiments: Experiments, runs: Runs) -> None:
        self.store, self.experiments, self.runs = store, experiments, runs

    def create(self, body: Body) -> Item:
        fields = body.fields(*_FIELDS)
        config = body.fields("parameters", "pipeline_root", of=fields.get("runtime_config") or {})
        words = "Failed to create a recurring run due to conversion error"
        with (
            during(words),
            during(
                "Failed to convert a API recurring run to its internal representation",
                internal=True,
            ),
        ):
            if not fields.get("display_name"):
                raise invalid("Recurring run's name cannot be empty")
        with during(words):
            _check_schedule(fields)
        with during("Failed to create a recurring run"):
            with during("Failed to create a recurring run due to invalid experimentId and "
                        "namespace combination"):  # fmt: skip
                experiment = self.experiments.for_run(fields.get("experiment_id") or "")
            reference = fields.get("pipeline_version_reference") or {}
            spec = self._package(fields, reference, config)
        at = self.store.clock()
        item = {
            "recurring_run_id": self.store.new_id("recurring_run"),
            "display_name": fields["display_name"],
            "description": fields.get("description") or "",
            "pipeline_version_reference": reference,
            "pipeline_spec": fields.get("pipeline_spec"),
            "runtime_config": number(config),
            "service_account": fields.get("service_account")
            or ("pipeline-runner" if reference.get("pipeline_version_id") else ""),
            "max_concurrency": str(fields["max_concurrency"]),
            "mode": fields.get("mode") or "DISABLE",
            "created_at": at,
            "updated_at": at,
            "status": "ENABLED" if fields.get("mode") == "ENABLE" else "DISABLED",
            "no_catchup": bool(fields.get("no_catchup")),
            "namespace": experiment["namespace"] or _NAMESPACE,
            "experiment_id": experiment["experiment_id"],
            "_spec": spec,
            "_fired": 0,
        }
        if trigger := fields.get("trigger"):
            item["trigger"] = trigger
        self.store.recurring[item["recurring_run_id"]] = item
        # What is made without a trigger has an empty one in this one answer.
        return {**item, "trigger": trigger or {}}

    def _package(self, fields: Item, reference: Item, config: Item) -> Item | None:
        """The package of a fixed version; with the newest one, only its parameters are checked."""
        given = config.get("parameters") or {}
        if not reference:
            spec: Item | None = fields.get("pipeline_spec")
            return spec
        if reference.get("pipeline_version_id"):
            with (
                during("Failed to create a recurring run with an invalid pipeline spec manifest",
                       internal=True),
                during("Failed to fetch a template due to error retrieving pipeline version"),
            ):  # fmt: skip
                version = self.runs.referenced(reference)
            with during("Failed to create a recurring run during scheduled workflow creation"), \
                    during("invalid pipeline job inputs"):  # fmt: skip
                parameters.check(version["pipeline_spec"], given)
            found: Item = version["pipeline_spec"]
            return found
        of = reference.get("pipeline_id", "")
        with during("Failed to validate the input parameters on the latest pipeline version"):
            with during("Failed to get the latest template as pipeline was not found"):
                self.runs.pipelines.pipeline(of)
            latest = self.runs.pipelines.latest(of)
            if latest is not None:
                parameters.check(latest["pipeline_spec"], given)
        return None

    def _item(self, recurring_run_id: str) -> Item:
        if recurring_run_id not in self.store.recurring:
            raise missing("Job", recurring_run_id)
        return self.store.recurring[recurring_run_id]

    def get(self, recurring_run_id: str) -> Item:
        with during("Failed to fetch a recurring run"):
            return self._item(recurring_run_id)

    def list(self, query: dict[str, str]) -> Item:
        experiment = query.get("experiment_id", "")
        items = list(self.store.recurring.values())
        if experiment:
            items = [item for item in items if item["experiment_id"] == experiment]
        return _LIST.page(items, query)

    def switch(self, recurring_run_id: str, verb: str) -> Item:
        """`enable` or `disable` it."""
        with (
            during(f"Failed to {verb} a recurring run"),
            during(
                f"Failed to change recurring run's mode to enable:{str(verb == 'enable').lower()}. "
                f"Check if recurring run {recurring_run_id} exists"
            ),
        ):
            item = self._item(recurring_run_id)
        item.update(mode=verb.upper(), status=f"{verb.upper()}D", updated_at=self.store.clock())
        return {}

    def delete(self, recurring_run_id: str) -> Item:
        with (
            during("Failed to delete a recurring run"),
            during(f"Failed to delete recurring run {recurring_run_id}. Check if exists"),
        ):
            self._item(recurring_run_id)
        del self.store.recurring[recurring_run_id]
        return {}

    def trigger(self, recurring_run_id: str) -> Item:
        """Make the run that the schedule would make now."""
        item = self._item(recurring_run_id)
        item["_fired"] += 1
        item["updated_at"] = self.store.clock()
        reference, spec = item["pipeline_version_reference"], item["_spec"]
        if spec is None:
            version = self.runs.referenced(reference)
            spec = version["pipeline_spec"]
            reference = {key: version[key] for key in ("pipeline_id", "pipeline_version_id")}
        seed = f"{recurring_run_id}-{item['_fired']}"
        letters = "".join(chr(97 + int(digit, 16)) for digit in recurring_run_id[:5])
        short = re.sub(r"[^a-z0-9]", "", item["display_name"].lower())
        fields = {
            "display_name": f"{short}{letters}-{item['_fired']}-{zlib.crc32(seed.encode())}",
            "run_id": str(uuid.uuid5(uuid.NAMESPACE_OID, seed)),
            "recurring_run_id": recurring_run_id,
            "service_account": item["service_account"],
        }
        experiment = self.experiments.experiment(item["experiment_id"])
        run = self.runs.add(fields, item["runtime_config"], experiment, reference, spec)
        if item["_spec"] is not None:
            # With a fixed version the controller makes the workflow itself, named as the run, and
            # the server hears of it when it runs.
            first = {"update_time": self.store.clock(), "state": "RUNNING"}
            run.update(service_account="", plugins_output=None, state="RUNNING")
            run.update(state_history=[first], _workflow=run["display_name"])
        return run


def _check_schedule(fields: Item) -> None:
    concurrency = int(fields.get("max_concurrency") or 0)
    if not 1 <= concurrency <= 10:
        raise invalid(
            "Max concurrency of a recurring run must be at least 1 and at most 10. "
            f"Received {concurrency}"
        )
    trigger = fields.get("trigger") or {}
    if "cron_schedule" in trigger:
        _check_cron(trigger["cron_schedule"].get("cron", ""))
    if "periodic_schedule" in trigger:
        seconds = int(trigger["periodic_schedule"].get("interval_second") or 0)
        if seconds < 1:
            raise invalid(
                f"Found invalid period schedule interval {seconds}. Set at interval to least "
                "1 second"
            )


def _check_cron(cron: str) -> None:
    """Five fields are taken too: they lack the last, the day of the week."""
    words = "Schedule cron is not a supported format(https://godoc.org/github.com/robfig/cron). "
    if cron.startswith("@"):
        return
    fields = cron.split()
    if len(fields) not in (5, 6):
        raise invalid(f"{words}Error: Expected 5 to 6 fields, found {len(fields)}: {cron}")
    for field, highest in zip(fields, _HIGHEST, strict=False):
        for found in re.findall(r"\d+", field.partition("/")[0]):
            if int(found) > highest:
                raise invalid(
                    f"{words}Error: End of range ({found}) above maximum ({highest}): {field}"
                )
