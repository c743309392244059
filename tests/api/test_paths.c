/* Names of directories that some systems find hard: long paths, letters beyond ASCII, spaces, trailing separators. */
#include "public.h"

static void holds_after(const char *path, const char *again) {
    iqdb *db = NULL, *second = NULL;
    iqdb_stats stats;
    CHECK_EQ_INT(iqdb_open(path, NULL, &db), IQDB_OK);
    CHECK_EQ_INT(public_store(db, 1, 1), IQDB_OK);
    CHECK_EQ_INT(iqdb_open(again, NULL, &second), IQDB_ERR_LOCKED);
    CHECK_EQ_INT(iqdb_checkpoint(db), IQDB_OK);
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    CHECK_EQ_INT(iqdb_inspect(again, &stats), IQDB_OK);
    CHECK_EQ_U64(stats.records, 1);
    CHECK_EQ_INT(iqdb_open(again, NULL, &db), IQDB_OK);
    CHECK(public_holds(db, 1, 1));
    CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
}

static void long_paths(void) {
    char root[SUPPORT_PATH_MAX], path[SUPPORT_PATH_MAX];
    support_directory(root);
    strcpy(path, root);
    while (strlen(path) < 400) strcat(path, "/a-directory-with-a-name-of-some-fifty-characters-00");
    holds_after(path, path);
    support_remove(root);
}

static void letters_and_separators(void) {
    static const char *const names[] = {"\xc3\xa4\xc3\xb6\xc3\xbc", "\xe6\x95\xb0\xe6\x8d\xae\xe5\xba\x93",
                                        "\xf0\x9f\x97\x83 with spaces"};
    char root[SUPPORT_PATH_MAX], path[SUPPORT_PATH_MAX], again[SUPPORT_PATH_MAX];
    support_directory(root);
    for (int i = 0; i < 3; i++) {
        support_join(path, root, names[i]);
        support_join(again, path, "");
        holds_after(path, again);
        support_join(again, path, ".");
        iqdb_stats stats;
        CHECK_EQ_INT(iqdb_inspect(again, &stats), IQDB_OK);
    }
    support_remove(root);
}

TEST_MAIN("api/paths", TEST(long_paths), TEST(letters_and_separators))
