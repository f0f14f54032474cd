"""The nouns of ctflow as frozen dataclasses, and their JSON form.

Data flows one way: project -> images -> package -> run -> verdict -> promotion -> deployment. Each
stage's result is a document (a class with ``kind``); ``dump`` writes it as JSON and ``load`` reads
it back, so that a stage may end on one machine and the next go on from the file.
"""

from ctflow.model.documents import (
    Document,
    dump,
    from_json,
    iso,
    load,
    to_json,
)
from ctflow.model.releases import (
    Check,
    Deployment,
    DeploymentState,
    Hold,
    ModelRef,
    PredictionsKey,
    PredictionsRef,
    Promotion,
    PromotionState,
    Release,
    ServingRef,
)
from ctflow.model.runs import (
    Artifact,
    Commit,
    Image,
    Images,
    Package,
    RegistryImage,
    Run,
    RunState,
    Task,
    TaskState,
    Value,
    making_digest,
)
from ctflow.model.runtimes import OWN, STANDARD, Standard
from ctflow.model.verdicts import (
    SAME,
    Comparison,
    Decision,
    Estimate,
    Override,
    Reason,
    Verdict,
    deciding_first,
    worst,
)

__all__ = [
    "OWN",
    "SAME",
    "STANDARD",
    "Artifact",
    "Check",
    "Commit",
    "Comparison",
    "Decision",
    "Deployment",
    "DeploymentState",
    "Document",
    "Estimate",
    "Hold",
    "Image",
    "Images",
    "ModelRef",
    "Override",
    "Package",
    "PredictionsKey",
    "PredictionsRef",
    "Promotion",
    "PromotionState",
    "Reason",
    "RegistryImage",
    "Release",
    "Run",
    "RunState",
    "ServingRef",
    "Standard",
    "Task",
    "TaskState",
    "Value",
    "Verdict",
    "deciding_first",
    "dump",
    "from_json",
    "iso",
    "load",
    "making_digest",
    "to_json",
    "worst",
]
