"""What on- and off-policy algorithms have in common."""
