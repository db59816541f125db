"""Whether an integer model is good enough: running it exactly as a device does, and gates on what it scores."""
