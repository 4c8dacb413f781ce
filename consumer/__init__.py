"""`provd consume`: takes frames from Redis Streams and writes them to the store."""
