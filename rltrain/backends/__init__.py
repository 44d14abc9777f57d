"""Backends: arrays in, arrays out."""
