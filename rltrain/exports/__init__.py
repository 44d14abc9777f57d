"""Policies as files that need nothing of this project: what an environment gives in, what it takes out."""
