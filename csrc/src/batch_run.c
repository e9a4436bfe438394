#include "logstore/batch_run.h"

ls_status ls_batch_run_build(uint8_t *buffer, size_t capacity_bytes, const ls_span *keys, const ls_span *values,
                             const int64_t *timestamps, int64_t timestamp, size_t count, size_t batch_bytes_max,
                             const ls_batch_stamp_fields *first, ls_batch_run *out, ls_fault *fault) {
    ls_batch_run run = {.max_timestamp = -1};
    ls_batch_stamp_fields fields = *first;
    ls_status status = LS_OK;
    while (run.records_count < count && capacity_bytes - run.size_bytes >= batch_bytes_max) {
        size_t done = run.records_count;
        size_t appended = 0;
        ls_batch_builder builder = {0};
        ls_batch_builder_lend(&builder, buffer + run.size_bytes, batch_bytes_max);
        status = ls_batch_builder_append_many(&builder, keys != NULL ? keys + done : NULL, values + done,
                                              timestamps != NULL ? timestamps + done : NULL, timestamp, count - done,
                                              batch_bytes_max, &appended, fault);
        bool fits = builder.is_lent; /* a record that is larger than any batch has moved to memory of its own */
        if (status == LS_OK && fits) {
            ls_batch_header header;
            ls_batch_builder_seal(&builder, &fields, &header);
            fields.base_offset += (int64_t)appended;
            run.size_bytes += builder.size_bytes;
            run.records_count += appended;
            run.batches_count++;
            if (header.max_timestamp > run.max_timestamp) run.max_timestamp = header.max_timestamp;
        }
        ls_batch_builder_free(&builder);
        if (status != LS_OK) return status;
        if (!fits) break;
    }
    *out = run;
    return LS_OK;
}
