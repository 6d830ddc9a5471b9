"""What an output is on disk: staged, written, described, verified and signed."""
