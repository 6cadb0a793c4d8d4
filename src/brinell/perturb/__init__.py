"""Corruptions and attacks, one published method or family per file."""
