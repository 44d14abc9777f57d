"""Encoders of one's own."""
