"""Runs and comparisons as pages: HTML files that need nothing but themselves, rendered from templates."""
