# The fields of a record, and their Arrow schema.

from logstore._native.arrow_abi cimport ArrowSchema


cdef enum:
    FIELDS = 6


# False without memory, and then `out` is to be released.
cdef bint fill_schema(ArrowSchema *out) noexcept nogil
cdef void release_schema(ArrowSchema *schema) noexcept nogil

# A request may choose other types for the same fields, which the caller casts to; not other fields.
cdef int check_requested(object requested_schema) except -1
