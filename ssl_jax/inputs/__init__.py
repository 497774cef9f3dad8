"""Inputs: one package per modality, which says what one example is."""
