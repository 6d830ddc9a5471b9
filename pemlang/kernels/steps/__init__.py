"""The kinds of steps, by what they act on."""
