"""What the command line needs of the broker: publish, request, read the stream and dead letters."""
