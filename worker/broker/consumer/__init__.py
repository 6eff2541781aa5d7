"""From the commands queues to the pipeline, and back as acknowledgements in order."""
