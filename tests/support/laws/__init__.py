"""Drawn expressions over a pool of adapters, and what they mean in float64."""
