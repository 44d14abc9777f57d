"""Recurrent cells and their gradients by hand."""
