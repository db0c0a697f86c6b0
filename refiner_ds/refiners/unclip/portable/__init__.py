"""What travels with an export: the files here are copied beside the weights, so they import nothing of refiner_ds."""
