"""What of a pushed model must hold, wherever it lies: its name, its manifest, and which version comes before which."""
