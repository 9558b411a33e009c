"""25 well-known models and GPUs, compared with public figures."""
