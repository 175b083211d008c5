"""Image formats: one module for each, `base.py` with their protocol, and `registry.py` with their list."""
