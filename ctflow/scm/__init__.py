"""The project's git repository."""
