"""Data: `sources` (where examples come from) and `pipeline` (which ones, when, in which batch)."""
