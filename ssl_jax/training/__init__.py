"""The training step, the training loop, and the collapse signals that the loop logs."""
