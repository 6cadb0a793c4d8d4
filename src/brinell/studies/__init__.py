"""Published experiments, one file per paper."""
