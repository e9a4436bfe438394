"""The smallest pieces, each alone: checksums, varints, batches, indexes, the partitioner, codecs."""
