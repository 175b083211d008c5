"""The peers: each turns images in TFRecords into vectors in files, with another library.

Each module has a function `run(task)`, runs in a separate process, and follows the documentation of its
library.
"""
