"""What changed, in the algebra and in the weights."""
