"""Evaluations of frozen features. They receive functions and arrays, and alone read labels."""
