"""The writer's end of the table by which readers in other processes are woken (docs/format/waiting.md)."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memset
from logstore._native.core cimport (
    LS_OK,
    LS_WAKE_TABLE_BYTES,
    ls_fault,
    ls_wake_bucket,
    ls_wake_table_close,
    ls_wake_table_format,
    ls_wake_table_open,
    ls_wake_table_sweep,
)
from logstore._native.faults cimport raise_fault

import os

cdef int forks = 0


def _forked():
    global forks
    forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


cdef int forks_count() noexcept:
    return forks


cdef class WaitingReaders:
    """The table of a data directory, which this process has open for writing. Its logs signal readers by it.

    Raises
    ------
    CorruptDataError, UnsupportedFormatError
        What stands there is no such table, or can't be used on this system.
    StorageFailureError
    """

    def __cinit__(self, str path not None):
        cdef ls_fault fault
        cdef bytes encoded = os.fsencode(path)
        memset(&self.table, 0, sizeof(self.table))
        if ls_wake_table_open(PyBytes_AS_STRING(encoded), &self.table, &fault) != LS_OK:
            raise_fault(&fault, path)
        ls_wake_table_sweep(&self.table)

    def __dealloc__(self):
        ls_wake_table_close(&self.table)

    cdef void forget_killed(self) noexcept:
        """They wait no more. (The core that opened the table knows its file: each extension has one of its own.)"""
        if self.table.map != NULL:
            ls_wake_table_sweep(&self.table)

    def close(self):
        """Lets go of the file, by which readers learn that this writer is done; logs signal nobody after. Idempotent."""
        ls_wake_table_close(&self.table)


def empty_table():
    """The bytes of a table in which nobody waits."""
    cdef bytes content = bytes(LS_WAKE_TABLE_BYTES)
    ls_wake_table_format(<uint8_t *>PyBytes_AS_STRING(content))
    return content


cdef uint32_t bucket_of(object directory) except? 0xffffffff:
    """What a log is known by in the table: its directory's name decides."""
    cdef bytes name = os.fsencode(os.path.basename(directory))
    return ls_wake_bucket(<const uint8_t *>PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name))
