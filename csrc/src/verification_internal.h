/* What checking in one thread and in two have in common. */
#ifndef LOGSTORE_VERIFICATION_INTERNAL_H
#define LOGSTORE_VERIFICATION_INTERNAL_H

#include "logstore/verification.h"
#include "segment_internal.h"

/* Whether the bytes of a batch have the CRC that its header says; LS_TORN where the window's limit comes first. */
ls_status ls_window_check_crc(ls_window *window, const ls_batch_location *batch, ls_fault *fault);

/* Has a scan expect what the verification does. */
void ls_verification_resume(const ls_verification *verification, ls_scan *scan);

/* Takes in a sound batch, which the scan has just passed. */
void ls_verification_take(ls_verification *verification, const ls_segment *segment, const ls_scan *scan,
                          const ls_batch_location *batch);

/* Goes on with `ahead`, deep, towards `until`, but never past anything that is wrong or merely odd: what it leaves,
 * maybe all, is for the caller to check batch by batch. */
void ls_verification_go_ahead(ls_verification *verification, ls_segment *segment, int64_t limit, int64_t until);

#endif
