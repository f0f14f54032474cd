"""Experiments."""

from __future__ import annotations

from collections.abc import Mapping

from tests.kfp_server.errors import during, exists, invalid, missing
from tests.kfp_server.listing import Listing
from tests.kfp_server.pipelines import check_length
from tests.kfp_server.store import Store
from tests.kfp_server.values import NEVER, Body, Item, one

_LIST = Listing(
    "experiments", "Experiment", "experiment_id",
    ("id", "name", "display_name", "created_at", "last_run_created_at", "storage_state",
     "namespace"),
    "Failed to list experiments due to error parsing the listing options",
    "Failed to list experiments due to error parsing the listing options",
)  # fmt: skip

_DEFAULT = {
    "display_name": "Default",
    "description": "All runs created without specifying an experiment will be grouped here.",
}


class Experiments:
    """The calls on experiments."""

    def __init__(self, store: Store) -> None:
        self.store = store
        #: Where runs land that name no experiment; there is none in multi-user mode.
        self.default = "" if store.access.multi_user else self._add(_DEFAULT)["experiment_id"]

    def create(self, body: Body, headers: Mapping[str, str]) -> Item:
        fields = body.fields("display_name", "description", "namespace", "experiment_id")
        name = fields.get("display_name") or ""
        with (
            during("[ExperimentServer]: Failed to create a experiment due to conversion error"),
            during("Failed to convert API experiment to model experiment", internal=True),
        ):
            if not name:
                raise invalid("Experiment must have a non-empty name")
            check_length("Experiment.Name", name, 128)
        with during("Failed to create a experiment"):
            if self.store.access.multi_user:
                self._authorize(headers, fields.get("namespace") or "", name)
            else:
                fields.pop("namespace", None)
            if one(self.store.experiments.values(), display_name=name,
                   namespace=fields.get("namespace") or ""):  # fmt: skip
                raise exists(
                    f"Failed to create a new experiment. The name {name} already exists. "
                    "Please specify a new name"
                )
            return self._add(fields)

    def _authorize(self, headers: Mapping[str, str], namespace: str, name: str) -> None:
        with during("Failed to authorize the request"):
            if not namespace:
                raise invalid("An experiment cannot have an empty namespace in multi-user mode")
            with during("Failed to authorize with API"):
                self.store.access.check(headers, namespace, "create", "experiments", name)

    def _add(self, fields: Item) -> Item:
        item = {
            "experiment_id": self.store.new_id("experiment"),
            "display_name": fields["display_name"],
            "description": fields.get("description") or "",
            "created_at": self.store.clock(),
            "namespace": fields.get("namespace") or "",
            "storage_state": "AVAILABLE",
            "last_run_created_at": NEVER,
        }
        return self.store.experiments.setdefault(item["experiment_id"], item)

    def experiment(self, experiment_id: str) -> Item:
        """The experiment; refuses without words before."""
        if experiment_id not in self.store.experiments:
            raise missing("Experiment", experiment_id)
        return self.store.experiments[experiment_id]

    def for_run(self, experiment_id: str) -> Item:
        """The experiment that a run is made in: the named one, else the default one."""
        if not experiment_id and self.store.access.multi_user:
            raise invalid("Experiment id can not be empty in multi-user mode")
        chosen = experiment_id or self.default
        with (
            during(f"Failed to fetch namespace for experiment {chosen}"),
            during(f"Failed to fetch namespace from experiment {chosen}"),
        ):
            return self.experiment(chosen)

    def get(self, experiment_id: str) -> Item:
        with during("Failed to fetch experiment"):
            return self.experiment(experiment_id)

    def list(self, query: dict[str, str]) -> Item:
        namespace = query.get("namespace", "") if self.store.access.multi_user else ""
        found = [e for e in self.store.experiments.values() if e["namespace"] == namespace]
        return _LIST.page(found, query)

    def archive(self, experiment_id: str) -> Item:
        """Archive it and disable its recurring runs; an unknown one is archived with success."""
        if experiment_id in self.store.experiments:
            self.store.experiments[experiment_id]["storage_state"] = "ARCHIVED"
        for item in self.store.recurring.values():
            if item["experiment_id"] == experiment_id:
                item.update(mode="DISABLE", status="DISABLED")
        return {}

    def unarchive(self, experiment_id: str) -> Item:
        if experiment_id in self.store.experiments:
            self.store.experiments[experiment_id]["storage_state"] = "AVAILABLE"
        return {}

    def delete(self, experiment_id: str) -> Item:
        words = f"Failed to delete experiment {experiment_id} due to error fetching it"
        with during("Failed to delete experiment"), during(words):
            self.experiment(experiment_id)
        del self.store.experiments[experiment_id]
        return {}
