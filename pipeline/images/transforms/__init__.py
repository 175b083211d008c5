"""Known transforms: presets by name, and readers of the files that other libraries write."""
