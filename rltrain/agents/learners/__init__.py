"""What learns: networks with their optimisers and targets, and what a gradient step takes and gives."""
