// iqdb.hpp: iqdb.h for C++17 and later, in the style of C++: handles that close themselves and can only be moved, views
// in place of pointers and counts, and results in place of exceptions, which are neither thrown nor needed. Everything
// that is not here is in iqdb.h, and `get()` of each handle leads there.
//
//   #include "iqdb.hpp"          // in one source file behind #define IQDB_IMPLEMENTATION, or beside an iqdb.c
//
//   auto opened = iq::database::open("notes-db");
//   if (!opened) return report(opened.error());
//   iq::database db = std::move(*opened);
//   db.upsert(1, vector, {iq::field("kind", "note"), iq::field("year", 2024)});
//   for (const iq::hit &hit : db.search(vector, 10)) std::cout << hit.id << ' ' << hit.score << '\n';
#ifndef IQDB_HPP
#define IQDB_HPP

#include "iqdb.h"

#include <initializer_list>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace iq {

// What went wrong, or nothing. It has to be looked at.
class [[nodiscard]] status {
public:
    status(iqdb_result code = IQDB_OK) noexcept : code_(code) {}
    explicit operator bool() const noexcept { return code_ == IQDB_OK; }
    iqdb_result code() const noexcept { return code_; }
    const char *text() const noexcept { return iqdb_strerror(code_); }
    friend bool operator==(status a, status b) noexcept { return a.code_ == b.code_; }
    friend bool operator!=(status a, status b) noexcept { return a.code_ != b.code_; }

private:
    iqdb_result code_;
};

// A value, or why there is none.
template <class T> class [[nodiscard]] result {
public:
    result(T &&value) noexcept(std::is_nothrow_move_constructible<T>::value) : value_(std::move(value)) {}
    result(status why) noexcept : status_(why) {}
    explicit operator bool() const noexcept { return static_cast<bool>(status_); }
    status error() const noexcept { return status_; }
    T &operator*() noexcept { return value_; }
    const T &operator*() const noexcept { return value_; }
    T *operator->() noexcept { return &value_; }
    const T *operator->() const noexcept { return &value_; }

private:
    T value_{};
    status status_;
};

// A view of elements that somebody else owns: std::span, which C++17 has not got.
template <class T> class view {
public:
    using item = typename std::remove_const<T>::type;
    constexpr view() noexcept = default;
    constexpr view(T *data, size_t size) noexcept : data_(data), size_(size) {}
    template <size_t N> constexpr view(T (&array)[N]) noexcept : data_(array), size_(N) {}
    template <class C, class = decltype(std::declval<C &>().data()),
              class = typename std::enable_if<!std::is_same<typename std::decay<C>::type, view>::value>::type>
    constexpr view(C &&container) noexcept : data_(container.data()), size_(container.size()) {}
    constexpr T *data() const noexcept { return data_; }
    constexpr size_t size() const noexcept { return size_; }
    constexpr T &operator[](size_t i) const noexcept { return data_[i]; }
    constexpr T *begin() const noexcept { return data_; }
    constexpr T *end() const noexcept { return data_ + size_; }

private:
    T *data_ = nullptr;
    size_t size_ = 0;
};

// ---- Values and payloads ----

inline iqdb_value value(std::nullptr_t) noexcept { return iqdb_null(); }
inline iqdb_value value(std::string_view text) noexcept { return iqdb_text_n(text.data(), text.size()); }
inline iqdb_value value(const char *text) noexcept { return iqdb_text(text); }
template <class T> typename std::enable_if<std::is_arithmetic<T>::value, iqdb_value>::type value(T number) noexcept {
    if constexpr (std::is_same<T, bool>::value) return iqdb_bool(number);
    else if constexpr (std::is_floating_point<T>::value) return iqdb_float(static_cast<double>(number));
    else return iqdb_int(static_cast<int64_t>(number));
}

// `key` and what a text or a list is made of have to live as long as the field.
template <class T> iqdb_field field(const char *key, const T &of) noexcept { return iqdb_field{key, value(of)}; }

// Fields of a record that was read; good as long as what it was read from.
class payload {
public:
    payload(iqdb_payload bytes = {nullptr, 0}) noexcept : bytes_(bytes) {}
    explicit operator bool() const noexcept { return bytes_.bytes != nullptr; }
    iqdb_value operator[](const char *key) const noexcept { return iqdb_payload_get(bytes_, key); }
    int64_t integer(const char *key, int64_t other = 0) const noexcept { return iqdb_payload_int(bytes_, key, other); }
    double real(const char *key, double other = 0) const noexcept { return iqdb_payload_float(bytes_, key, other); }
    bool boolean(const char *key, bool other = false) const noexcept { return iqdb_payload_bool(bytes_, key, other); }
    std::string_view text(const char *key) const noexcept {
        size_t size = 0;
        const char *data = iqdb_payload_text(bytes_, key, &size);
        return data != nullptr ? std::string_view(data, size) : std::string_view();
    }
    iqdb_payload get() const noexcept { return bytes_; }

private:
    iqdb_payload bytes_;
};

// Memory for what is read. It grows, is used again, and can only be moved.
class buffer {
public:
    buffer() noexcept : raw_(iqdb_buffer_default()) {}
    buffer(buffer &&other) noexcept : raw_(std::exchange(other.raw_, iqdb_buffer_default())) {}
    buffer &operator=(buffer &&other) noexcept { return std::swap(raw_, other.raw_), *this; }
    ~buffer() { iqdb_buffer_free(&raw_); }
    iqdb_buffer *get() noexcept { return &raw_; }

private:
    iqdb_buffer raw_;
};

struct hit {
    uint64_t id;
    float score;
    iq::payload payload; // where it was asked for
};

// Hits, nearest first, and the memory of their payloads.
class hits {
public:
    hits() = default;
    hits(std::vector<hit> items, buffer memory) noexcept : items_(std::move(items)), memory_(std::move(memory)) {}
    hits(status why) noexcept : status_(why) {}
    status error() const noexcept { return status_; }
    size_t size() const noexcept { return items_.size(); }
    const hit &operator[](size_t i) const noexcept { return items_[i]; }
    auto begin() const noexcept { return items_.begin(); }
    auto end() const noexcept { return items_.end(); }

private:
    std::vector<hit> items_;
    buffer memory_;
    status status_;
};

// A record that was read, and its memory.
class record {
public:
    view<const float> vector() const noexcept { return {raw_.vector, raw_.dim}; }
    iq::payload payload() const noexcept { return raw_.payload; }
    uint64_t id() const noexcept { return raw_.id; }

private:
    friend class database;
    iqdb_record raw_ = iqdb_record_default();
    buffer memory_;
};

// ---- The database ----

class database {
public:
    static result<database> open(const char *path, const iqdb_options *options = nullptr) noexcept {
        return made([&](iqdb **out) { return iqdb_open(path, options, out); });
    }
    static result<database> open_in_memory(const iqdb_options *options = nullptr) noexcept {
        return made([&](iqdb **out) { return iqdb_open_in_memory(options, out); });
    }
    static result<database> open_blob(view<const unsigned char> blob, const iqdb_options *options = nullptr) noexcept {
        return made([&](iqdb **out) { return iqdb_open_blob(blob.data(), blob.size(), options, out); });
    }

    database() noexcept = default;
    database(database &&other) noexcept : db_(std::exchange(other.db_, nullptr)) {}
    database &operator=(database &&other) noexcept { return std::swap(db_, other.db_), *this; }
    ~database() { (void)iqdb_close(db_); }

    // What the destructor cannot tell: whether everything written is durable.
    status close() noexcept {
        const iqdb_result code = iqdb_close(db_);
        if (code != IQDB_ERR_BUSY) db_ = nullptr;
        return code;
    }

    status upsert(uint64_t id, view<const float> vector, view<const iqdb_field> fields = {}) noexcept {
        iqdb_record raw = iqdb_record_default();
        raw.id = id;
        raw.vector = vector.data();
        raw.dim = static_cast<uint32_t>(vector.size());
        raw.fields = fields.data();
        raw.field_count = fields.size();
        return iqdb_upsert(db_, &raw);
    }
    status upsert(uint64_t id, view<const float> vector, std::initializer_list<iqdb_field> fields) noexcept {
        return upsert(id, vector, view<const iqdb_field>(fields.begin(), fields.size()));
    }
    status erase(uint64_t id, bool *removed = nullptr) noexcept { return iqdb_delete(db_, id, removed); }
    status erase(const iqdb_filter &filter, size_t *removed = nullptr) noexcept {
        return iqdb_delete_where(db_, &filter, removed);
    }
    status flush() noexcept { return iqdb_flush(db_); }

    size_t size() const noexcept { return iqdb_len(db_); }
    bool contains(uint64_t id) const noexcept { return iqdb_contains(db_, id); }
    result<record> get(uint64_t id) const {
        record out;
        const iqdb_result code = iqdb_get(db_, id, out.memory_.get(), &out.raw_);
        return code == IQDB_OK ? result<record>(std::move(out)) : result<record>(status(code));
    }

    // The k nearest, with their payloads; `query` has what else is asked for.
    hits search(view<const float> vector, size_t k, iqdb_query query = iqdb_query_default()) const {
        const size_t most = k < size() ? k : size();
        std::vector<iqdb_hit> found(most > 0 ? most : 1);
        buffer memory;
        size_t count = 0;
        query.vector = vector.data();
        query.dim = static_cast<uint32_t>(vector.size());
        query.k = most;
        query.flags |= IQDB_WITH_PAYLOAD;
        query.buffer = memory.get();
        const iqdb_result code = iqdb_search(db_, &query, found.data(), &count);
        if (code != IQDB_OK) return status(code);
        std::vector<hit> items;
        for (size_t i = 0; i < count; i++) items.push_back({found[i].id, found[i].score, found[i].payload});
        return hits(std::move(items), std::move(memory));
    }

    iqdb *get() const noexcept { return db_; }

private:
    explicit database(iqdb *db) noexcept : db_(db) {}
    template <class F> static result<database> made(F open_fn) noexcept {
        iqdb *db = nullptr;
        const iqdb_result code = open_fn(&db);
        return code == IQDB_OK ? result<database>(database(db)) : result<database>(status(code));
    }
    iqdb *db_ = nullptr;
};

} // namespace iq

#endif
