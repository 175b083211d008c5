"""Image formats: one module for each; `base.py` has their protocol, `registry.py` their list."""
