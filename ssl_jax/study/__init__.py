"""Studies: resumable grids of training runs, with tables and figures of their accuracies."""
