"""Networks and policy heads."""
