"""Environments: one simulator, one file."""
