"""Studies: a grid of trainings that resumes, and its table beside SimCLR's published one."""
