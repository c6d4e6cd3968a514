"""Argument validation, files, progress and Markdown: what every other package may use."""
