"""The registry of the steps' images."""

from __future__ import annotations

from collections.abc import Sequence

from ctflow.images.registry.http import Host
from ctflow.model.doctor import Finding, Skipped


class Registry:
    """The registry that images are pushed to and pulled from.

    Args:
        host: how it is reached; None: ctflow.yaml names none.
        repository: of an image of the project.
        pushed: whether the project's runs need images there.
    """

    system = "registry"

    def __init__(self, host: Host | None, repository: str, *, pushed: bool) -> None:
        self._host, self._repository, self.needed = host, repository, pushed

    def look(self) -> Sequence[Finding] | Skipped:
        """A token to push is asked for and a list of tags; nothing is sent."""
        if self._host is None:
            if not self.needed:
                return Skipped("images.registry is not set")
            text = "images.registry is not set, and a cluster pulls images from a registry"
            return [
                Finding(self.system, "failed", text, next="set it, such as ghcr.io/acme/digits")
            ]
        answer = self._host.request(
            "GET",
            f"/v2/{self._repository}/tags/list?n=1",
            repository=self._repository,
            push=True,
            # No image was pushed yet.
            accept=frozenset({404}),
        )
        answer.close()
        credential = self._host.keychain.find(self._host.name, self._repository)
        who = (credential.username or "a token") if credential else "nobody"
        version = answer.headers.get("Docker-Distribution-Api-Version", "").removeprefix(
            "registry/"
        )
        text = f"{self._host.name}/{self._repository} answers"
        if credential is None and not self._host.loopback:
            mend = f"`docker login {self._host.name}`, if it refuses to be pushed to"
            return [
                Finding(self.system, "warning", f"{text} without a login", version, "", who, mend)
            ]
        return [Finding(self.system, "ok", text, version=version, who=who)]
