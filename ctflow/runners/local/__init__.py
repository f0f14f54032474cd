"""The embedded runner: executes compiled KFP packages on this machine."""
