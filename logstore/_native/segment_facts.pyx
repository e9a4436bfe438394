"""What is known of many segments without looking into them."""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport INT64_MAX, int64_t
from libc.stdlib cimport free, malloc
from logstore._native.core cimport LS_OK, ls_fault, ls_file_facts, ls_file_look_at_logs, ls_status
from logstore._native.faults cimport raise_fault
from logstore._native.segment cimport Segment

import os


def learn_facts(tuple segments not None, str directory not None, dict digests not None):
    """Has sealed segments know what `Segment.facts` gives, all at once, as far as their digests say it.

    Parameters
    ----------
    segments : tuple of Segment
        Of one directory.
    directory : str
    digests : dict of int to SegmentDigest
        By base offset. One counts if the file has its size.

    Raises
    ------
    StorageFailureError
    """
    cdef list asked = []
    cdef Segment segment
    cdef ls_file_facts *found
    cdef int64_t *bases
    cdef size_t count
    cdef size_t i
    cdef ls_fault fault
    cdef ls_status status
    cdef bytes encoded = os.fsencode(directory)
    cdef const char *name = PyBytes_AS_STRING(encoded)
    for segment in segments:
        # A name that ends otherwise is one in the middle of a swap.
        if segment.knows_facts or segment.segment != NULL or segment.options.end_offset_max == INT64_MAX:
            continue
        if segment.path.endswith(".log"):
            asked.append(segment)
    if not asked or not digests:
        return
    count = len(asked)
    bases = <int64_t *>malloc(count * (sizeof(int64_t) + sizeof(ls_file_facts)))
    if bases == NULL:
        raise MemoryError(f"no memory for what is known of {count} segments")
    try:
        found = <ls_file_facts *>(bases + count)
        for i in range(count):
            bases[i] = (<Segment>asked[i]).base_offset
        with nogil:
            status = ls_file_look_at_logs(name, bases, count, found, &fault)
        if status != LS_OK:
            raise_fault(&fault, directory)
        for i in range(count):
            digest = digests.get(bases[i])
            if digest is None or digest.is_growing or found[i].size_bytes <= 0:
                continue
            if digest.size_bytes == found[i].size_bytes:
                (<Segment>asked[i]).know_facts(found[i].size_bytes, digest.max_timestamp, found[i].modified_ms)
    finally:
        free(bases)
