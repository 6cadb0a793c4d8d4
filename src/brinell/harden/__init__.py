"""Ways to a more robust network."""
