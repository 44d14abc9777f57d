"""rltrain: a command-line training runner for reinforcement learning."""

__version__ = "0.1.0"
