"""Raw media -> one embedding per clip."""
