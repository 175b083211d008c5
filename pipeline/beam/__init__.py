"""The PTransforms, the pipeline of a wave, and the use of Beam's options and insides."""
