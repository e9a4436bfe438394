"""The same work on more partitions, longer logs, more threads: time, open files, memory."""
