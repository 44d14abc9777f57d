"""From observations to network inputs."""
