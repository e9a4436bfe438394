# Fault reports of the core turned into exceptions: the one table from status to class.

from logstore._native.core cimport ls_fault


# Raises the exception for a fault. `path` names the file ("<memory>" for bytes handed in); `position`
# is added to the fault's own where that is relative to something.
cdef int raise_fault(const ls_fault *fault, object path) except -1
