"""The only folder that imports aio_pika and aiormq."""
