"""Sinks: the formats in which a data set holds its rows; one file for each format."""
