"""Trainers of other projects, one file each, for the benchmark scripts; each runs in a process of its own."""
