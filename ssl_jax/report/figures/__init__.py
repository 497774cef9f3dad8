"""Figures of a report: each module draws one kind of figure and saves it as a PNG file."""
