"""The files of a run on disk: workdir, checkpoints with manifests, metadata, metrics."""
