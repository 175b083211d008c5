"""Sinks: the output formats of a data set; one file for each format."""
