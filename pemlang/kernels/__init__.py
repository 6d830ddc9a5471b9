"""The arithmetic itself, on NumPy arrays."""
