"""What a name or a path of a recipe stands for: on disk, on the hub, in the lock."""
