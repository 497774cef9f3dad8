"""Backbones in the formats of other tools."""
