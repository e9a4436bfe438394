"""CRC-32C and murmur2, as the core computes them."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from logstore._native.core cimport (
    ls_crc32c_available,
    ls_crc32c_combine as c_combine,
    ls_crc32c_extend,
    ls_crc32c_implementation,
    ls_crc32c_in_use,
    ls_murmur2,
    ls_partition_for_key,
)

from logstore.errors import InvalidRequestError


def crc32c(const uint8_t[::1] data, uint32_t crc=0):
    """CRC-32C (Castagnoli) of ``data`` appended to data whose CRC is ``crc``.

    Parameters
    ----------
    data : bytes-like
    crc : int
        Start value; 0 for none.

    Returns
    -------
    int
        In ``[0, 2**32)``. Thread-safe; the GIL is released for 64 KiB and more.
    """
    cdef size_t size = data.shape[0]
    cdef const uint8_t *at = &data[0] if size else NULL
    if size < 65536:
        return ls_crc32c_extend(crc, at, size)
    with nogil:
        crc = ls_crc32c_extend(crc, at, size)
    return crc


def crc32c_with(str implementation, const uint8_t[::1] data, uint32_t crc=0):
    """`crc32c` by the implementation of that name; for tests and benchmarks.

    Raises
    ------
    InvalidRequestError
        This CPU has no implementation of that name.
    """
    cdef const ls_crc32c_implementation *found
    cdef int i = 0
    cdef size_t size = data.shape[0]
    cdef const uint8_t *at = &data[0] if size else NULL
    while True:
        found = ls_crc32c_available(i)
        if found == NULL:
            raise InvalidRequestError(
                f"no CRC-32C implementation {implementation!r} here; there are {', '.join(crc32c_implementations())}"
            )
        if found.name.decode() == implementation:
            break
        i += 1
    with nogil:
        crc = found.extend(crc, at, size)
    return crc


def crc32c_combine(uint32_t crc_a, uint32_t crc_b, uint64_t size_b):
    """The CRC-32C of A followed by B, from both CRCs and the size of B in bytes."""
    return c_combine(crc_a, crc_b, size_b)


def crc32c_implementations():
    """Names of the implementations this CPU can run, the portable one first.

    Returns
    -------
    list[str]
    """
    cdef const ls_crc32c_implementation *found
    names = []
    while True:
        found = ls_crc32c_available(len(names))
        if found == NULL:
            return names
        names.append(found.name.decode())


def crc32c_implementation():
    """Name of the implementation in use.

    Returns
    -------
    str
    """
    return ls_crc32c_in_use().name.decode()


def murmur2(const uint8_t[::1] key):
    """Kafka's hash of a record key.

    Returns
    -------
    int
        In ``[0, 2**32)``.
    """
    cdef size_t size = key.shape[0]
    return ls_murmur2(&key[0] if size else <const uint8_t *>b"", size)


def partition_for_key(const uint8_t[::1] key, int partitions):
    """The partition Kafka's default partitioner gives a key: ``(murmur2(key) & 0x7fffffff) % partitions``.

    Parameters
    ----------
    key : bytes-like
    partitions : int
        Number of partitions, at least 1.

    Returns
    -------
    int
    """
    if partitions < 1:
        raise InvalidRequestError(f"partitions must be at least 1, not {partitions}")
    cdef size_t size = key.shape[0]
    return ls_partition_for_key(&key[0] if size else <const uint8_t *>b"", size, partitions)
