"""Bytes to commands, and events to bytes; never raises for what a message holds."""
