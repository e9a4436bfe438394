"""What people use today instead, each at its best: one file a peer."""
