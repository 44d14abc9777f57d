"""Losses and normalisers, written once."""
