"""OCI registries: references, logins, manifests and blobs."""

from ctflow.adapters.registry.blobs import Blob
from ctflow.adapters.registry.oci import Manifest, OciRegistry
from ctflow.adapters.registry.reference import Reference, parse_reference
from ctflow.adapters.registry.refusals import Broken

__all__ = ["Blob", "Broken", "Manifest", "OciRegistry", "Reference", "parse_reference"]
