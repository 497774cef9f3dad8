"""Processes of a training job: start-up, shared stop on signals, watchdog, supervisor."""
