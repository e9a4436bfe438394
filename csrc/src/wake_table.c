#if defined(__linux__)
#define _GNU_SOURCE /* sched_getcpu */
#else
#define _POSIX_C_SOURCE 200809L
#endif

#include "logstore/wake_table.h"

#include <stdbool.h>
#include <string.h>

#include "file_map.h"
#include "logstore/bytes.h"
#include "logstore/murmur2.h"
#include "look_out.h"
#include "wake_table_posix.h"

enum { VERSION = 1, HEADER_BYTES = 6 };

static const uint8_t magic[4] = {'L', 'S', 'W', 'T'};

/* Of a slot. Whoever moves a sleeper on from ASLEEP wakes it. */
enum {
    AWAKE,     /* it looks for itself before it sleeps */
    ASLEEP,    /* or about to be, and going to look once more */
    ANNOUNCED, /* woken early, and not there yet */
    AWAITED,   /* there, and looking out */
    SIGNALLED
};

typedef struct wake_slot {
    _Atomic uint32_t state; /* what it sleeps on */
    _Atomic int32_t sleeper_cpu;
    _Atomic int32_t announcer_cpu;
    uint32_t unused[5];
    _Atomic uint32_t changed[LS_WAKE_MARK_WORDS];
    _Atomic uint32_t more[LS_WAKE_MARK_WORDS];
    uint32_t unused_too[8];
} wake_slot;

_Static_assert(sizeof(wake_slot) == LS_WAKE_SLOT_BYTES, "a slot is as large as the format says");
_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "a word that processes share takes no lock of one of them");

static wake_slot *slot_of(const ls_wake_table *table, uint32_t number) {
    return (wake_slot *)(void *)(table->map + LS_WAKE_SLOTS_AT) + number;
}

static int64_t lock_position(uint32_t number) {
    return LS_WAKE_SLOTS_AT + (int64_t)number * LS_WAKE_SLOT_BYTES;
}

static _Atomic uint32_t *awaited_of(const ls_wake_table *table, uint32_t bucket) {
    return (_Atomic uint32_t *)(void *)(table->map + LS_WAKE_AWAITED_AT) + bucket;
}

/* ---- the file ------------------------------------------------------------------------------------------ */

void ls_wake_table_format(uint8_t *out) {
    memset(out, 0, LS_WAKE_TABLE_BYTES);
    memcpy(out + LS_WAKE_MAGIC_AT, magic, sizeof magic);
    ls_store_u16(out + LS_WAKE_VERSION_AT, VERSION);
}

static ls_status check_table(ls_file *file, ls_fault *fault) {
    uint8_t header[HEADER_BYTES];
    int64_t size = 0;
    size_t got = 0;
    ls_status status = ls_file_size(file, &size, fault);
    if (status != LS_OK) return status;
    /* Nothing past the end of a file is ever touched, which would be a signal and no error. */
    if (size != LS_WAKE_TABLE_BYTES)
        return ls_fail(fault, LS_CORRUPT, "size of a wake table", 0, LS_WAKE_TABLE_BYTES, size);
    status = ls_file_read(file, 0, header, sizeof header, &got, fault);
    if (status != LS_OK) return status;
    if (got != sizeof header || memcmp(header + LS_WAKE_MAGIC_AT, magic, sizeof magic) != 0)
        return ls_fail(fault, LS_CORRUPT, "magic of a wake table", LS_WAKE_MAGIC_AT, 0, 0);
    uint16_t version = ls_load_u16(header + LS_WAKE_VERSION_AT);
    if (version != VERSION)
        return ls_fail(fault, LS_UNSUPPORTED, "version of a wake table", LS_WAKE_VERSION_AT, VERSION, version);
    return LS_OK;
}

ls_status ls_wake_table_open(const char *path, ls_wake_table *out, ls_fault *fault) {
    ls_file *file;
    void *map = NULL;
    ls_status status = ls_file_open(path, LS_FILE_WRITE, &file, fault);
    if (status != LS_OK) return status;
    status = check_table(file, fault);
    if (status == LS_OK) status = ls_file_map(file, LS_WAKE_TABLE_BYTES, &map, fault);
    if (status != LS_OK) {
        ls_file_close(file);
        return status;
    }
    *out = (ls_wake_table){.map = map, .file = file};
    return LS_OK;
}

void ls_wake_table_close(ls_wake_table *table) {
    if (table->file != NULL) ls_file_close(table->file);
    table->file = NULL;
    if (table->map != NULL) ls_file_unmap(table->map, LS_WAKE_TABLE_BYTES);
    table->map = NULL;
}

/* The slot's lock is held. */
static void clear_slot(ls_wake_table *table, uint32_t number) {
    wake_slot *slot = slot_of(table, number);
    for (uint32_t bucket = 0; bucket < LS_WAKE_BUCKETS; bucket++) {
        if (atomic_load_explicit(awaited_of(table, bucket), memory_order_relaxed) & 1u << number)
            atomic_fetch_and(awaited_of(table, bucket), ~(1u << number));
    }
    atomic_store(&slot->state, AWAKE);
    for (size_t i = 0; i < LS_WAKE_MARK_WORDS; i++) {
        atomic_store(&slot->changed[i], 0);
        atomic_store(&slot->more[i], 0);
    }
}

static bool is_clear(const ls_wake_table *table, uint32_t number) {
    for (uint32_t bucket = 0; bucket < LS_WAKE_BUCKETS; bucket++)
        if (atomic_load_explicit(awaited_of(table, bucket), memory_order_relaxed) & 1u << number) return false;
    return true;
}

void ls_wake_table_sweep(ls_wake_table *table) {
    for (uint32_t number = 0; number < LS_WAKE_SLOTS; number++) {
        if (is_clear(table, number) || !ls_byte_lock(table->file, lock_position(number))) continue;
        clear_slot(table, number);
        ls_byte_unlock(table->file, lock_position(number));
    }
}

uint32_t ls_wake_bucket(const uint8_t *name, size_t name_bytes) {
    return ls_murmur2(name, name_bytes) % LS_WAKE_BUCKETS;
}

/* ---- the writer ---------------------------------------------------------------------------------------- */

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UNDER_THREAD_SANITIZER 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define UNDER_THREAD_SANITIZER 1
#endif

int ls_wake_is_awaited(const ls_wake_table *table, uint32_t bucket) {
    /* The write comes first, then the look at who waits, as a reader comes to wait first and then looks. */
#if defined(UNDER_THREAD_SANITIZER) /* which knows no fences */
    return table->map != NULL && atomic_fetch_or(awaited_of(table, bucket), 0) != 0;
#else
    atomic_thread_fence(memory_order_seq_cst);
    return ls_wake_may_be_awaited(table, bucket);
#endif
}

int ls_wake_announce(ls_wake_table *table, uint32_t bucket) {
    uint32_t waiting = atomic_load_explicit(awaited_of(table, bucket), memory_order_acquire);
    int cpu = ls_current_cpu();
    for (; waiting != 0; waiting &= waiting - 1) {
        wake_slot *slot = slot_of(table, (uint32_t)__builtin_ctz(waiting));
        uint32_t state = atomic_load_explicit(&slot->state, memory_order_acquire);
        if (state == ANNOUNCED || state == AWAITED) return 1;
        /* On the caller's own CPU it could only take turns with the caller. */
        if (state != ASLEEP || (cpu >= 0 && cpu == atomic_load_explicit(&slot->sleeper_cpu, memory_order_relaxed)))
            continue;
        atomic_store_explicit(&slot->announcer_cpu, cpu, memory_order_relaxed);
        if (atomic_compare_exchange_strong(&slot->state, &state, ANNOUNCED)) {
            ls_word_wake(&slot->state);
            return 1;
        }
    }
    return 0;
}

/* After its marks are set. */
static void rouse(wake_slot *slot) {
    uint32_t state = atomic_load(&slot->state);
    while (state != AWAKE && state != SIGNALLED) {
        uint32_t before = state;
        if (atomic_compare_exchange_weak(&slot->state, &state, SIGNALLED)) {
            if (before == ASLEEP) ls_word_wake(&slot->state);
            return;
        }
    }
}

void ls_wake_signal(ls_wake_table *table, uint32_t bucket, int is_more) {
    uint32_t waiting = atomic_load(awaited_of(table, bucket));
    for (; waiting != 0; waiting &= waiting - 1) {
        wake_slot *slot = slot_of(table, (uint32_t)__builtin_ctz(waiting));
        if (is_more) atomic_fetch_or(&slot->more[bucket / 32], 1u << bucket % 32);
        atomic_fetch_or(&slot->changed[bucket / 32], 1u << bucket % 32);
        rouse(slot);
    }
}

/* ---- readers ------------------------------------------------------------------------------------------- */

ls_status ls_wake_reader_open(const char *path, ls_wake_reader *out, ls_fault *fault) {
    ls_status status = ls_wake_table_open(path, &out->table, fault);
    if (status != LS_OK) return status;
    for (uint32_t number = 0; number < LS_WAKE_SLOTS; number++) {
        if (!ls_byte_lock(out->table.file, lock_position(number))) continue;
        clear_slot(&out->table, number);
        out->slot = number;
        out->process = ls_process_number();
        atomic_init(&out->is_rung, 0);
        return LS_OK;
    }
    ls_wake_table_close(&out->table);
    return ls_fail(fault, LS_FULL, "every slot of the wake table is taken", -1, LS_WAKE_SLOTS, LS_WAKE_SLOTS);
}

void ls_wake_reader_close(ls_wake_reader *reader) {
    if (reader->table.file != NULL && reader->process == ls_process_number()) {
        clear_slot(&reader->table, reader->slot);
        ls_byte_unlock(reader->table.file, lock_position(reader->slot)); /* a forked child has the file open, too */
    }
    ls_wake_table_close(&reader->table);
}

void ls_wake_reader_follow(ls_wake_reader *reader, uint32_t bucket) {
    atomic_fetch_or(awaited_of(&reader->table, bucket), 1u << reader->slot);
}

void ls_wake_reader_unfollow(ls_wake_reader *reader, uint32_t bucket) {
    atomic_fetch_and(awaited_of(&reader->table, bucket), ~(1u << reader->slot));
}

static bool has_news(const ls_wake_reader *reader, const wake_slot *slot) {
    uint32_t found = atomic_load(&reader->is_rung);
    for (size_t i = 0; i < LS_WAKE_MARK_WORDS; i++) found |= atomic_load(&slot->changed[i]);
    return found != 0;
}

/* Was woken early: until the news are there, or the time is over. */
static void look_out(wake_slot *slot, int64_t limit_ns) {
    int announcer_cpu = atomic_load_explicit(&slot->announcer_cpu, memory_order_relaxed);
    if (announcer_cpu >= 0 && announcer_cpu == ls_current_cpu()) {
        sched_yield(); /* looking out would keep it from its work */
        limit_ns = 0;
    }
    int64_t until_ns = ls_monotonic_ns() + limit_ns;
    do {
        for (int i = 0; i < LS_LOOKS_A_CLOCK; i++) {
            if (atomic_load_explicit(&slot->state, memory_order_acquire) != AWAITED) return;
            ls_relax();
        }
    } while (ls_monotonic_ns() < until_ns);
}

int ls_wake_reader_has_news(const ls_wake_reader *reader) {
    return has_news(reader, slot_of(&reader->table, reader->slot));
}

ls_wake_sleep ls_wake_reader_sleep(ls_wake_reader *reader, int64_t timeout_ns, int64_t look_out_ns) {
    wake_slot *slot = slot_of(&reader->table, reader->slot);
    ls_word_wait how = LS_WORD_WOKEN;
    uint32_t state = ANNOUNCED;
    if (has_news(reader, slot)) return LS_WAKE_NEWS;
    atomic_store_explicit(&slot->sleeper_cpu, ls_current_cpu(), memory_order_relaxed);
    atomic_store(&slot->state, ASLEEP);
    if (!has_news(reader, slot)) {
        how = ls_word_sleep(&slot->state, ASLEEP, timeout_ns);
        if (atomic_compare_exchange_strong(&slot->state, &state, AWAITED)) look_out(slot, look_out_ns);
    }
    atomic_store(&slot->state, AWAKE);
    if (has_news(reader, slot)) return LS_WAKE_NEWS;
    return how == LS_WORD_INTERRUPTED ? LS_WAKE_SIGNAL : LS_WAKE_NOTHING;
}

void ls_wake_reader_ring(ls_wake_reader *reader) {
    atomic_store(&reader->is_rung, 1);
    rouse(slot_of(&reader->table, reader->slot));
}

int ls_wake_reader_collect(ls_wake_reader *reader, uint32_t *changed, uint32_t *more) {
    wake_slot *slot = slot_of(&reader->table, reader->slot);
    uint32_t found = 0;
    atomic_store(&reader->is_rung, 0);
    for (size_t i = 0; i < LS_WAKE_MARK_WORDS; i++) {
        changed[i] = atomic_load(&slot->changed[i]) != 0 ? atomic_exchange(&slot->changed[i], 0) : 0;
        /* Set first, so it may be here before its mark above: that one is going to come once more, without it. */
        more[i] = atomic_load(&slot->more[i]) != 0 ? atomic_exchange(&slot->more[i], 0) : 0;
        changed[i] |= more[i];
        found |= changed[i];
    }
    return found != 0;
}
