# Payloads of batches, compressed and decompressed.

from libc.stdint cimport int64_t, uint8_t
from logstore._native.core cimport ls_batch_header


# The records of a compressed batch, as bytes; where it stands is for errors. CorruptDataError, UnsupportedFormatError.
cdef object decompressed_payload(int codec, object payload, str path, int64_t position)

# A sealed, uncompressed batch with its payload compressed; *header becomes that of the result.
cdef bytes compressed_batch(ls_batch_header *header, const uint8_t *batch, size_t batch_bytes, int codec, object level)
