"""The TFRecord format and `tf.train.Example`: writing files, and reading any part of an intact or damaged file."""
