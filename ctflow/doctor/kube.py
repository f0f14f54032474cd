"""What the checks ask the Kubernetes API."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from ctflow.rest.client import Api
from ctflow.rest.faults import ApiError

#: An object without its content: a secret's values are never asked for.
_HEAD = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


class Kube:
    """One API server. Each call raises ApiError."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def version(self) -> str:
        """Such as ``v1.36.0``."""
        return str(self.api.get("/version").get("gitVersion", ""))

    def who(self) -> str:
        """The name of who asks; empty on servers before 1.28, which do not say it."""
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        try:
            found = self._review("/apis/authentication.k8s.io/v1/selfsubjectreviews", body)
        except ApiError:
            return ""
        return str(found.get("status", {}).get("userInfo", {}).get("username", ""))

    def may(self, verb: str, resource: str, namespace: str, group: str = "") -> bool:
        """Whether who asks may do it. ``resource``: such as ``pods`` or ``pods/log``."""
        name, _, below = resource.partition("/")
        wanted = {"verb": verb, "resource": name, "subresource": below, "group": group,
                  "namespace": namespace}  # fmt: skip
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {key: one for key, one in wanted.items() if one}},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        return self._review(path, body).get("status", {}).get("allowed") is True

    def _review(self, path: str, body: dict[str, Any]) -> Any:
        # It is answered, and nothing is kept of it.
        return self.api.call("POST", path, json=body, reads=True)

    def get(self, path: str) -> Any:
        """An object or a list; None where there is none."""
        try:
            return self.api.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def there(self, namespace: str, resource: str, name: str) -> bool:
        """Whether an object of the core API is there; its content is not fetched."""
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/{resource}/{quote(name, safe='')}"
        try:
            self.api.call("GET", path, reads=True, accept=_HEAD)
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True
