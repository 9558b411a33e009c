"""The control plane of the gateway: delta ADS server, resources, counters."""
