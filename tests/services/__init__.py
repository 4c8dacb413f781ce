"""Real Redis and MongoDB servers for tests: found, started as children, ended by pid."""
