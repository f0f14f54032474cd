"""Adapters: one module an outside system, each behind a port of ``ctflow.ports``."""
