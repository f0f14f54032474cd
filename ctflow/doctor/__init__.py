"""Looks at the systems outside, a module each; ``ctflow.wiring.doctor`` chooses among them.

Each class is a ``ctflow.ports.doctor.Check``.
"""
