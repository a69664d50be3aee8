"""Job queues: ours beside others, each with a worker process of its own on the same engine."""
