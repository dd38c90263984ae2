"""Networks: architecture, layers, projection, units and state."""
