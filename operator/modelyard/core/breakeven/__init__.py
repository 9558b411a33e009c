"""Where a route's requests cost least: own deployments, or a provider that is paid by the token."""
