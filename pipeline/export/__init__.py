"""Data sets in the form of other systems: a file for each destination."""
