"""Studies: resumable grids of training runs, and their tables beside SimCLR's published table."""
