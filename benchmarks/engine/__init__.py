"""One log: appending, reading, looking up, rolling, opening, compacting, flushing together."""
