"""What becomes of runs once they are trained: found, read, compared. Nothing here imports hydra, torch or jax."""
