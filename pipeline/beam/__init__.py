"""The PTransforms, the pipeline of a wave, Beam's options and runners."""
