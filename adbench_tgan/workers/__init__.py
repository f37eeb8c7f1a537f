"""Processes that run jobs: on this machine, several on one GPU, and on the machines of a Ray cluster."""
