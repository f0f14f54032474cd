"""A release as files of git."""
