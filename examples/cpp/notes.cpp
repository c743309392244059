// notes.cpp: iqdb.hpp at work, without an exception, and compiled so that none could be thrown.
//
//   c++ -std=c++17 -I. -Iexamples/cpp -fno-exceptions -fno-rtti examples/cpp/notes.cpp -o notes -pthread && ./notes
#define IQDB_IMPLEMENTATION
#include "iqdb.hpp"

#include <array>
#include <cstdio>
#include <cstdlib>

static_assert(!std::is_copy_constructible<iq::database>::value, "a handle is closed once");
static_assert(std::is_nothrow_move_constructible<iq::database>::value, "and may move");

static void check(iq::status status, const char *what) {
    if (status) return;
    std::fprintf(stderr, "%s: %s\n", what, status.text());
    std::exit(1);
}

static iq::result<iq::database> fill() {
    auto opened = iq::database::open_in_memory();
    if (!opened) return opened.error();
    iq::database db = std::move(*opened);
    const float garden[3] = {1.0f, 0.1f, 0.0f};
    const std::array<float, 3> kitchen = {0.0f, 1.0f, 0.2f};
    const std::vector<float> compost = {0.8f, 0.6f, 0.0f};
    check(db.upsert(1, garden, {iq::field("title", "Roses"), iq::field("year", 2021), iq::field("wet", true)}), "upsert");
    check(db.upsert(2, kitchen, {iq::field("title", std::string_view("Bread")), iq::field("rating", 4.5)}), "upsert");
    check(db.upsert(3, compost), "upsert");
    return db;
}

int main() {
    auto filled = fill();
    if (!filled) return 1;
    iq::database db = std::move(*filled), other;
    std::printf("%d notes; the handle that was moved from has %d\n", (int)db.size(), (int)filled->size());

    const float wanted[3] = {1.0f, 0.0f, 0.0f};
    const iq::hits hits = db.search(wanted, 10);
    check(hits.error(), "search");
    for (const iq::hit &hit : hits) {
        const std::string_view title = hit.payload.text("title");
        std::printf("%d %.3f %.*s %d\n", (int)hit.id, hit.score, (int)title.size(), title.data(),
                    (int)hit.payload.integer("year", -1));
    }

    auto note = db.get(2);
    check(note.error(), "get");
    const auto kept = std::move(*note); // its memory moves along
    std::printf("note 2: %d elements, rated %.1f\n", (int)kept.vector().size(), kept.payload().real("rating"));
    std::printf("note 9: %s\n", db.get(9).error().text());

    const float flat[2] = {1.0f, 2.0f};
    std::printf("two elements: %s\n", db.upsert(4, flat).text());
    size_t removed = 0;
    check(db.erase(iqdb_exists("rating"), &removed), "erase");
    other = std::move(db);
    std::printf("%d removed, %d left\n", (int)removed, (int)other.size());
    check(other.close(), "close");
    return 0;
}
