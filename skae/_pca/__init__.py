"""Principal components: where every network starts."""
