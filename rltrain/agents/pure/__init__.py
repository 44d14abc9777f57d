"""Algorithms as pure functions, for JAX."""
