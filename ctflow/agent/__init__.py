"""Loops: the queue of pushes to a repository on this machine."""
