"""Steps on this machine: contexts, snapshots, Python environments."""
