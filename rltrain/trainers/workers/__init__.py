"""Workers of the parallel trainer: processes that each own an agent."""
