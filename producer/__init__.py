"""The library inside the user's program.

Everything here lives by G1: it never raises into the traced code, never changes what that code returns or raises,
never waits for a network on its path, and never keeps its process alive.
"""
