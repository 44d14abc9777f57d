"""Teams of named agents, by composition over algorithms for one agent."""
