"""Memories: rollouts, which are learned from once, and replay, which is drawn from again and again."""
