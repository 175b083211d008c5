"""The TFRecord format and `tf.train.Example`: reading any part of a file, sound or damaged, and writing."""
