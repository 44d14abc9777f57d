"""Memories: rollouts."""
