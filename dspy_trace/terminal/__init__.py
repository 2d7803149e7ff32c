"""Traces in the terminal, drawn with rich: as a tree on a time axis, with what was said, or one a line."""
