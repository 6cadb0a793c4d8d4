"""Networks to build, and networks to load."""
