"""Absl programs, one per method."""
