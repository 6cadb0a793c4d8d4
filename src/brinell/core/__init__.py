"""The nouns: small, strictly typed, no item lives here."""
