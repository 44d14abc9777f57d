"""Returns and advantages."""
