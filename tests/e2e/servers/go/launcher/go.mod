// What runs a pipeline's container on the end-to-end node, in place of Kubeflow Pipelines' launcher.
module ctflow/tests/e2e/servers/launcher

go 1.26.0
