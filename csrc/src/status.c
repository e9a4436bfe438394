#include "logstore/status.h"

const char *ls_status_name(ls_status status) {
    /* Without a default, the compiler reports a status that was added and not named. */
    switch (status) {
    case LS_OK: return "OK";
    case LS_END: return "END";
    case LS_TORN: return "TORN";
    case LS_CORRUPT: return "CORRUPT";
    case LS_UNSUPPORTED: return "UNSUPPORTED";
    case LS_INVALID_ARGUMENT: return "INVALID_ARGUMENT";
    case LS_TOO_LARGE: return "TOO_LARGE";
    case LS_FULL: return "FULL";
    case LS_OUT_OF_RANGE: return "OUT_OF_RANGE";
    case LS_NO_MEMORY: return "NO_MEMORY";
    case LS_IO: return "IO";
    case LS_DISK_FULL: return "DISK_FULL";
    case LS_NO_DESCRIPTOR: return "NO_DESCRIPTOR";
    case LS_STATUS_COUNT: break;
    }
    return "UNKNOWN";
}
