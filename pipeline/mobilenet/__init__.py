"""The built-in family of networks, MobileNetV2, and its export from TF-Slim checkpoints."""
