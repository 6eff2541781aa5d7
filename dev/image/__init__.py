"""The container image, built and tried where there is no Docker engine: see `make image-test`."""
