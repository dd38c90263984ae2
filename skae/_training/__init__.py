"""Training: progress, callbacks, schedule, selection, the net, and fitting."""
