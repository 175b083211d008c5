"""Files on local disk and in object stores, their checksums, and the lock of a data set."""
