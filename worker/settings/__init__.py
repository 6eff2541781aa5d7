"""What can be set, and what is said of settings that cannot be used."""
