"""provd measured beside its peers and its floors, in one run on one machine (`make bench`)."""
