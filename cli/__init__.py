"""The command line: one module per command group, and the only place that prints.

Data goes to stdout; messages, progress and errors go to stderr. Everything heavy (rich, redis, pymongo) is imported
inside the functions that need it, so that `provd run` starts quickly on a shared file system.
"""
