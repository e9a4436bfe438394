/* Keys on their way from records into the map: hashed by either thread, put by the one that owns the compactor. */
#ifndef LOGSTORE_COMPACTION_KEYS_H
#define LOGSTORE_COMPACTION_KEYS_H

#include "compaction_walk.h"
#include "key_offset_map_internal.h"

/* In the form that the table has them in. */
typedef slot gathered_key;

/* The keys of the next records of a walk that belong into the map, at most keys_max. LS_OK: there may be more;
 * LS_END: there are none. Where an offset is too far away for the map, compactor->full_offset says so. */
ls_status ls_compaction_hash_keys(ls_compactor *compactor, record_walk *walk, gathered_key *keys, size_t keys_max,
                                  size_t *count, ls_fault *fault);

/* Puts keys into the map. False: it ended before a record, from which on nothing was taken in;
 * compactor->mapped_end_offset is its offset. */
bool ls_compaction_map_keys(ls_compactor *compactor, const gathered_key *keys, size_t count);

#endif
