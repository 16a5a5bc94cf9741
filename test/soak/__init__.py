"""A steady flow of Kafka records while transactions stay open: nothing but data may grow. `make soak` (see __main__.py)."""
