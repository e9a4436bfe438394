"""Producers and consumers through the calls that users make."""
