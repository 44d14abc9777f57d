"""What algorithms that learn from a memory of past transitions have in common."""
