"""Kubeflow Pipelines: uploads pipeline versions, and runs them on a cluster."""
