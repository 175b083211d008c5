"""A module on disk: its format, signatures, digest and safety."""
