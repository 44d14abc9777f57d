"""Policy heads: distributions over actions."""
