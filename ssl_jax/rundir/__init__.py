"""The files of a run: workdir, checkpoints with manifests, metadata, metrics."""
