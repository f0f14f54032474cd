"""Every field of the PipelineSpec and of KFP's Kubernetes settings: runs, refused, or said.

A field that is new in the installed protos fails here until somebody has decided about it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kfp.kubernetes import kubernetes_executor_config_pb2 as kubernetes
from kfp.pipeline_spec import pipeline_spec_pb2 as specs

from ctflow.errors import ConfigError
from ctflow.pipelinespec.constructs import SAID
from ctflow.pipelinespec.platform import Local, platform_of
from ctflow.pipelinespec.spec_reader import parse

#: message -> what of its fields runs; what says nothing about running; refused; ignored and said.
TABLE: dict[str, tuple[str, str, str, str]] = {
    "PipelineSpec": (
        "deployment_spec components root sdk_version",
        "pipeline_info schema_version",
        "",
        "default_pipeline_root",
    ),
    "PipelineInfo": ("name", "display_name description", "", ""),
    "ComponentSpec": (
        "input_definitions output_definitions dag executor_label",
        "",
        "",
        "single_platform_specs task_config_passthroughs",
    ),
    "ComponentInputsSpec": ("artifacts parameters", "", "", ""),
    "ComponentInputsSpec.ArtifactSpec": (
        "artifact_type is_artifact_list is_optional",
        "description",
        "",
        "",
    ),
    "ArtifactTypeSchema": ("schema_title schema_version", "schema_uri instance_schema", "", ""),
    "ComponentInputsSpec.ParameterSpec": (
        "type parameter_type default_value is_optional literals",
        "description",
        "",
        "",
    ),
    "ComponentOutputsSpec": ("artifacts parameters", "", "", ""),
    "ComponentOutputsSpec.ArtifactSpec": (
        "artifact_type is_artifact_list",
        "description",
        "",
        "properties custom_properties metadata",
    ),
    "ComponentOutputsSpec.ParameterSpec": ("type parameter_type", "description", "", ""),
    "ValueOrRuntimeParameter": ("runtime_parameter constant", "", "constant_value", ""),
    "Value": ("", "", "int_value double_value string_value", ""),
    "DagSpec": ("tasks outputs", "", "", ""),
    "PipelineTaskSpec": (
        (
            "task_info inputs dependent_tasks caching_options component_ref trigger_policy"
            " artifact_iterator parameter_iterator retry_policy iterator_policy"
        ),
        "",
        "",
        "",
    ),
    "PipelineTaskInfo": ("name", "", "", ""),
    "TaskInputsSpec": ("parameters artifacts", "", "", ""),
    "TaskInputsSpec.InputParameterSpec": (
        (
            "task_output_parameter runtime_value component_input_parameter task_final_status"
            " parameter_expression_selector"
        ),
        "",
        "",
        "",
    ),
    "TaskInputsSpec.InputParameterSpec.TaskOutputParameterSpec": (
        "producer_task output_parameter_key",
        "",
        "",
        "",
    ),
    "TaskInputsSpec.InputParameterSpec.TaskFinalStatus": ("producer_task", "", "", ""),
    "TaskInputsSpec.InputArtifactSpec": (
        "task_output_artifact component_input_artifact",
        "",
        "",
        "",
    ),
    "TaskInputsSpec.InputArtifactSpec.TaskOutputArtifactSpec": (
        "producer_task output_artifact_key",
        "",
        "",
        "",
    ),
    "PipelineTaskSpec.CachingOptions": ("enable_cache cache_key", "", "", ""),
    "ComponentRef": ("name", "", "", ""),
    "PipelineTaskSpec.TriggerPolicy": ("condition strategy", "", "", ""),
    "ArtifactIteratorSpec": ("items item_input", "", "", ""),
    "ArtifactIteratorSpec.ItemsSpec": ("input_artifact", "", "", ""),
    "ParameterIteratorSpec": ("items item_input", "", "", ""),
    "ParameterIteratorSpec.ItemsSpec": ("raw input_parameter", "", "", ""),
    "PipelineTaskSpec.RetryPolicy": (
        "max_retry_count backoff_duration backoff_factor backoff_max_duration",
        "",
        "",
        "",
    ),
    "PipelineTaskSpec.IteratorPolicy": ("parallelism_limit", "", "", ""),
    "DagOutputsSpec": ("artifacts parameters", "", "", ""),
    "DagOutputsSpec.DagOutputArtifactSpec": ("artifact_selectors", "", "", ""),
    "DagOutputsSpec.ArtifactSelectorSpec": ("producer_subtask output_artifact_key", "", "", ""),
    "DagOutputsSpec.DagOutputParameterSpec": ("value_from_parameter value_from_oneof", "", "", ""),
    "DagOutputsSpec.ParameterSelectorSpec": ("producer_subtask output_parameter_key", "", "", ""),
    "DagOutputsSpec.ParameterSelectorsSpec": ("parameter_selectors", "", "", ""),
    # Below what is said as a whole, and what a platform's document is made of.
    "SinglePlatformSpec": ("deployment_spec platform pipelineConfig", "config", "", ""),
    "PlatformDeploymentConfig": ("executors", "", "", ""),
    "PipelineConfig": (
        "workspace",
        "",
        "",
        (
            "resource_ttl_on_completion resource_ttl_on_success resource_ttl_on_failure"
            " active_deadline_seconds"
        ),
    ),
    "WorkspaceConfig": ("", "size kubernetes", "", ""),  # a folder here, as large as the disk
    "KubernetesWorkspaceConfig": ("", "pvc_spec_patch", "", ""),
    "TaskConfigPassthrough": ("", "", "", "field apply_to_task"),
    "PipelineDeploymentConfig": ("executors", "", "", ""),
    "PipelineDeploymentConfig.ExecutorSpec": ("container importer", "", "resolver custom_job", ""),
    "PipelineDeploymentConfig.PipelineContainerSpec": (
        "image command args resources env",
        "",
        "lifecycle",
        "",
    ),
    "PipelineDeploymentConfig.PipelineContainerSpec.Lifecycle": ("", "", "pre_cache_check", ""),
    "PipelineDeploymentConfig.PipelineContainerSpec.Lifecycle.Exec": ("", "", "command args", ""),
    "PipelineDeploymentConfig.PipelineContainerSpec.ResourceSpec": (
        (
            "cpu_limit memory_limit cpu_request resource_cpu_limit resource_memory_limit"
            " resource_cpu_request"
        ),
        "memory_request resource_memory_request",
        "",
        "accelerator",
    ),
    "PipelineDeploymentConfig.PipelineContainerSpec.ResourceSpec.AcceleratorConfig": (
        "",
        "",
        "",
        "type count resource_type resource_count",
    ),
    "PipelineDeploymentConfig.PipelineContainerSpec.EnvVar": ("name value", "", "", ""),
    "PipelineDeploymentConfig.ImporterSpec": (
        "artifact_uri type_schema metadata download_to_workspace",
        "reimport",
        "",
        "properties custom_properties",
    ),
    "PipelineDeploymentConfig.ResolverSpec": ("", "", "output_artifact_queries", ""),
    "PipelineDeploymentConfig.ResolverSpec.ArtifactQuerySpec": ("", "", "filter limit", ""),
    "PipelineDeploymentConfig.AIPlatformCustomJobSpec": ("", "", "custom_job", ""),
    "KubernetesExecutorConfig": (
        (
            "secret_as_volume secret_as_env pvc_mount config_map_as_volume config_map_as_env"
            " active_deadline_seconds generic_ephemeral_volume empty_dir_mounts"
        ),
        "",
        "",
        (
            "node_selector pod_metadata image_pull_secret image_pull_policy field_path_as_env"
            " tolerations node_affinity pod_affinity enabled_shared_memory security_context"
        ),
    ),
}
#: What is within a setting that is ignored as a whole needs no word of its own.
WITHIN = ("NodeSelector", "PodMetadata", "ImagePullSecret", "FieldPathAsEnv", "Toleration",
          "NodeAffinityTerm", "SelectorRequirement", "PodAffinityTerm", "EnabledSharedMemory",
          "SecurityContext")  # fmt: skip
#: What is within one that runs.
RUNS = {
    "SecretAsVolume": "secret_name mount_path optional secret_name_parameter",
    "SecretAsEnv": "secret_name key_to_env optional secret_name_parameter",
    "SecretAsEnv.SecretKeyToEnvMap": "secret_key env_var",
    "PvcMount": "task_output_parameter constant component_input_parameter mount_path"
                " pvc_name_parameter sub_path",
    "ConfigMapAsVolume": "config_map_name mount_path optional config_map_name_parameter",
    "ConfigMapAsEnv": "config_map_name key_to_env config_map_name_parameter optional",
    "ConfigMapAsEnv.ConfigMapKeyToEnvMap": "config_map_key env_var",
    # A folder of this machine's disk, whatever was asked for.
    "GenericEphemeralVolume": "volume_name mount_path access_modes size default_storage_class"
                              " storage_class_name metadata",
    "EmptyDirMount": "volume_name mount_path medium size_limit",
}  # fmt: skip


def fields() -> dict[str, set[str]]:
    """The messages that a package is made of, and their fields, as the protos have them."""
    found: dict[str, set[str]] = {}

    def walk(message: Any) -> None:
        name = message.full_name.partition(".")[2]
        if name in found or message.full_name.startswith("google."):
            return
        if not message.GetOptions().map_entry:
            found[name] = {field.name for field in message.fields}
        for field in message.fields:
            if field.message_type:
                walk(field.message_type)

    for top in (specs.PipelineSpec, specs.PipelineDeploymentConfig,
                kubernetes.KubernetesExecutorConfig):  # fmt: skip
        walk(top.DESCRIPTOR)
    return found


def test_somebody_has_decided_about_every_field() -> None:
    decided = {name: set(" ".join(parts).split()) for name, parts in TABLE.items()}
    decided |= {name: set(text.split()) for name, text in RUNS.items()}
    there = {name: some for name, some in fields().items()
             if name.split(".")[0] not in WITHIN}  # fmt: skip
    assert decided == there


def camel(word: str) -> str:
    first, *others = word.split("_")
    return first + "".join(one.capitalize() for one in others)


@pytest.mark.parametrize("field", TABLE["KubernetesExecutorConfig"][3].split())
def test_settings_of_kubernetes_that_are_ignored_are_said(field: str, tmp_path: Path) -> None:
    found = platform_of("comp-x", {camel(field): [{"any": "thing"}]}, Local(tmp_path))
    assert found.meaningless == (camel(field),)


def package(**changed: Any) -> list[Any]:
    """A package of one container component, with changes by place."""
    executor = {"container": {"image": "i", "command": ["true"]}}
    component: dict[str, Any] = {"executorLabel": "exec-x"}
    task: dict[str, Any] = {"componentRef": {"name": "comp-x"}}
    spec: dict[str, Any] = {
        "pipelineInfo": {"name": "p"}, "root": {"dag": {"tasks": {"x": task}}},
        "components": {"comp-x": component},
        "deploymentSpec": {"executors": {"exec-x": executor}},
    }  # fmt: skip
    platform: dict[str, Any] = {}
    places = {"spec": spec, "component": component, "task": task, "platform": platform,
              "container": executor["container"], "executor": executor}  # fmt: skip
    for place, values in changed.items():
        places[place].update(values)
    return [spec, {"platforms": {"kubernetes": platform}}]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"spec": {"defaultPipelineRoot": "s3://x"}}, "defaultPipelineRoot"),
        ({"component": {"singlePlatformSpecs": [{"platform": "k"}]}}, "singlePlatformSpecs"),
        ({"component": {"taskConfigPassthroughs": [{"field": 1}]}}, "taskConfigPassthroughs"),
        ({"component": {"outputDefinitions": {"artifacts": {"a": {"properties": {"k": 1}}}}}},
         "properties"),
        ({"component": {"outputDefinitions": {"artifacts": {"a": {"metadata": {"k": 1}}}}}},
         "properties"),
        ({"platform": {"pipelineConfig": {"activeDeadlineSeconds": 5}}}, "activeDeadlineSeconds"),
        ({"platform": {"pipelineConfig": {"resourceTtlOnCompletion": 5}}},
         "resourceTtlOnCompletion"),
    ],
)  # fmt: skip
def test_what_is_ignored_is_said(changed: dict[str, Any], says: str) -> None:
    assert parse(package(**changed)).ignored == (SAID[says],)
    assert parse(package()).ignored == ()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"container": {"lifecycle": {"preCacheCheck": {"command": ["x"]}}}},
         "executor x has lifecycle, a check before the cache"),
        ({"task": {"inputs": {"parameters": {"n": {"runtimeValue": {"constantValue":
          {"intValue": "3"}}}}}}}, "task x has constantValue, a constant as KFP 1.x wrote it"),
        ({"spec": {"deploymentSpec": {"executors": {"exec-x": {"resolver": {}}}}}},
         "component comp-x runs resolver, which only Kubeflow can"),
        ({"spec": {"deploymentSpec": {"executors": {"exec-x": {"customJob": {}}}}}},
         "component comp-x runs customJob, which only Kubeflow can"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_by_name(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse(package(**changed))
