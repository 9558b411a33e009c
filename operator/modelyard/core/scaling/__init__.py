"""How large a deployment should be: offered load, its forecast, the headroom above it, and the way down."""
