"""Data: `sources` opens data sources; `pipeline` decides which examples form which batch."""
