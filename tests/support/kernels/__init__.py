"""Drawn programs, and ways to run them."""
