"""The wire: one socket with its encoder, its decoder and its queue of awaited replies."""
