"""From a checked recipe to files."""
