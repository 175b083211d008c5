"""The output data set: its files, its manifests, planning, committing, reading and checking."""
