"""Telling files apart: which one a name stands for."""

from cpython.bytes cimport PyBytes_AS_STRING
from logstore._native.core cimport LS_OK, LS_UNSUPPORTED, ls_fault, ls_file_identify, ls_file_identity, ls_status
from logstore._native.faults cimport raise_fault

import os


def file_identity(str path):
    """Which file a name stands for, and since which mount.

    Parameters
    ----------
    path : str

    Returns
    -------
    tuple[int, int, int, int] or None
        ``(mount_id, device, inode, birth_ns)``, which no two files of one boot share; None where the system does not say,
        or the file system is not known to be local.

    Raises
    ------
    StorageFailureError
    """
    cdef ls_file_identity found
    cdef ls_fault fault
    cdef bytes encoded = os.fsencode(path)
    cdef ls_status status = ls_file_identify(PyBytes_AS_STRING(encoded), &found, &fault)
    if status == LS_OK:
        return found.mount_id, found.device, found.inode, found.birth_ns
    if status == LS_UNSUPPORTED:
        return None
    raise_fault(&fault, path)
