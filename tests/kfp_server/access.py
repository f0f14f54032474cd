"""Who may do what: anybody everything, or (multi-user mode) what was granted."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from tests.kfp_server.errors import Refused, during

_EMPTY = "there is no user identity header."


@dataclass(frozen=True)
class Access:
    """Pairs of user and namespace in which that user may do everything."""

    multi_user: bool = False
    grants: Collection[tuple[str, str]] = ()

    def check(
        self, headers: Mapping[str, str], namespace: str, verb: str, resource: str, name: str = ""
    ) -> None:
        """Refuse (401, 403) a call that the identity header's user may not make.

        Without a namespace, what is shared is asked for: anybody with or without a name may.
        """
        if not self.multi_user or not namespace:
            return
        user = headers.get("kubeflow-userid", "")
        if not user:
            header = f"Request header error: {_EMPTY}"
            reason = f"Unauthenticated: {header}: {header}"
            if headers.get("authorization"):
                reason = (
                    f"[{reason}, Authentication failure: Unauthenticated: "
                    "Review.Status.Authenticated is false. Error invalid bearer token: "
                    "Failed to authenticate token review]"
                )
            detail = "Failed to check authorization. User identity is empty in the request header"
            raise Refused(401, 16, f"Unauthenticated: {detail}: {reason}", detail)
        if (user, namespace) not in self.grants:
            attributes = (
                f"Namespace:{namespace},Verb:{verb},Group:pipelines.kubeflow.org,Version:v1beta1,"
                f"Resource:{resource},Subresource:,Name:{name},FieldSelector:nil,LabelSelector:nil,"
            )
            detail = (
                f"User '{user}' is not authorized with reason:  "
                f"(request: &ResourceAttributes{{{attributes}}})"
            )
            raise Refused(403, 7, f"PermissionDenied: {detail}: Unauthorized access", detail)

    def check_pipelines(
        self, headers: Mapping[str, str], namespace: str, verb: str, name: str = ""
    ) -> None:
        """`check` for pipelines, with the words that the server puts before."""
        with during(
            f"Failed to access pipeline . Check if you have access to namespace {namespace}"
        ):
            self.check(headers, namespace, verb, "pipelines", name)
