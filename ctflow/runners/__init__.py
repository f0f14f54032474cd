"""Runners of compiled packages, and what runs tasks in containers."""
