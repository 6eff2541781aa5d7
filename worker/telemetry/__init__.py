"""What the worker tells about itself."""
