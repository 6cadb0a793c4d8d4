"""Numbers and checks read off several measured cells."""
