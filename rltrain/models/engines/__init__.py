"""Engines: quicker ways to what a network's `forward` gives, chosen by a fixed table."""
