"""Layers, as each library has them."""
