"""The write and the read side of the store: MongoDB, and the embedded store, behind one interface."""
