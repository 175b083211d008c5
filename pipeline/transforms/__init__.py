"""The PTransforms: thin layers over the functions of the package."""
