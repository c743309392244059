/* Replays the committed corpus of a fuzz target in a plain program: each file is handed to the target in a block of
 * exactly its size, so that valgrind and the sanitizers see a read beyond it. The build gives REPLAY_NAME and
 * REPLAY_CORPUS (a directory, relative to the root of the repository). */
#include "support.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *path) {
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) return 0;
    const long size = ftell(file);
    uint8_t *data = size < 0 ? NULL : (uint8_t *)malloc((size_t)size + (size == 0));
    rewind(file);
    const int whole = data != NULL && fread(data, 1, (size_t)size, file) == (size_t)size;
    fclose(file);
    if (whole) LLVMFuzzerTestOneInput(data, (size_t)size);
    free(data);
    return whole;
}

int main(void) {
    int passed = 0, failed = 0;
    static const uint8_t nothing[1] = {0};
    LLVMFuzzerTestOneInput(nothing, 0);
    DIR *directory = opendir(REPLAY_CORPUS);
    for (struct dirent *entry = directory ? readdir(directory) : NULL; entry != NULL; entry = readdir(directory)) {
        char path[SUPPORT_PATH_MAX];
        if (entry->d_name[0] == '.') continue;
        support_join(path, REPLAY_CORPUS, entry->d_name);
        printf("  %s\n", entry->d_name);
        fflush(stdout); /* a crash shows the input it came from */
        if (replay_file(path))
            passed++;
        else
            failed++;
    }
    if (directory != NULL) closedir(directory);
    if (passed + failed == 0) printf("  no input in %s\n", REPLAY_CORPUS);
    printf("%s: %d passed, %d failed\n", REPLAY_NAME, passed, failed);
    return failed > 0 || passed == 0;
}
