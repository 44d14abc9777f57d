"""Encoders: what makes features of observations that are not rows of numbers, or by a module of one's own."""
