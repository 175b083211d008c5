"""Finding the inputs of a run and reading them; one file for each kind of input."""
