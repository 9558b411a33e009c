"""What was used and spent: counts become hours, hours become lines with dollars, and all of it survives restarts."""
