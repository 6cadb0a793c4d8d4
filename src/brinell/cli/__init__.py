"""The command line: thin over the lab. Everything heavy is imported inside the command that needs it."""

from brinell.cli import catalogue, judging, measuring, runs, study  # each registers its commands
from brinell.cli.app import main

__all__ = ["catalogue", "judging", "main", "measuring", "runs", "study"]
