"""Hostile messages against the codec and a running worker; the programs are in `dev/fuzz`."""
