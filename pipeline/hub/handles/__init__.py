"""The kinds of module handles, one file each; `registry.py` lists them."""
