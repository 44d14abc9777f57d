"""Agents, a folder per algorithm."""
