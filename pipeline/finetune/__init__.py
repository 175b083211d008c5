"""Fine-tuning a module on labelled images."""
