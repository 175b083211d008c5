"""The PTransforms, the pipeline of a wave, and everything that knows Beam."""
