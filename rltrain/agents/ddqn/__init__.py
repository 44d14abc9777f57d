"""Double deep Q-learning."""
