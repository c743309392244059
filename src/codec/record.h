/* The body of a logged record. persist/ carries it as opaque bytes.
 *   0  u8   type: 1 upsert, 2 delete, 3 create a collection, 4 drop one, 5 choose an index for one,
 *           6 name the payload keys that one indexes
 *   1  u8   upsert, create: iqdb_element of the vector; else 0
 *   2  u8   upsert: 1 when a payload follows; else 0
 *   3  u8   0
 *   4  u32  collection, 0 = the default one, which is neither created nor dropped
 *   8  u64  upsert, delete: id; create: iqdb_metric; drop, choose, name: 0
 *  16  u32  upsert: dim, 1 to IQDB_DIM_MAX; create: dim, 0 while not known; else 0
 *  20  u32  upsert: bytes of the payload, 0 without one; create: bytes of the name; choose: IQ_CHOICE_SIZE;
 *           name: of the set; else 0
 *  24  upsert: dim elements packed, little-endian, then the payload; create: the name; choose: the choice; name:
 *      the set; then zeros to the end (the log pads)
 * A set of keys, at most IQ_KEY_SET_SIZE_MAX bytes, in a snapshot too: each as u8 1 + its iqdb_key_kind, key, u8 0; and
 * behind the last one u8 0. Without any: only that.
 * The choice of an index, in a snapshot too:
 *   0  u32  iqdb_index
 *   4  u32  of its knobs nlist, nprobe, m, ef_construction, ef_search, 0 for what is not chosen
 *  24  u64  seed, 0 likewise */
#ifndef IQ_CODEC_RECORD_H
#define IQ_CODEC_RECORD_H

#include "base/element.h"

#define IQ_RECORD_HEAD_SIZE 24
#define IQ_RECORD_UPSERT 1u
#define IQ_RECORD_DELETE 2u
#define IQ_RECORD_CREATE 3u
#define IQ_RECORD_DROP 4u
#define IQ_RECORD_CHOOSE 5u
#define IQ_RECORD_KEYS 6u
#define IQ_CHOICE_SIZE 32u
#define IQ_KEY_SET_SIZE_MAX 2048u

typedef struct iq_logged_record {
    uint8_t type;
    iqdb_element element;
    uint32_t collection;
    uint64_t id; /* or the metric */
    uint32_t dim;
    const uint8_t *vector; /* dim elements, little-endian, at any alignment; of an upsert */
    bool has_payload;
    const uint8_t *payload; /* NULL where there is none; or the name, the choice, or the set */
    uint32_t payload_size;
} iq_logged_record;

/* The first IQ_RECORD_HEAD_SIZE bytes; vector and payload, or name or choice, follow as they are (words little-endian). Of a
 * delete only collection and id are looked at, of an upsert payload_size only where has_payload. */
IQ_FN void iq_record_encode_head(const iq_logged_record *record, uint8_t *out);

/* Pointers of *out lie in `bytes`. CORRUPT on anything that encode would not have made: lengths, unknown types,
 * bytes that are no vector, payloads that do not validate, non-zero padding. Any collection passes. */
IQ_FN iqdb_result iq_record_decode(const uint8_t *bytes, size_t size, iq_logged_record *out);

/* Whether it may be that of a collection. */
IQ_FN bool iq_name_is_valid(const void *name, size_t size);

#endif
