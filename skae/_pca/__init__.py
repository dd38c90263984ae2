"""Principal components, from which networks are initialized."""
