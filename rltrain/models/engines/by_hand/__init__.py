"""Perceptrons by hand."""
