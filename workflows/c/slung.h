/*
 * The contract between a workflow and its host, for C (C99 and later) and C++: what a module imports, what it exports, and the
 * struct that crosses the border. What each function does, and the limits, are told in docs/abi.md.
 *
 * In exactly one file of a workflow:
 *
 *     #define SLUNG_IMPLEMENTATION
 *     #include "slung.h"
 *
 *     SLUNG_CALL(void) {
 *         uint64_t handle = slung_query_live("AVG:temperature:[]:[1h]");
 *         for (;;) {
 *             slung_region *event = u_poll_handle(handle);
 *             if (event) {
 *                 ... slung_data(event), event->length ...
 *                 slung_free(event);
 *             }
 *         }
 *     }
 *
 * Built with Debian's clang, lld, wasi-libc and libclang-rt-dev-wasm32:
 *
 *     clang --target=wasm32-wasi --sysroot=/usr -mexec-model=reactor -O2 -Wl,--stack-first -o NAME.wasm NAME.c
 */
#ifndef SLUNG_H
#define SLUNG_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if !defined(__wasm32__)
#error "a workflow is compiled for wasm32"
#endif

#ifdef __cplusplus
#define SLUNG_C extern "C"
#else
#define SLUNG_C extern
#endif
#define SLUNG_IMPORT(name) SLUNG_C __attribute__((import_module("env"), import_name(name)))
#define SLUNG_EXPORT(name) __attribute__((export_name(name)))

/* Bytes in linear memory. Addresses are 32 bits; a pointer is one. `length <= capacity`. */
typedef struct slung_region {
    uint32_t offset;   /* address of the first byte; 0 where there is none */
    uint32_t capacity; /* bytes reserved there */
    uint32_t length;   /* bytes in use */
} slung_region;

/* ---- What the host provides. None of these traps; the reason of a failure is in the workflow's log. ---- */

/* Registers a live query. A handle; 0 = failure. */
SLUNG_IMPORT("u_query_live") uint64_t u_query_live(const slung_region *query);
/* The aggregate over what is stored; 0.0 = failure, or a true zero. */
SLUNG_IMPORT("u_query_history") double u_query_history(const slung_region *query);
/* The handle's next event as JSON, which then belongs to the workflow: slung_free it. NULL = none within about a second, or
 * failure. */
SLUNG_IMPORT("u_poll_handle") slung_region *u_poll_handle(uint64_t handle);
/* Ends a live query. 0 = freed. */
SLUNG_IMPORT("u_free_handle") int32_t u_free_handle(uint64_t handle);
/* Writes an event: microseconds since the Unix epoch and value as decimal text, and tags separated by commas, one of them
 * series=NAME. 0 = accepted. */
SLUNG_IMPORT("u_write_event")
int32_t u_write_event(const slung_region *timestamp, const slung_region *value, const slung_region *tags);
/* Sends to a producer, by the connection that its events came from. 0 = handed to that connection. */
SLUNG_IMPORT("u_writeback_ws") int32_t u_writeback_ws(uint64_t producer, const slung_region *data);
/* Sends an HTTP request. The response's body, which then belongs to the workflow: slung_free it. NULL = it is empty, or failure. */
SLUNG_IMPORT("u_writeback_http")
slung_region *u_writeback_http(const slung_region *url, const slung_region *body, int32_t method);

enum { SLUNG_GET = 0, SLUNG_POST = 1, SLUNG_PUT = 2, SLUNG_DELETE = 3 };

/* ---- What the module exports: `call` by SLUNG_CALL, the other two by SLUNG_IMPLEMENTATION, `memory` by the linker. ---- */

enum { SLUNG_DONE = 0, SLUNG_ERROR = 1, SLUNG_PANIC = 2 };

/* The entry point: answers SLUNG_DONE or SLUNG_ERROR. Where it never returns, it need not. */
#define SLUNG_CALL                                    \
    SLUNG_C SLUNG_EXPORT("call") int32_t slung_call(void); \
    int32_t slung_call

/* That many bytes for the host to write to, or NULL where there is no room. */
SLUNG_C SLUNG_EXPORT("allocate") void *slung_allocate(uint32_t bytes);
/* Frees a Region that came from the host, and its data. Not for one that slung_bytes or slung_text made. */
SLUNG_C SLUNG_EXPORT("deallocate") void slung_free(slung_region *region);

#ifdef SLUNG_IMPLEMENTATION
void *slung_allocate(uint32_t bytes) {
    return malloc(bytes);
}

void slung_free(slung_region *region) {
    if (region) {
        free((void *)(uintptr_t)region->offset);
        free(region);
    }
}
#endif

/* ---- Helpers. ---- */

/* A Region of bytes that stay where they are: an argument, which the host reads during the call and never frees. */
static inline slung_region slung_bytes(const void *data, size_t length) {
    slung_region region;
    region.offset = length ? (uint32_t)(uintptr_t)data : 0;
    region.capacity = region.length = (uint32_t)length;
    return region;
}

/* The same of a text that ends with a NUL, without that. */
static inline slung_region slung_text(const char *text) {
    return slung_bytes(text, strlen(text));
}

/* The bytes of a Region that came from the host: `length` of them, without a NUL behind. */
static inline const char *slung_data(const slung_region *region) {
    return (const char *)(uintptr_t)region->offset;
}

/* Registers a live query. A handle; 0 = failure. */
static inline uint64_t slung_query_live(const char *query) {
    slung_region text = slung_text(query);
    return u_query_live(&text);
}

/* The aggregate over what is stored; 0.0 = failure, or a true zero. */
static inline double slung_query_history(const char *query) {
    slung_region text = slung_text(query);
    return u_query_history(&text);
}

/* Sends to a producer. 0 = handed to its connection. */
static inline int32_t slung_writeback_ws(uint64_t producer, const void *data, size_t length) {
    slung_region region = slung_bytes(data, length);
    return u_writeback_ws(producer, &region);
}

/* Writes an event, all of it text. 0 = accepted. */
static inline int32_t slung_write_event(const char *timestamp, const char *value, const char *tags) {
    slung_region regions[3];
    regions[0] = slung_text(timestamp);
    regions[1] = slung_text(value);
    regions[2] = slung_text(tags);
    return u_write_event(&regions[0], &regions[1], &regions[2]);
}

#endif
