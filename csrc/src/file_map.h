/* Memory that is a file's page cache: what is stored there outlives the process. */
#ifndef LOGSTORE_FILE_MAP_H
#define LOGSTORE_FILE_MAP_H

#include "logstore/file.h"

/* Maps the first `size` bytes of a file that holds at least as many, all of them written, for reading and
 * writing, shared; the file may be closed then. LS_UNSUPPORTED where the system has no such maps, or the file
 * system might need space for a store into bytes that were written before; LS_IO where the process may not keep as much
 * in memory. */
ls_status ls_file_map(ls_file *file, size_t size, void **out, ls_fault *fault);
void ls_file_unmap(void *map, size_t size);

#endif
