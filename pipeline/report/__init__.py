"""The HTML page about a data set, and the search for the nearest vectors."""
