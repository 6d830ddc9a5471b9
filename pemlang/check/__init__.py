"""Names, kinds and types: tree to typed graph."""
