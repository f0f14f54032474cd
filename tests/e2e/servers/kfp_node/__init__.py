"""Runs of the stand-in for Kubeflow Pipelines on the node: Argo workflows of real pods."""
