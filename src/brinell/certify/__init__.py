"""Lower bounds: what can be guaranteed."""
