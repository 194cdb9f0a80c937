/*
 * Watches a live average and alerts the producers whose events brought it below a threshold: the workflow of
 * ../threshold-alert, with the same environment, in C.
 *
 *     ALERT_QUERY   default AVG:temperature:[]:[1h]
 *     ALERT_BELOW   default 55
 *
 * What an alert repeats of the event (value, timestamp, tags) is copied as it stands in the event's JSON.
 */
#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>

#define SLUNG_IMPLEMENTATION
#include "slung.h"

/* How deep the values of fields that are passed over may be nested: an event has two levels. */
#define DEPTH_MAX 16

/* ---- The event's JSON: a reader that believes nothing, and looks no further than `end`. ---- */

typedef struct {
    const char *at;
    const char *end;
} text;

typedef struct {
    text timestamp, value, tags, producers;
} event;

static char next(const text *in) {
    return in->at < in->end ? *in->at : '\0';
}

static void skip_blanks(text *in) {
    while (next(in) == ' ' || next(in) == '\t' || next(in) == '\n' || next(in) == '\r') {
        in->at++;
    }
}

/* Whether that character comes next, after blanks; if so, it is passed over. */
static bool take(text *in, char wanted) {
    skip_blanks(in);
    if (next(in) != wanted) {
        return false;
    }
    in->at++;
    return true;
}

static bool skip_digits(text *in) {
    const char *start = in->at;
    while (next(in) >= '0' && next(in) <= '9') {
        in->at++;
    }
    return in->at > start;
}

static bool skip_number(text *in) {
    if (next(in) == '-') {
        in->at++;
    }
    if (next(in) == '0') {
        in->at++;
    } else if (!skip_digits(in)) {
        return false;
    }
    if (next(in) == '.') {
        in->at++;
        if (!skip_digits(in)) {
            return false;
        }
    }
    if (next(in) == 'e' || next(in) == 'E') {
        in->at++;
        if (next(in) == '+' || next(in) == '-') {
            in->at++;
        }
        return skip_digits(in);
    }
    return true;
}

/* A string, whose content is not looked at: where it ends is all that matters here. */
static bool skip_string(text *in) {
    if (!take(in, '"')) {
        return false;
    }
    for (; in->at < in->end; in->at++) {
        if (*in->at == '"') {
            in->at++;
            return true;
        }
        if (*in->at == '\\' && in->end - in->at > 1) {
            in->at++; /* whatever is escaped, a quotation mark too */
        }
    }
    return false;
}

static bool skip_word(text *in, const char *word) {
    size_t length = strlen(word);
    if ((size_t)(in->end - in->at) < length || memcmp(in->at, word, length) != 0) {
        return false;
    }
    in->at += length;
    return true;
}

static bool skip_value(text *in, int depth);

/* What stands between brackets: values, or names with values. */
static bool skip_list(text *in, char close, int depth) {
    in->at++;
    if (take(in, close)) {
        return true;
    }
    do {
        if (close == '}' && !(skip_string(in) && take(in, ':'))) {
            return false;
        }
        if (!skip_value(in, depth + 1)) {
            return false;
        }
    } while (take(in, ','));
    return take(in, close);
}

static bool skip_value(text *in, int depth) {
    skip_blanks(in);
    switch (depth < DEPTH_MAX ? next(in) : '\0') {
    case '{':
        return skip_list(in, '}', depth);
    case '[':
        return skip_list(in, ']', depth);
    case '"':
        return skip_string(in);
    case 't':
        return skip_word(in, "true");
    case 'f':
        return skip_word(in, "false");
    case 'n':
        return skip_word(in, "null");
    default:
        return depth < DEPTH_MAX && skip_number(in);
    }
}

static bool is(text name, const char *expected) {
    size_t length = strlen(expected);
    return (size_t)(name.end - name.at) == length && memcmp(name.at, expected, length) == 0;
}

/* Where the fields of the event are. Fields with other names are passed over, in whatever order they come. */
static bool read_event(text in, event *out) {
    static const char brackets[] = "[]";
    static const text none = {NULL, NULL}, empty_list = {brackets, brackets + 2};
    out->timestamp = out->value = none;
    out->tags = out->producers = empty_list;
    if (!take(&in, '{')) {
        return false;
    }
    bool first = true;
    while (!take(&in, '}')) {
        if (!first && !take(&in, ',')) {
            return false;
        }
        first = false;
        skip_blanks(&in);
        text name = {in.at + 1, NULL};
        if (!skip_string(&in)) {
            return false;
        }
        name.end = in.at - 1;
        if (!take(&in, ':')) {
            return false;
        }
        skip_blanks(&in);
        text value = {in.at, NULL};
        if (!skip_value(&in, 0)) {
            return false;
        }
        value.end = in.at;
        if (is(name, "timestamp")) {
            out->timestamp = value;
        } else if (is(name, "value")) {
            out->value = value;
        } else if (is(name, "tags")) {
            out->tags = value;
        } else if (is(name, "producers")) {
            out->producers = value;
        }
    }
    skip_blanks(&in);
    return in.at == in.end && out->timestamp.at && out->value.at && *out->tags.at == '[' && *out->producers.at == '[';
}

/* A number that skip_number has passed over. Behind it, in the same JSON, stands a character that ends it for strtod too. */
static bool read_double(text in, double *out) {
    char *end;
    *out = strtod(in.at, &end);
    return end == in.end;
}

/* The next id of a list of producers, which is empty afterwards, or goes on. */
static bool read_producer(text *in, uint64_t *out) {
    skip_blanks(in);
    const char *start = in->at;
    *out = 0;
    for (; next(in) >= '0' && next(in) <= '9'; in->at++) {
        uint64_t digit = (uint64_t)(next(in) - '0');
        if (*out > (UINT64_MAX - digit) / 10) {
            return false;
        }
        *out = *out * 10 + digit;
    }
    return in->at > start;
}

/* ---- The alert. ---- */

typedef struct {
    char *bytes;
    size_t length;
} buffer;

static void append(buffer *out, const char *bytes, size_t length) {
    memcpy(out->bytes + out->length, bytes, length);
    out->length += length;
}

static void append_text(buffer *out, const char *bytes) {
    append(out, bytes, strlen(bytes));
}

static void append_json(buffer *out, text json) {
    append(out, json.at, (size_t)(json.end - json.at));
}

/* Tells every producer of the event. */
static bool tell(const event *event, double threshold, size_t event_bytes) {
    char number[32] = "null"; /* JSON has no word for one that is not finite */
    if (isfinite(threshold)) {
        snprintf(number, sizeof number, "%.17g", threshold); /* 17 digits say which double it is */
    }
    /* Less than 100 bytes beside what is copied. */
    buffer alert = {(char *)malloc(event_bytes + 100 + sizeof number), 0};
    if (!alert.bytes) {
        fputs("no memory for an alert\n", stderr);
        return false;
    }
    append_text(&alert, "{\"alert\":\"below\",\"value\":");
    append_json(&alert, event->value);
    append_text(&alert, ",\"threshold\":");
    append_text(&alert, number);
    append_text(&alert, ",\"timestamp\":");
    append_json(&alert, event->timestamp);
    append_text(&alert, ",\"tags\":");
    append_json(&alert, event->tags);
    append_text(&alert, "}");

    text producers = event->producers;
    bool good = take(&producers, '[');
    if (good && !take(&producers, ']')) {
        do {
            uint64_t producer;
            good = read_producer(&producers, &producer);
            if (good) {
                /* One that is gone is no reason to stop; the host has logged it. */
                (void)slung_writeback_ws(producer, alert.bytes, alert.length);
            }
        } while (good && take(&producers, ','));
    }
    free(alert.bytes);
    if (!good) {
        fputs("the host's event has a producer that is no number\n", stderr);
    }
    return good;
}

static bool alert(const slung_region *region, double threshold) {
    text json = {slung_data(region), slung_data(region) + region->length};
    event event;
    double value;
    if (!read_event(json, &event) || !read_double(event.value, &value)) {
        fputs("the host's event can't be read\n", stderr);
        return false;
    }
    return value >= threshold || tell(&event, threshold, region->length);
}

/* The environment's number, or 55. Like Rust's reader of numbers: no blanks, nothing behind it. */
static bool read_threshold(double *out) {
    const char *set = getenv("ALERT_BELOW");
    *out = 55;
    if (!set) {
        return true;
    }
    char *end;
    *out = strtod(set, &end);
    if (end == set || *end || isspace((unsigned char)*set) || strpbrk(set, "xX(")) {
        fputs("ALERT_BELOW is no number\n", stderr);
        return false;
    }
    return true;
}

SLUNG_CALL(void) {
    double threshold;
    if (!read_threshold(&threshold)) {
        return SLUNG_ERROR;
    }
    const char *query = getenv("ALERT_QUERY");
    uint64_t handle = slung_query_live(query ? query : "AVG:temperature:[]:[1h]");
    if (!handle) {
        return SLUNG_ERROR; /* the host has logged why */
    }
    for (;;) {
        slung_region *event = u_poll_handle(handle);
        if (event) {
            bool good = alert(event, threshold);
            slung_free(event);
            if (!good) {
                return SLUNG_ERROR;
            }
        }
    }
}
