"""The commands behind `rltrain`; each returns its exit status."""
