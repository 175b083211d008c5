"""TensorFlow Hub modules: where they come from, how they are read, and one that is built in."""
