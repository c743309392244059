/* Filters: constructors, compilation, evaluation.
 *
 * 1. A program is a list of tests, each with a step for true and one for false, as in the short-circuit code of a
 *    compiler (Aho, Sethi, Ullman, "Compilers", section 8.4). and, or and not leave nothing behind but these targets.
 * 2. The last test is made first, so every target is known when it is needed, and every jump leads to a smaller index:
 *    an evaluation ends after as many tests as there are.
 * 3. Measuring and compiling are one walk, without recursion: open branches stand on a stack of IQDB_FILTER_DEPTH_MAX.
 *    A filter whose parts are shared, or that contains itself, ends with the limit of nodes or of depth.
 * 4. A program owns what it needs: keys and constants are copied, the constants in the encoding of payloads, so that two
 *    encoded values are all that is ever compared.
 * 5. The constants of `in` are sorted by kind and value, so one field takes log2(1,024) comparisons. */
#include "store/filter.h"

/* ---- Constructors ---- */

#if IQ_HAS_FILTERS

static iqdb_filter iq_filter_make(iqdb_filter_op op, const char *key, const iqdb_filter *children, size_t count) {
    iqdb_filter filter;
    memset(&filter, 0, sizeof filter);
    filter.op = op;
    filter.key = key;
    filter.children = children;
    filter.count = count;
    return filter;
}

/* The tests of a key against one value. */
#define IQ_DEFINE_TEST(name, op) \
    IQDB_API iqdb_filter name(const char *key, iqdb_value value) { \
        iqdb_filter filter = iq_filter_make(op, key, NULL, 0); \
        filter.value = value; \
        return filter; \
    }

IQ_DEFINE_TEST(iqdb_eq, IQDB_FILTER_EQ)
IQ_DEFINE_TEST(iqdb_ne, IQDB_FILTER_NE)
IQ_DEFINE_TEST(iqdb_lt, IQDB_FILTER_LT)
IQ_DEFINE_TEST(iqdb_le, IQDB_FILTER_LE)
IQ_DEFINE_TEST(iqdb_gt, IQDB_FILTER_GT)
IQ_DEFINE_TEST(iqdb_ge, IQDB_FILTER_GE)
IQ_DEFINE_TEST(iqdb_contains_value, IQDB_FILTER_CONTAINS_VALUE)

IQDB_API iqdb_filter iqdb_filter_default(void) { return iq_filter_make(IQDB_FILTER_ALL, NULL, NULL, 0); }

IQDB_API iqdb_filter iqdb_between(const char *key, iqdb_value low, iqdb_value high) {
    iqdb_filter filter = iqdb_ge(key, low);
    filter.op = IQDB_FILTER_BETWEEN;
    filter.high = high;
    return filter;
}

IQDB_API iqdb_filter iqdb_in(const char *key, const iqdb_value *values, size_t count) {
    iqdb_filter filter = iq_filter_make(IQDB_FILTER_IN, key, NULL, count);
    filter.values = values;
    return filter;
}

IQDB_API iqdb_filter iqdb_prefix(const char *key, const char *zero_terminated) {
    iqdb_filter filter = iqdb_eq(key, iqdb_text(zero_terminated));
    filter.op = IQDB_FILTER_PREFIX;
    return filter;
}

IQDB_API iqdb_filter iqdb_exists(const char *key) { return iq_filter_make(IQDB_FILTER_EXISTS, key, NULL, 0); }

IQDB_API iqdb_filter iqdb_is_null(const char *key) { return iq_filter_make(IQDB_FILTER_IS_NULL, key, NULL, 0); }

IQDB_API iqdb_filter iqdb_and(const iqdb_filter *children, size_t count) {
    return iq_filter_make(IQDB_FILTER_AND, NULL, children, count);
}

IQDB_API iqdb_filter iqdb_or(const iqdb_filter *children, size_t count) {
    return iq_filter_make(IQDB_FILTER_OR, NULL, children, count);
}

IQDB_API iqdb_filter iqdb_not(const iqdb_filter *child) { return iq_filter_make(IQDB_FILTER_NOT, NULL, child, 1); }

#endif

/* ---- Comparing encoded values ---- */

enum {
    IQ_ORDER_LESS = 1,
    IQ_ORDER_EQUAL = 2,
    IQ_ORDER_GREATER = 4,
    IQ_ORDER_UNEQUAL = 8 /* of one kind and yet in no order: a NaN is among them */
};

IQ_FN unsigned iq_filter_kind(const uint8_t *value, size_t size) {
    const unsigned type = size == 0 ? (unsigned)IQDB_TYPE_ABSENT : value[0];
    if (type == IQDB_TYPE_INT || type == IQDB_TYPE_FLOAT) return size == 9 ? 3 : 0;
    if (type == IQDB_TYPE_NULL) return size == 1 ? 1 : 0;
    if (type == IQDB_TYPE_BOOL) return size == 2 ? 2 : 0;
    if (type == IQDB_TYPE_TEXT) return size >= 2 ? 4 : 0;
    return type == IQDB_TYPE_BYTES ? 5 : 0;
}

static unsigned iq_order(bool is_less, bool is_greater) {
    return is_less ? IQ_ORDER_LESS : is_greater ? IQ_ORDER_GREATER : IQ_ORDER_EQUAL;
}

/* Exact: a double that is no int64 lies beyond all of them or between two. */
static unsigned iq_order_int_float(int64_t a, double b) {
    if (b >= 9223372036854775808.0) return IQ_ORDER_LESS;
    if (b < -9223372036854775808.0) return IQ_ORDER_GREATER;
    const int64_t whole = (int64_t)b;
    const double rest = b - (double)whole;
    return a != whole ? iq_order(a < whole, true) : iq_order(rest > 0, rest < 0);
}

static unsigned iq_order_numbers(const uint8_t *a, const uint8_t *b) {
    const uint64_t a_bits = iq_get_u64(a + 1), b_bits = iq_get_u64(b + 1);
    const double a_float = iq_f64_from_bits(a_bits), b_float = iq_f64_from_bits(b_bits);
    const bool a_floats = a[0] == IQDB_TYPE_FLOAT, b_floats = b[0] == IQDB_TYPE_FLOAT;
    int64_t a_int, b_int;
    memcpy(&a_int, &a_bits, 8);
    memcpy(&b_int, &b_bits, 8);
    if ((a_floats && iq_f64_is_nan(a_float)) || (b_floats && iq_f64_is_nan(b_float))) return IQ_ORDER_UNEQUAL;
    if (a_floats && b_floats) return iq_order(a_float<b_float, a_float> b_float);
    if (b_floats) return iq_order_int_float(a_int, b_float);
    if (!a_floats) return iq_order(a_int<b_int, a_int> b_int);
    const unsigned turned = iq_order_int_float(b_int, a_float);
    return iq_order(turned == IQ_ORDER_GREATER, turned == IQ_ORDER_LESS);
}

/* Where the two cannot be compared: the order of their kinds, in which the constants of `in` are sorted, or 0. */
static unsigned iq_filter_order(const uint8_t *value, size_t size, const iq_filter_operand *operand, bool by_kinds) {
    const unsigned kind = iq_filter_kind(value, size);
    if (kind != operand->kind) return by_kinds ? iq_order(kind < operand->kind, true) : 0;
    if (kind == 3) return iq_order_numbers(value, operand->bytes);
    /* The NUL of a text is less than all that may stand in its place, so it needs no care. */
    const int order = memcmp(value, operand->bytes, size < operand->size ? size : operand->size);
    return order != 0 ? iq_order(order < 0, true) : iq_order(size<operand->size, size> operand->size);
}

IQ_FN bool iq_filter_is_equal(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size) {
    const iq_filter_operand operand = {b, b_size, iq_filter_kind(b, b_size)};
    return operand.kind != 0 && iq_filter_order(a, a_size, &operand, false) == IQ_ORDER_EQUAL;
}

/* ---- Values of keys ---- */

/* memcmp for few bytes, without the call: keys are short. */
IQ_INLINE bool iq_filter_is_same(const uint8_t *a, const char *b, size_t size) {
    uint64_t a_first, b_first, a_last, b_last;
    if (size < 8 || size > 16) return memcmp(a, b, size) == 0;
    memcpy(&a_first, a, 8);
    memcpy(&b_first, b, 8);
    memcpy(&a_last, a + size - 8, 8);
    memcpy(&b_last, b + size - 8, 8);
    return a_first == b_first && a_last == b_last;
}

IQ_FN iq_filter_key iq_filter_key_make(const char *text, size_t size) {
    const iq_filter_key key = {text, size, 0, memchr(text, '.', size) != NULL};
    return key;
}

/* Records of a collection mostly have the same keys, so the place where it was found last is tried first. */
IQ_FN bool iq_filter_find(iq_filter_key *key, const iq_container *fields, const uint8_t **out_value, size_t *out_size) {
    const uint8_t *item;
    size_t size, index = IQ_ATOMIC_LOAD(&key->index);
    if (!iq_container_item(fields, index, &item, &size) || size < key->size + 2 ||
        !iq_filter_is_same(item, key->text, key->size + 1)) {
        if (!iq_container_find(fields, key->text, key->size, &index, &item, &size) || size < key->size + 2)
            return key->has_dot && iq_container_get(fields, key->text, key->size, out_value, out_size);
        IQ_ATOMIC_STORE(&key->index, (uint32_t)index);
    }
    *out_value = item + key->size + 1;
    *out_size = size - key->size - 1;
    return true;
}

#if IQ_HAS_FILTERS

/* ---- Measuring and compiling ---- */

typedef struct iq_filter_frame {
    const iqdb_filter *branch;
    size_t left; /* children to come; the last one comes first */
    uint32_t on_true, on_false;
    uint32_t entry; /* of what has been made of it */
} iq_filter_frame;

typedef struct iq_filter_maker {
    iq_filter_step *steps; /* NULL: measuring */
    iq_filter_operand *operands;
    uint8_t *bytes;
    size_t step_count, operand_count, node_count;
    uint64_t byte_count;
    const char *why;
    iq_filter_frame frames[IQDB_FILTER_DEPTH_MAX];
} iq_filter_maker;

static bool iq_filter_fail(iq_filter_maker *maker, const char *why) {
    maker->why = why;
    return false;
}

/* Room for `size` bytes; NULL while measuring. */
static uint8_t *iq_filter_take(iq_filter_maker *maker, size_t size) {
    uint8_t *room = maker->bytes == NULL ? NULL : maker->bytes + maker->byte_count;
    maker->byte_count += size;
    return room;
}

static bool iq_filter_put_operand(iq_filter_maker *maker, const iqdb_value *value) {
    const unsigned type = (unsigned)value->type;
    const bool is_text = type == IQDB_TYPE_TEXT, is_bytes = type == IQDB_TYPE_BYTES;
    const size_t size = is_text ? value->as.text.size : is_bytes ? value->as.bytes.size : 0;
    if (type > IQDB_TYPE_BYTES) return iq_filter_fail(maker, "a field is compared with an array, an object or nothing");
    if (is_text && value->as.text.data == NULL) return iq_filter_fail(maker, "a text is NULL");
    if (is_text && !iq_utf8_is_valid(value->as.text.data, size)) return iq_filter_fail(maker, "a text is not UTF-8");
    if (is_bytes && value->as.bytes.data == NULL && size > 0) return iq_filter_fail(maker, "bytes are NULL");
    if (size > IQDB_PAYLOAD_SIZE_MAX) return iq_filter_fail(maker, "a value is larger than IQDB_PAYLOAD_SIZE_MAX");
    const size_t all = 1 + iq_value_write(value, NULL);
    uint8_t *room = iq_filter_take(maker, all);
    if (room != NULL) {
        iq_filter_operand *operand = &maker->operands[maker->operand_count];
        room[0] = (uint8_t)value->type;
        (void)iq_value_write(value, room + 1);
        operand->bytes = room;
        operand->size = all;
        operand->kind = iq_filter_kind(room, all);
    }
    maker->operand_count++;
    return true;
}

/* Shell's sort with gaps that are one third of the one before: few values need few, and 1,024 some 15,000 moves. NaNs
 * equal nothing, so they are left out. */
static void iq_filter_sort(iq_filter_operand *operands, uint32_t *count) {
    uint32_t kept = 0, gap = 1;
    for (uint32_t i = 0; i < *count; i++)
        if (iq_filter_order(operands[i].bytes, operands[i].size, &operands[i], true) == IQ_ORDER_EQUAL)
            operands[kept++] = operands[i];
    *count = kept;
    while (gap < kept / 3) gap = 3 * gap + 1;
    for (; gap > 0; gap /= 3) {
        for (uint32_t i = gap; i < kept; i++) {
            const iq_filter_operand moved = operands[i];
            uint32_t j = i;
            for (; j >= gap; j -= gap) {
                if (iq_filter_order(moved.bytes, moved.size, &operands[j - gap], true) != IQ_ORDER_LESS) break;
                operands[j] = operands[j - gap];
            }
            operands[j] = moved;
        }
    }
}

static bool iq_filter_put_operands(iq_filter_maker *maker, const iqdb_filter *filter) {
    if (filter->op == IQDB_FILTER_EXISTS || filter->op == IQDB_FILTER_IS_NULL) return true;
    if (filter->op == IQDB_FILTER_IN) {
        if (filter->count > IQDB_FILTER_IN_MAX)
            return iq_filter_fail(maker, "there are more than IQDB_FILTER_IN_MAX values in a list");
        if (filter->count > 0 && filter->values == NULL) return iq_filter_fail(maker, "a list of values is NULL");
        for (size_t i = 0; i < filter->count; i++)
            if (!iq_filter_put_operand(maker, &filter->values[i])) return false;
        return true;
    }
    if (filter->op == IQDB_FILTER_PREFIX && filter->value.type != IQDB_TYPE_TEXT)
        return iq_filter_fail(maker, "a prefix must be a text");
    if (!iq_filter_put_operand(maker, &filter->value)) return false;
    return filter->op != IQDB_FILTER_BETWEEN || iq_filter_put_operand(maker, &filter->high);
}

/* For which orders a comparison holds; of BETWEEN, that with its low end. */
static const uint8_t iq_filter_orders[IQDB_FILTER_CONTAINS_VALUE + 1] = {0,
                                                                         IQ_ORDER_EQUAL,
                                                                         IQ_ORDER_LESS | IQ_ORDER_GREATER |
                                                                             IQ_ORDER_UNEQUAL,
                                                                         IQ_ORDER_LESS,
                                                                         IQ_ORDER_LESS | IQ_ORDER_EQUAL,
                                                                         IQ_ORDER_GREATER,
                                                                         IQ_ORDER_GREATER | IQ_ORDER_EQUAL,
                                                                         IQ_ORDER_GREATER | IQ_ORDER_EQUAL};

/* Makes the step of a test. */
static bool iq_filter_put_test(iq_filter_maker *maker, const iqdb_filter *filter, uint32_t on_true, uint32_t on_false) {
    const size_t first = maker->operand_count;
    if (filter->key == NULL) return iq_filter_fail(maker, "a key is NULL");
    const size_t key_size = strlen(filter->key);
    if (!iq_utf8_is_valid(filter->key, key_size)) return iq_filter_fail(maker, "a key is not UTF-8");
    uint8_t *key = iq_filter_take(maker, key_size + 1);
    if (!iq_filter_put_operands(maker, filter)) return false;
    if (maker->byte_count > IQDB_PAYLOAD_SIZE_MAX) return iq_filter_fail(maker, "the values are too large together");
    const size_t index = maker->step_count++;
    if (maker->steps == NULL) return true;
    memcpy(key, filter->key, key_size + 1);
    iq_filter_step *step = &maker->steps[index];
    step->key = iq_filter_key_make((const char *)key, key_size);
    step->operands = maker->operands + first;
    step->operand_count = (uint32_t)(maker->operand_count - first);
    step->on_true = on_true;
    step->on_false = on_false;
    step->op = (uint8_t)filter->op;
    step->orders = iq_filter_orders[filter->op];
    if (filter->op == IQDB_FILTER_IN) iq_filter_sort(maker->operands + first, &step->operand_count);
    return true;
}

/* What has no children: a test, or what is true or false by itself. *out_entry is where it begins. */
static bool iq_filter_put_leaf(iq_filter_maker *maker, const iqdb_filter *filter, uint32_t on_true, uint32_t on_false,
                               uint32_t *out_entry) {
    if (filter->op == IQDB_FILTER_ALL || filter->op == IQDB_FILTER_AND || filter->op == IQDB_FILTER_OR) {
        *out_entry = filter->op == IQDB_FILTER_OR ? on_false : on_true;
        return true;
    }
    if (filter->op < IQDB_FILTER_EQ || filter->op > IQDB_FILTER_CONTAINS_VALUE)
        return iq_filter_fail(maker, "the operator is unknown");
    *out_entry = (uint32_t)maker->step_count;
    return iq_filter_put_test(maker, filter, on_true, on_false);
}

static bool iq_filter_check_node(iq_filter_maker *maker, const iqdb_filter *filter, size_t depth) {
    maker->node_count += 1 + (filter->op == IQDB_FILTER_IN && filter->count <= IQDB_FILTER_IN_MAX ? filter->count : 0);
    if (maker->node_count > IQDB_FILTER_NODES_MAX)
        return iq_filter_fail(maker, "there are more than IQDB_FILTER_NODES_MAX tests, branches and values");
    if (depth == IQDB_FILTER_DEPTH_MAX)
        return iq_filter_fail(maker, "the filter is nested deeper than IQDB_FILTER_DEPTH_MAX");
    if (!iq_filter_is_branch(filter)) return true;
    if (filter->children == NULL && filter->count > 0)
        return iq_filter_fail(maker, "the children of a branch are NULL");
    return filter->op != IQDB_FILTER_NOT || filter->count == 1 || iq_filter_fail(maker, "not takes one child");
}

/* Walks the filter; *out_entry is where its program begins. */
static bool iq_filter_walk(iq_filter_maker *maker, const iqdb_filter *filter, uint32_t *out_entry) {
    size_t depth = 0;
    uint32_t on_true = IQ_FILTER_ACCEPT, on_false = IQ_FILTER_REJECT, entry;
    for (;;) {
        if (!iq_filter_check_node(maker, filter, depth)) return false;
        if (iq_filter_is_branch(filter) && filter->count > 0) {
            iq_filter_frame *frame = &maker->frames[depth++];
            frame->branch = filter;
            frame->left = filter->count;
            frame->on_true = on_true;
            frame->on_false = on_false;
            frame->entry = filter->op == IQDB_FILTER_OR ? on_false : on_true;
        } else {
            if (!iq_filter_put_leaf(maker, filter, on_true, on_false, &entry)) return false;
            while (depth > 0 && maker->frames[depth - 1].left == 0) depth--;
            if (depth == 0) break;
            maker->frames[depth - 1].entry = entry;
        }
        /* The next child to the left: where it does not decide, the evaluation goes on with its right neighbour. */
        iq_filter_frame *top = &maker->frames[depth - 1];
        const iqdb_filter_op op = top->branch->op;
        filter = &top->branch->children[--top->left];
        on_true = op == IQDB_FILTER_AND ? top->entry : op == IQDB_FILTER_OR ? top->on_true : top->on_false;
        on_false = op == IQDB_FILTER_AND ? top->on_false : op == IQDB_FILTER_OR ? top->entry : top->on_true;
    }
    *out_entry = entry;
    return true;
}

IQ_FN const char *iq_filter_measure(const iqdb_filter *filter, iq_filter_layout *out_layout) {
    iq_filter_maker maker;
    uint32_t entry;
    memset(&maker, 0, offsetof(iq_filter_maker, frames));
    const bool is_whole = iq_filter_walk(&maker, filter, &entry);
    out_layout->step_count = maker.step_count;
    out_layout->operand_count = maker.operand_count;
    out_layout->size_bytes = maker.step_count * sizeof(iq_filter_step) +
                             maker.operand_count * sizeof(iq_filter_operand) + (size_t)maker.byte_count + 1;
    return is_whole ? NULL : maker.why;
}

IQ_FN void iq_filter_compile(const iqdb_filter *filter, const iq_filter_layout *layout, void *memory, iq_filter *out) {
    iq_filter_maker maker;
    memset(&maker, 0, offsetof(iq_filter_maker, frames));
    maker.steps = (iq_filter_step *)memory;
    maker.operands = (iq_filter_operand *)(void *)(maker.steps + layout->step_count);
    maker.bytes = (uint8_t *)(maker.operands + layout->operand_count);
    out->steps = maker.steps;
    out->entry = IQ_FILTER_REJECT;
    (void)iq_filter_walk(&maker, filter, &out->entry);
}

/* ---- Evaluating ---- */

/* Whether one of the sorted operands equals the value. */
static bool iq_filter_is_among(const iq_filter_step *step, const uint8_t *value, size_t size) {
    uint32_t low = 0, high = step->operand_count;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        const unsigned order = iq_filter_order(value, size, &step->operands[middle], true);
        if (order == IQ_ORDER_EQUAL) return true;
        if (order == IQ_ORDER_LESS)
            high = middle;
        else
            low = middle + 1;
    }
    return false;
}

static bool iq_filter_array_contains(const iq_filter_operand *operand, const uint8_t *value, size_t size) {
    iq_container array;
    const uint8_t *item;
    size_t item_size;
    if (value[0] != IQDB_TYPE_ARRAY || !iq_container_open(value + 1, size - 1, false, &array)) return false;
    for (uint32_t i = 0; i < array.count; i++)
        if (iq_container_item(&array, i, &item, &item_size) &&
            iq_filter_order(item, item_size, operand, false) == IQ_ORDER_EQUAL)
            return true;
    return false;
}

static bool iq_filter_step_holds(iq_filter_step *step, const iq_container *fields) {
    const uint8_t *value;
    size_t size;
    if (!iq_filter_find(&step->key, fields, &value, &size)) return false;
    const iq_filter_operand *operand = step->operands;
    if (step->orders != 0 && (iq_filter_order(value, size, operand, false) & step->orders) == 0) return false;
    switch (step->op) {
    case IQDB_FILTER_IS_NULL:
        return value[0] == IQDB_TYPE_NULL;
    case IQDB_FILTER_BETWEEN:
        return (iq_filter_order(value, size, operand + 1, false) & (IQ_ORDER_LESS | IQ_ORDER_EQUAL)) != 0;
    case IQDB_FILTER_IN:
        return iq_filter_is_among(step, value, size);
    case IQDB_FILTER_PREFIX: /* all of the operand but its NUL; a text of that size has one byte more */
        return size >= operand->size && memcmp(value, operand->bytes, operand->size - 1) == 0;
    case IQDB_FILTER_CONTAINS_VALUE:
        return iq_filter_array_contains(operand, value, size);
    default: /* EXISTS, or it was a comparison */
        return true;
    }
}

IQ_FN bool iq_filter_accepts(const iq_filter *filter, iqdb_payload payload) {
    iq_container fields;
    (void)iq_container_open(payload.bytes, payload.size, true, &fields);
    uint32_t at = filter->entry;
    while (at < IQ_FILTER_REJECT) {
        iq_filter_step *step = &filter->steps[at];
        at = iq_filter_step_holds(step, &fields) ? step->on_true : step->on_false;
    }
    return at == IQ_FILTER_ACCEPT;
}

#endif
