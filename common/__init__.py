"""What the two ends of the pipe must agree on.

A module belongs here only if a disagreement between producer and consumer about it would corrupt data.
Everything in this package imports the standard library and `msgpack`, nothing else; PyYAML is loaded by
`settings` when there is a settings file to read.
"""
