"""The binding: C structs with Python lifetimes, buffers, and exceptions. No policy."""
