"""Rollouts: what an on-policy agent collects for one update."""
