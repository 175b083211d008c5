"""Shared definitions: errors, settings, records, and the frame of every command."""
