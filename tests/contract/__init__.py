"""Contract tests: one class per interface, run against every implementation of it."""
