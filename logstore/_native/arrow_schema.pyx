"""The schema of records as an Arrow stream."""

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset
from logstore._native.arrow_abi cimport ARROW_FLAG_NULLABLE, ArrowSchema

from logstore.errors import InvalidRequestError

cdef const char **field_names = ["partition", "offset", "timestamp", "key", "value", "headers"]
cdef const char **field_formats = ["i", "l", "tsm:UTC", "z", "z", "+l"]


cdef void release_schema(ArrowSchema *schema) noexcept nogil:
    cdef int64_t i
    for i in range(schema.n_children):
        if schema.children[i] != NULL:
            if schema.children[i].release != NULL:
                schema.children[i].release(schema.children[i])
            free(schema.children[i])
    free(schema.children)
    schema.children = NULL
    schema.n_children = 0
    schema.release = NULL


cdef bint open_schema(ArrowSchema *out, const char *name, const char *format, bint nullable,
                      int64_t children) noexcept nogil:
    """A field whose children are still to be opened; False without memory. Names and formats are literals."""
    cdef int64_t i
    memset(out, 0, sizeof(ArrowSchema))
    out.name = name
    out.format = format
    out.flags = ARROW_FLAG_NULLABLE if nullable else 0
    out.release = release_schema
    if children == 0:
        return True
    out.children = <ArrowSchema **>calloc(children, sizeof(ArrowSchema *))
    if out.children == NULL:
        return False
    out.n_children = children
    for i in range(children):
        out.children[i] = <ArrowSchema *>calloc(1, sizeof(ArrowSchema))
        if out.children[i] == NULL:
            return False
    return True


cdef bint fill_schema(ArrowSchema *out) noexcept nogil:
    cdef int i
    cdef ArrowSchema *headers
    cdef ArrowSchema *item
    if not open_schema(out, "", "+s", False, FIELDS):
        return False
    for i in range(FIELDS):
        # Null: a timestamp of -1, a key, a value.
        if not open_schema(out.children[i], field_names[i], field_formats[i], 2 <= i <= 4, 1 if i == 5 else 0):
            return False
    headers = out.children[5]
    if not open_schema(headers.children[0], "item", "+s", False, 2):
        return False
    item = headers.children[0]
    return open_schema(item.children[0], "key", "u", False, 0) and open_schema(item.children[1], "value", "z", True, 0)


cdef void free_schema_capsule(object capsule) noexcept:
    cdef ArrowSchema *schema = <ArrowSchema *>PyCapsule_GetPointer(capsule, "arrow_schema")
    if schema.release != NULL:
        schema.release(schema)
    free(schema)


def schema_capsule():
    """The schema of a scan, as an ``arrow_schema`` capsule.

    Returns
    -------
    PyCapsule
    """
    cdef ArrowSchema *schema = <ArrowSchema *>malloc(sizeof(ArrowSchema))
    if schema == NULL:
        raise MemoryError("no memory for an Arrow schema")
    if not fill_schema(schema):
        release_schema(schema)
        free(schema)
        raise MemoryError("no memory for an Arrow schema")
    return PyCapsule_New(schema, "arrow_schema", free_schema_capsule)


cdef int check_requested(object requested_schema) except -1:
    cdef const ArrowSchema *requested
    cdef int64_t i
    requested = <const ArrowSchema *>PyCapsule_GetPointer(requested_schema, "arrow_schema")
    names = []
    for i in range(requested.n_children):
        name = requested.children[i].name
        names.append("" if name == NULL else (<bytes>name).decode("utf-8", "replace"))
    ours = [(<bytes>field_names[i]).decode() for i in range(FIELDS)]
    if names != ours:
        raise InvalidRequestError(f"a scan has the fields {ours}, not {names}; select from it after reading")
    return 0
