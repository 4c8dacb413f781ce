"""Flowcept's own consumer, as `flowcept --start-consumption-services` runs it: from Redis into MongoDB, until killed."""

from flowcept import Flowcept

Flowcept.start_consumption_services(check_safe_stops=False)
