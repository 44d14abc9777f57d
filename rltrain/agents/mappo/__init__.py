"""Multi-agent proximal policy optimisation with a centralised critic."""
