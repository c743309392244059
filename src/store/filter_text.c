/* Filters from text and to it; the manual has the grammar.
 *
 * 1. Two passes of the same code: the first counts, the second builds into memory that is known to suffice.
 * 2. No recursion: what stands in open parentheses is on a stack of IQDB_FILTER_DEPTH_MAX frames. Finished parts wait on
 *    a stack of nodes until it is known what they are children of; then they move, side by side, to where they stay.
 * 3. What is accepted can be compiled: every limit that a text can break is met here, where its place is known.
 * 4. Every filter that can be compiled has a text, of as many branches: parentheses stand where they say what is whose. */
#include "base/report.h"
#include "codec/number.h"
#include "store/filter.h"

#if !defined(IQDB_NO_TEXT) && IQ_HAS_FILTERS

/* An open parenthesis, and the whole. */
typedef struct iq_filter_group {
    uint32_t nots;         /* before the part to come */
    uint32_t parts;        /* joined by `and`, so far */
    uint32_t eithers;      /* joined by `or`, so far; the parts are not among them yet */
    uint32_t part_depth;   /* of the deepest of the parts */
    uint32_t either_depth; /* of the deepest of the eithers */
} iq_filter_group;

typedef struct iq_filter_reader {
    const char *text;
    size_t size;
    size_t at; /* what comes next; after a failure where it is */
    const char *why;
    iqdb_filter *nodes; /* NULL: measuring */
    size_t node_count;
    iqdb_filter *stack;
    size_t stack_count, stack_max;
    iqdb_value *values;
    size_t value_count;
    char *chars;
    size_t char_count;
    size_t depth;
    iq_filter_group groups[IQDB_FILTER_DEPTH_MAX + 1];
} iq_filter_reader;

static bool iq_reader_fail(iq_filter_reader *reader, size_t at, const char *why) {
    reader->at = at;
    reader->why = why;
    return false;
}

/* ---- Words ---- */

static bool iq_is_word_start(char c) {
    const uint8_t u = (uint8_t)c;
    return (u >= 'a' && u <= 'z') || (u >= 'A' && u <= 'Z') || u == '_' || u == '$' || u >= 0x80;
}

static char iq_reader_peek(const iq_filter_reader *reader) {
    return reader->at < reader->size ? reader->text[reader->at] : 0;
}

static void iq_reader_skip_space(iq_filter_reader *reader) {
    while (reader->at < reader->size) {
        const char c = reader->text[reader->at];
        if (c != ' ' && c != '\t' && c != '\n' && c != '\r') break;
        reader->at++;
    }
}

/* Bytes of the bare word that comes next, 0 where none does. */
static size_t iq_reader_word(const iq_filter_reader *reader) {
    size_t end = reader->at;
    if (end == reader->size || !iq_is_word_start(reader->text[end])) return 0;
    while (end < reader->size) {
        const char c = reader->text[end];
        if (!iq_is_word_start(c) && !(c >= '0' && c <= '9') && c != '.' && c != '-') break;
        end++;
    }
    return end - reader->at;
}

static bool iq_word_is(const char *text, size_t size, const char *word) {
    for (size_t i = 0; i < size; i++) {
        const char c = text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] - 'A' + 'a') : text[i];
        if (word[i] == 0 || c != word[i]) return false;
    }
    return word[size] == 0;
}

/* Steps over `word` where it comes next. */
static bool iq_reader_take_word(iq_filter_reader *reader, const char *word) {
    iq_reader_skip_space(reader);
    const size_t size = iq_reader_word(reader);
    if (!iq_word_is(reader->text + reader->at, size, word)) return false;
    reader->at += size;
    return true;
}

static bool iq_reader_take_sign(iq_filter_reader *reader, char sign) {
    iq_reader_skip_space(reader);
    if (reader->at == reader->size || reader->text[reader->at] != sign) return false;
    reader->at++;
    return true;
}

/* What is no key without quotes; first, in their order, the names of the operators from IQDB_FILTER_BETWEEN on. */
static const char *const iq_filter_words[] = {"between", "in", "prefix", "exists", "is",   "contains",
                                              "and",     "or", "not",    "null",   "true", "false"};

static bool iq_word_is_reserved(const char *text, size_t size) {
    for (size_t i = 0; i < IQ_COUNT_OF(iq_filter_words); i++)
        if (iq_word_is(text, size, iq_filter_words[i])) return true;
    return false;
}

/* ---- Keys and values ---- */

/* Room for the characters; NULL while measuring. */
static char *iq_reader_room(iq_filter_reader *reader, size_t size) {
    char *room = reader->chars == NULL ? NULL : reader->chars + reader->char_count;
    reader->char_count += size;
    return room;
}

/* What stands between two quotes, the first of which comes next; a doubled one counts as one. A NUL follows it. */
static bool iq_reader_take_quoted(iq_filter_reader *reader, const char **out_text, size_t *out_size) {
    const size_t begin = reader->at;
    const char quote = reader->text[begin];
    size_t size = 0, end = begin + 1;
    for (;; end++, size++) {
        if (end >= reader->size) return iq_reader_fail(reader, begin, "the quotes are not closed");
        if (reader->text[end] != quote) continue;
        if (end + 1 == reader->size || reader->text[end + 1] != quote) break;
        end++;
    }
    if (!iq_utf8_is_valid(reader->text + begin + 1, end - begin - 1))
        return iq_reader_fail(reader, begin, "what stands in quotes is not UTF-8");
    char *room = iq_reader_room(reader, size + 1);
    *out_text = room;
    *out_size = size;
    reader->at = end + 1;
    if (room == NULL) return true;
    for (size_t i = begin + 1; i < end; i++) {
        *room++ = reader->text[i];
        i += reader->text[i] == quote;
    }
    *room = 0;
    return true;
}

static bool iq_reader_take_key(iq_filter_reader *reader, const char **out_key) {
    const size_t begin = reader->at;
    size_t size;
    if (iq_reader_peek(reader) == '"') {
        if (!iq_reader_take_quoted(reader, out_key, &size)) return false;
        if (memchr(reader->text + begin, 0, reader->at - begin) != NULL)
            return iq_reader_fail(reader, begin, "a key cannot hold U+0000");
        return true;
    }
    size = iq_reader_word(reader);
    if (size == 0) return iq_reader_fail(reader, begin, "a key is expected, or not, or a parenthesis");
    if (iq_word_is_reserved(reader->text + begin, size))
        return iq_reader_fail(reader, begin, "a key is expected; one of this name goes in double quotes");
    if (!iq_utf8_is_valid(reader->text + begin, size)) return iq_reader_fail(reader, begin, "the key is not UTF-8");
    char *room = iq_reader_room(reader, size + 1);
    *out_key = room;
    reader->at += size;
    if (room == NULL) return true;
    memcpy(room, reader->text + begin, size);
    room[size] = 0;
    return true;
}

static bool iq_reader_take_text(iq_filter_reader *reader, iqdb_value *out) {
    const char *text;
    size_t size;
    iq_reader_skip_space(reader);
    if (iq_reader_peek(reader) != '\'')
        return iq_reader_fail(reader, reader->at, "a text in single quotes is expected");
    if (!iq_reader_take_quoted(reader, &text, &size)) return false;
    *out = iqdb_text_n(text, size);
    return true;
}

/* x'00ff', whose x comes next. */
static bool iq_reader_take_bytes(iq_filter_reader *reader, iqdb_value *out) {
    const size_t begin = reader->at;
    size_t end = begin + 2;
    while (end < reader->size && iq_hex_digit(reader->text[end]) >= 0) end++;
    const size_t size = (end - begin - 2) / 2;
    if (end == reader->size || reader->text[end] != '\'' || (end - begin) % 2 != 0)
        return iq_reader_fail(reader, begin, "x'...' wants pairs of hexadecimal digits");
    char *room = iq_reader_room(reader, size);
    for (size_t i = 0; room != NULL && i < size; i++)
        room[i] =
            (char)(iq_hex_digit(reader->text[begin + 2 + 2 * i]) << 4 | iq_hex_digit(reader->text[begin + 3 + 2 * i]));
    *out = iqdb_bytes(room, size);
    reader->at = end + 1;
    return true;
}

static bool iq_reader_take_value(iq_filter_reader *reader, iqdb_value *out) {
    iq_reader_skip_space(reader);
    const char c = iq_reader_peek(reader);
    if (c == '\'') return iq_reader_take_text(reader, out);
    if ((c == 'x' || c == 'X') && reader->size - reader->at > 1 && reader->text[reader->at + 1] == '\'')
        return iq_reader_take_bytes(reader, out);
    *out = iqdb_null();
    if (iq_reader_take_word(reader, "null")) return true;
    *out = iqdb_bool(true);
    if (iq_reader_take_word(reader, "true")) return true;
    *out = iqdb_bool(false);
    if (iq_reader_take_word(reader, "false")) return true;
    const size_t begin = reader->at, sign = c == '-';
    reader->at += sign;
    *out = iqdb_float(iq_f64_from_bits(IQ_F64_INFINITY | (uint64_t)sign << 63));
    if (iq_reader_word(reader) > 0 && iq_reader_take_word(reader, "infinity")) return true;
    reader->at = begin;
    *out = iqdb_float(iq_f64_from_bits(IQ_F64_NAN));
    if (iq_reader_take_word(reader, "nan")) return true;
    const size_t size = iq_number_read(reader->text + reader->at, reader->size - reader->at, out);
    if (size == 0)
        return iq_reader_fail(reader, reader->at, "a value is expected: 'text', a number, true, false, null");
    if (out->type == IQDB_TYPE_ABSENT) return iq_reader_fail(reader, reader->at, "the number is too large");
    reader->at += size;
    return true;
}

/* ---- Tests ---- */

static bool iq_reader_take_list(iq_filter_reader *reader, iqdb_filter *out) {
    const size_t first = reader->value_count;
    if (!iq_reader_take_sign(reader, '(')) return iq_reader_fail(reader, reader->at, "in wants a list in parentheses");
    bool more = !iq_reader_take_sign(reader, ')');
    while (more) {
        iqdb_value value;
        iq_reader_skip_space(reader);
        if (reader->value_count - first == IQDB_FILTER_IN_MAX)
            return iq_reader_fail(reader, reader->at, "there are more than IQDB_FILTER_IN_MAX values in the list");
        if (!iq_reader_take_value(reader, &value)) return false;
        if (reader->values != NULL) reader->values[reader->value_count] = value;
        reader->value_count++;
        more = !iq_reader_take_sign(reader, ')');
        if (more && !iq_reader_take_sign(reader, ','))
            return iq_reader_fail(reader, reader->at, "a comma or the end of the list is expected");
    }
    out->values = reader->values == NULL ? NULL : reader->values + first;
    out->count = reader->value_count - first;
    return true;
}

/* The sign of a comparison; ALL where there is none. */
static iqdb_filter_op iq_reader_take_comparison(iq_filter_reader *reader) {
    const char c = iq_reader_peek(reader);
    const char next = reader->size - reader->at > 1 ? reader->text[reader->at + 1] : (char)0;
    if (c == '=' || (c == '!' && next == '=') || (c == '<' && next == '>')) {
        reader->at += c == '=' && next != '=' ? 1 : 2;
        return c == '=' ? IQDB_FILTER_EQ : IQDB_FILTER_NE;
    }
    if (c != '<' && c != '>') return IQDB_FILTER_ALL;
    reader->at += next == '=' ? 2 : 1;
    if (c == '<') return next == '=' ? IQDB_FILTER_LE : IQDB_FILTER_LT;
    return next == '=' ? IQDB_FILTER_GE : IQDB_FILTER_GT;
}

static bool iq_reader_take_test(iq_filter_reader *reader, iqdb_filter *out) {
    const char *key = NULL;
    *out = iqdb_filter_default();
    if (!iq_reader_take_key(reader, &key)) return false;
    out->key = key;
    iq_reader_skip_space(reader);
    const size_t begin = reader->at;
    out->op = iq_reader_take_comparison(reader);
    for (int i = 0; out->op == IQDB_FILTER_ALL && IQDB_FILTER_BETWEEN + i <= IQDB_FILTER_CONTAINS_VALUE; i++)
        if (iq_reader_take_word(reader, iq_filter_words[i])) out->op = (iqdb_filter_op)(IQDB_FILTER_BETWEEN + i);
    switch ((unsigned)out->op) {
    case IQDB_FILTER_ALL:
        return iq_reader_fail(reader, begin,
                              "a comparison is expected, or in, between, prefix, contains, exists, is null");
    case IQDB_FILTER_EXISTS:
        return true;
    case IQDB_FILTER_IS_NULL:
        return iq_reader_take_word(reader, "null") ||
               iq_reader_fail(reader, reader->at, "null is expected; the contrary is: not key is null");
    case IQDB_FILTER_IN:
        return iq_reader_take_list(reader, out);
    case IQDB_FILTER_PREFIX:
        return iq_reader_take_text(reader, &out->value);
    case IQDB_FILTER_BETWEEN:
        if (!iq_reader_take_value(reader, &out->value)) return false;
        if (!iq_reader_take_word(reader, "and"))
            return iq_reader_fail(reader, reader->at, "between wants: low and high");
        return iq_reader_take_value(reader, &out->high);
    default:
        return iq_reader_take_value(reader, &out->value);
    }
}

/* ---- The filter ---- */

static void iq_reader_push(iq_filter_reader *reader, const iqdb_filter *node) {
    if (reader->nodes != NULL) reader->stack[reader->stack_count] = *node;
    reader->stack_count++;
    if (reader->stack_count > reader->stack_max) reader->stack_max = reader->stack_count;
}

/* The last `count` nodes become children of a new one. */
static void iq_reader_join(iq_filter_reader *reader, iqdb_filter_op op, size_t count) {
    iqdb_filter node = iqdb_filter_default();
    reader->stack_count -= count;
    if (reader->nodes != NULL) {
        node.children = reader->nodes + reader->node_count;
        memcpy(reader->nodes + reader->node_count, reader->stack + reader->stack_count, count * sizeof node);
    }
    reader->node_count += count;
    node.op = op;
    node.count = count;
    iq_reader_push(reader, &node);
}

/* A part of this depth is complete, but for the `not`s before it. */
static bool iq_reader_end_part(iq_filter_reader *reader, uint32_t depth) {
    iq_filter_group *group = &reader->groups[reader->depth - 1];
    depth += group->nots;
    for (; group->nots > 0; group->nots--) iq_reader_join(reader, IQDB_FILTER_NOT, 1);
    group->parts++;
    if (depth > group->part_depth) group->part_depth = depth;
    /* Each open group may still become two nodes. */
    const size_t nodes = reader->node_count + reader->stack_count + 2 * reader->depth;
    if (nodes + reader->value_count > IQDB_FILTER_NODES_MAX)
        return iq_reader_fail(reader, reader->at, "there are too many tests and values");
    return depth <= IQDB_FILTER_DEPTH_MAX ||
           iq_reader_fail(reader, reader->at, "the filter is nested deeper than IQDB_FILTER_DEPTH_MAX");
}

/* An `or` or the end of the group: the parts become one either. */
static void iq_reader_end_either(iq_filter_reader *reader) {
    iq_filter_group *group = &reader->groups[reader->depth - 1];
    const uint32_t depth = group->part_depth + (group->parts > 1);
    if (group->parts > 1) iq_reader_join(reader, IQDB_FILTER_AND, group->parts);
    group->parts = 0;
    group->part_depth = 0;
    group->eithers++;
    if (depth > group->either_depth) group->either_depth = depth;
}

/* The group becomes one node; its depth. */
static uint32_t iq_reader_end_group(iq_filter_reader *reader) {
    iq_reader_end_either(reader);
    const iq_filter_group *group = &reader->groups[--reader->depth];
    if (group->eithers > 1) iq_reader_join(reader, IQDB_FILTER_OR, group->eithers);
    return group->either_depth + (group->eithers > 1);
}

static bool iq_reader_begin_group(iq_filter_reader *reader) {
    if (reader->depth > IQDB_FILTER_DEPTH_MAX)
        return iq_reader_fail(reader, reader->at, "there are more than IQDB_FILTER_DEPTH_MAX open parentheses");
    memset(&reader->groups[reader->depth++], 0, sizeof reader->groups[0]);
    return true;
}

/* `not`s, parentheses, and one test. */
static bool iq_reader_take_part(iq_filter_reader *reader) {
    iqdb_filter test;
    for (;;) {
        iq_filter_group *group = &reader->groups[reader->depth - 1];
        iq_reader_skip_space(reader);
        const size_t begin = reader->at;
        if (iq_reader_take_word(reader, "not")) {
            if (++group->nots == IQDB_FILTER_DEPTH_MAX)
                return iq_reader_fail(reader, begin, "the filter is nested deeper than IQDB_FILTER_DEPTH_MAX");
        } else if (iq_reader_peek(reader) == '(') {
            if (!iq_reader_begin_group(reader)) return false;
            reader->at++;
        } else {
            break;
        }
    }
    test = iqdb_filter_default();
    if (iq_reader_take_word(reader, "false"))
        test.op = IQDB_FILTER_OR; /* of none */
    else if (!iq_reader_take_word(reader, "true") && !iq_reader_take_test(reader, &test))
        return false;
    iq_reader_push(reader, &test);
    return iq_reader_end_part(reader, 1);
}

static bool iq_reader_take_filter(iq_filter_reader *reader) {
    /* What is made of a text is hardly longer, and within what a program may hold. */
    if (reader->size > IQDB_PAYLOAD_SIZE_MAX / 2) return iq_reader_fail(reader, 0, "the text is too long");
    (void)iq_reader_begin_group(reader);
    for (;;) {
        if (!iq_reader_take_part(reader)) return false;
        while (iq_reader_take_sign(reader, ')')) {
            if (reader->depth == 1) return iq_reader_fail(reader, reader->at - 1, "no parenthesis is open");
            if (!iq_reader_end_part(reader, iq_reader_end_group(reader))) return false;
        }
        if (iq_reader_take_word(reader, "and")) continue;
        if (reader->at == reader->size) break;
        if (!iq_reader_take_word(reader, "or"))
            return iq_reader_fail(reader, reader->at, "and, or, or the end is expected");
        iq_reader_end_either(reader);
    }
    if (reader->depth > 1) return iq_reader_fail(reader, reader->at, "a parenthesis is not closed");
    return iq_reader_end_group(reader) <= IQDB_FILTER_DEPTH_MAX ||
           iq_reader_fail(reader, reader->at, "the filter is nested deeper than IQDB_FILTER_DEPTH_MAX");
}

/* Shares `memory` out by what has been counted, and begins again. */
static void iq_reader_rewind(iq_filter_reader *reader, uint8_t *memory) {
    reader->nodes = (iqdb_filter *)(void *)memory;
    reader->stack = reader->nodes + reader->node_count;
    reader->values = (iqdb_value *)(void *)(reader->stack + reader->stack_max);
    reader->chars = (char *)(reader->values + reader->value_count);
    reader->at = reader->depth = 0;
    reader->node_count = reader->stack_count = reader->value_count = reader->char_count = 0;
}

IQDB_API iqdb_result iqdb_filter_parse(const char *text, size_t size, iqdb_buffer *buffer, iqdb_filter *out_filter,
                                       iqdb_error *out_error) {
    iq_filter_reader reader;
    uint8_t *memory;
    if (buffer == NULL || out_filter == NULL || (text == NULL && size > 0)) return IQDB_ERR_INVALID_ARGUMENT;
    if (iq_buffer_overlaps(buffer, text, size)) return IQDB_ERR_INVALID_ARGUMENT;
    memset(&reader, 0, sizeof reader);
    reader.text = text == NULL ? "" : text;
    reader.size = size;
    buffer->used = buffer->needed = 0;
    iqdb_result result = iq_reader_take_filter(&reader) ? IQDB_OK : IQDB_ERR_INVALID_FILTER;
    if (result == IQDB_OK) {
        reader.why = "the buffer cannot be as large as it would have to be";
        result = iq_buffer_start(buffer,
                                 (reader.node_count + reader.stack_max) * sizeof(iqdb_filter) +
                                     reader.value_count * sizeof(iqdb_value) + reader.char_count,
                                 &memory);
    }
    if (result != IQDB_OK) {
        if (out_error != NULL) *out_error = iq_error_make(result, NULL, reader.at, reader.why);
        return result;
    }
    iq_reader_rewind(&reader, memory);
    (void)iq_reader_take_filter(&reader);
    *out_filter = reader.stack[0];
    return IQDB_OK;
}

/* ---- To text ---- */

/* What is written lies in `buffer`, where nothing of the filter may lie. */
static bool iq_filter_lies_in(const iqdb_buffer *buffer, const iqdb_filter *filter) {
    const size_t count = filter->count;
    const bool is_test = !iq_filter_is_branch(filter) && filter->op != IQDB_FILTER_ALL;
    bool lies = iq_buffer_overlaps(buffer, filter, sizeof *filter) ||
                (is_test && iq_buffer_overlaps(buffer, filter->key, strlen(filter->key) + 1));
    const iqdb_value *values = filter->op == IQDB_FILTER_IN ? filter->values : NULL;
    for (size_t i = 0; is_test && !lies && i < (values != NULL ? count : 2); i++) {
        const iqdb_value *value = values != NULL ? values + i : i == 0 ? &filter->value : &filter->high;
        const bool has = value->type == IQDB_TYPE_TEXT || value->type == IQDB_TYPE_BYTES;
        lies = iq_buffer_overlaps(buffer, value, sizeof *value) ||
               (has && iq_buffer_overlaps(buffer, value->as.text.data, value->as.text.size));
    }
    return lies;
}

static void iq_writer_put(iq_text_sink *sink, const char *words) { iq_text_put(sink, words, strlen(words)); }

static void iq_writer_put_quoted(iq_text_sink *sink, const char *text, size_t size, char quote) {
    iq_text_put(sink, &quote, 1);
    for (size_t i = 0; i < size; i++) {
        iq_text_put(sink, text + i, 1);
        if (text[i] == quote) iq_text_put(sink, &quote, 1);
    }
    iq_text_put(sink, &quote, 1);
}

static void iq_writer_put_key(iq_text_sink *sink, const char *key) {
    iq_filter_reader reader;
    reader.text = key;
    reader.size = strlen(key);
    reader.at = 0;
    if (reader.size > 0 && iq_reader_word(&reader) == reader.size && !iq_word_is_reserved(key, reader.size))
        iq_writer_put(sink, key);
    else
        iq_writer_put_quoted(sink, key, reader.size, '"');
}

static void iq_writer_put_value(iq_text_sink *sink, const iqdb_value *value) {
    char number[IQ_NUMBER_SIZE_MAX];
    const uint64_t bits = value->type == IQDB_TYPE_FLOAT ? iq_f64_bits(value->as.real) : 0;
    switch ((unsigned)value->type) {
    case IQDB_TYPE_NULL:
        iq_writer_put(sink, "null");
        break;
    case IQDB_TYPE_BOOL:
        iq_writer_put(sink, value->as.boolean ? "true" : "false");
        break;
    case IQDB_TYPE_INT:
        iq_text_put(sink, number, iq_number_write_int(value->as.integer, number));
        break;
    case IQDB_TYPE_FLOAT:
        if ((bits & IQ_F64_INFINITY) != IQ_F64_INFINITY)
            iq_text_put(sink, number, iq_number_write_float(value->as.real, number));
        else
            iq_writer_put(sink, (bits & ~IQ_F64_SIGN) != IQ_F64_INFINITY ? "nan"
                                : bits >> 63 != 0                        ? "-infinity"
                                                                         : "infinity");
        break;
    case IQDB_TYPE_TEXT:
        iq_writer_put_quoted(sink, value->as.text.data, value->as.text.size, '\'');
        break;
    default: /* BYTES */
        iq_writer_put(sink, "x'");
        iq_text_put_hex(sink, (const uint8_t *)value->as.bytes.data, value->as.bytes.size);
        iq_writer_put(sink, "'");
        break;
    }
}

static void iq_writer_put_test(iq_text_sink *sink, const iqdb_filter *test) {
    static const char *const signs[] = {" = ", " != ", " < ", " <= ", " > ", " >= "};
    if (test->op < IQDB_FILTER_EQ || test->op > IQDB_FILTER_CONTAINS_VALUE) { /* a branch of none is a constant */
        iq_writer_put(sink, test->op == IQDB_FILTER_OR ? "false" : "true");
        return;
    }
    iq_writer_put_key(sink, test->key);
    if (test->op < IQDB_FILTER_BETWEEN) {
        iq_writer_put(sink, signs[test->op - IQDB_FILTER_EQ]);
    } else {
        iq_writer_put(sink, " ");
        iq_writer_put(sink, iq_filter_words[test->op - IQDB_FILTER_BETWEEN]);
    }
    if (test->op == IQDB_FILTER_IS_NULL) iq_writer_put(sink, " null");
    if (test->op == IQDB_FILTER_EXISTS || test->op == IQDB_FILTER_IS_NULL) return;
    if (test->op >= IQDB_FILTER_BETWEEN) iq_writer_put(sink, test->op == IQDB_FILTER_IN ? " (" : " ");
    if (test->op != IQDB_FILTER_IN) iq_writer_put_value(sink, &test->value);
    for (size_t i = 0; test->op == IQDB_FILTER_IN && i < test->count; i++) {
        if (i > 0) iq_writer_put(sink, ", ");
        iq_writer_put_value(sink, &test->values[i]);
    }
    if (test->op == IQDB_FILTER_IN) iq_writer_put(sink, ")");
    if (test->op != IQDB_FILTER_BETWEEN) return;
    iq_writer_put(sink, " and ");
    iq_writer_put_value(sink, &test->high);
}

typedef struct iq_writer_frame {
    const iqdb_filter *filter;
    size_t next;        /* of its children */
    iqdb_filter_op around; /* the branch whose part it is; ALL where it is the whole */
    bool in_parentheses;
} iq_writer_frame;

static bool iq_filter_joins(const iqdb_filter *filter) {
    return (filter->op == IQDB_FILTER_AND || filter->op == IQDB_FILTER_OR) && filter->count > 1;
}

/* Whether nothing of it lies in the buffer. */
static bool iq_writer_put_filter(iq_text_sink *sink, const iqdb_filter *filter, const iqdb_buffer *buffer) {
    iq_writer_frame frames[IQDB_FILTER_DEPTH_MAX];
    size_t depth = 1;
    const iq_writer_frame whole = {filter, 0, IQDB_FILTER_ALL, false};
    frames[0] = whole;
    while (depth > 0) {
        iq_writer_frame *top = &frames[depth - 1];
        const iqdb_filter *parent = top->filter;
        if (sink->text == NULL && iq_filter_lies_in(buffer, parent)) return false;
        if (!iq_filter_is_branch(parent) || parent->count == 0) iq_writer_put_test(sink, parent);
        if (!iq_filter_is_branch(parent) || top->next == parent->count) {
            if (top->in_parentheses) iq_writer_put(sink, ")");
            depth--;
            continue;
        }
        if (parent->op == IQDB_FILTER_NOT) iq_writer_put(sink, "not ");
        if (top->next > 0) iq_writer_put(sink, parent->op == IQDB_FILTER_AND ? " and " : " or ");
        const bool binds = parent->op == IQDB_FILTER_NOT || iq_filter_joins(parent);
        iq_writer_frame child = {&parent->children[top->next++], 0, binds ? parent->op : top->around, false};
        child.in_parentheses = iq_filter_joins(child.filter) && child.around != IQDB_FILTER_ALL &&
                               !(child.around == IQDB_FILTER_OR && child.filter->op == IQDB_FILTER_AND);
        if (child.in_parentheses) iq_writer_put(sink, "(");
        frames[depth++] = child;
    }
    return true;
}

IQDB_API iqdb_result iqdb_filter_to_text(const iqdb_filter *filter, iqdb_buffer *buffer, const char **out_text,
                                         size_t *out_size) {
    iq_filter_layout layout;
    uint8_t *bytes;
    if (filter == NULL || buffer == NULL || out_text == NULL) return IQDB_ERR_INVALID_ARGUMENT;
    if (iq_filter_measure(filter, &layout) != NULL) return IQDB_ERR_INVALID_FILTER;
    iq_text_sink sink = {NULL, 0};
    if (!iq_writer_put_filter(&sink, filter, buffer)) return IQDB_ERR_INVALID_ARGUMENT;
    buffer->used = buffer->needed = 0;
    const iqdb_result result = iq_buffer_start(buffer, sink.size + 1, &bytes);
    if (result != IQDB_OK) return result;
    sink.text = (char *)bytes;
    sink.size = 0;
    (void)iq_writer_put_filter(&sink, filter, buffer);
    sink.text[sink.size] = 0;
    *out_text = sink.text;
    if (out_size != NULL) *out_size = sink.size;
    return IQDB_OK;
}

#endif
