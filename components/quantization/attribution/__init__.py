"""Where accuracy went on the way from floats to integers: by step, by layer, by output and by kernel."""
