"""Who works on what: the adapters of the work queue."""
