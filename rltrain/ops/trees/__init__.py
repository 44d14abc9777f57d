"""Arrays by name, and arrays of either library."""
