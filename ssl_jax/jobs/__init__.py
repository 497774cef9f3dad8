"""Processes of a training job: start-up, coordinated stop, watchdog, restarts, run history."""
