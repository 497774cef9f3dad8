"""Figures of a study's page, returned as the content of PNG files."""
