"""RabbitMQ: receive, publish, acknowledge; the only folder that imports aio_pika, aiormq, pamqp."""
