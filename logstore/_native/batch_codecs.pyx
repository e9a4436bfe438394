"""Compressed batches: the codecs, handed down by the layer above, and what they are asked."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t
from libc.string cimport memcpy
from logstore._native.core cimport (
    LS_BATCH_HEADER_BYTES,
    LS_CODEC_MASK,
    ls_batch_crc,
    ls_batch_header,
    ls_batch_header_write,
)

from logstore.errors import RecordTooLargeError

# Set once by logstore.records, which sits above this layer: (codec, payload, limit_bytes) -> bytes, and
# (codec, payload, level) -> bytes.
cdef object _decompress = None
cdef object _compress = None

# The largest payload that a compressed batch may unfold to.
cdef Py_ssize_t DECOMPRESSED_BYTES_MAX = 1 << 30


def set_codecs(compress, decompress):
    """Hands the codecs in; called once by `logstore.records`."""
    global _compress, _decompress
    _compress = compress
    _decompress = decompress


cdef object decompressed_payload(int codec, object payload, str path, int64_t position):
    if _decompress is None:
        raise AssertionError("logstore.records was not imported")
    return _decompress(codec, payload, DECOMPRESSED_BYTES_MAX, path, position)


cdef bytes compressed_batch(ls_batch_header *header, const uint8_t *batch, size_t batch_bytes, int codec,
                            object level):
    cdef bytes out
    cdef const uint8_t[::1] payload
    cdef uint8_t *at
    if _compress is None:
        raise AssertionError("logstore.records was not imported")
    payload = _compress(codec, PyBytes_FromStringAndSize(<const char *>batch + LS_BATCH_HEADER_BYTES,
                                                         batch_bytes - LS_BATCH_HEADER_BYTES), level)
    if payload.shape[0] > 0x7fffffff - LS_BATCH_HEADER_BYTES:
        raise RecordTooLargeError(f"a batch of {payload.shape[0]} bytes passes the format's limit of 2 GiB")
    out = PyBytes_FromStringAndSize(NULL, LS_BATCH_HEADER_BYTES + payload.shape[0])
    at = <uint8_t *>PyBytes_AS_STRING(out)
    memcpy(at + LS_BATCH_HEADER_BYTES, &payload[0], payload.shape[0])
    header.batch_length = <int32_t>(LS_BATCH_HEADER_BYTES - 12 + payload.shape[0])
    header.attributes = <int16_t>((header.attributes & ~LS_CODEC_MASK) | codec)
    ls_batch_header_write(header, at)
    header.crc = ls_batch_crc(at, PyBytes_GET_SIZE(out))
    ls_batch_header_write(header, at)
    return out
