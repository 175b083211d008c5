"""The vocabulary that all others share: errors, settings, records, and what every command does around its work."""
