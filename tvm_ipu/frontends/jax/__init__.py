"""JAX functions, by following them with example arguments."""
