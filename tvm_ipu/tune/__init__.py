"""Search for faster kernels. Nothing is here yet."""
