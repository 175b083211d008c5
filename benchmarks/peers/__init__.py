"""The peers: each the same task, images in TFRecords to vectors in files, by other means.

Each module has a function `run(task)`, runs in a process of its own, and is written the way its
library's documentation shows.
"""
