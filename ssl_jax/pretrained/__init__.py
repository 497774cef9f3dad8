"""Encoders that already have weights: frozen backbones, classifiers, initial weights of a run."""
