"""What a person reads about adapters and messages."""
