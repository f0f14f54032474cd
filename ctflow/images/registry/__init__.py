"""OCI registries: references, logins, manifests and blobs."""

from ctflow.images.registry.blobs import Blob
from ctflow.images.registry.oci import Manifest, OciRegistry
from ctflow.images.registry.reference import Reference, parse_reference
from ctflow.images.registry.refusals import Broken

__all__ = ["Blob", "Broken", "Manifest", "OciRegistry", "Reference", "parse_reference"]
