"""The tests, and the services they run against."""
