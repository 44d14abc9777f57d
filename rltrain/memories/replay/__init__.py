"""Replay: the transitions that an off-policy agent draws batches from."""
