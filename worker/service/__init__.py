"""The composition root, and several processes under one parent."""
