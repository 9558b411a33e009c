"""How much a tenant may ask for per minute: token buckets, without a clock."""
