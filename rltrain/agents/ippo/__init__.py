"""Independent proximal policy optimisation."""
