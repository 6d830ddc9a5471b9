"""What a command does: check, plan, build, sweep."""
