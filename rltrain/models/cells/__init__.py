"""What remembers: recurrent cells."""
