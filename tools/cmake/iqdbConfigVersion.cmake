# The version is that of the header. A version fits where it is asked for exactly, or is newer with the same first
# number; while that is 0, the second one has to be the same too.
find_file(IQDB_HEADER iqdb.h NO_DEFAULT_PATH
    PATHS "${CMAKE_CURRENT_LIST_DIR}/../../../include" "${CMAKE_CURRENT_LIST_DIR}/../..")
set(PACKAGE_VERSION 0)
set(PACKAGE_VERSION_COMPATIBLE FALSE)
set(PACKAGE_VERSION_EXACT FALSE)
if(IQDB_HEADER)
    file(STRINGS "${IQDB_HEADER}" lines REGEX "^#define IQDB_VERSION_(MAJOR|MINOR|PATCH) +[0-9]+$")
    string(REGEX REPLACE "[^0-9;]+" "" lines "${lines}")
    string(REPLACE ";" "." PACKAGE_VERSION "${lines}")
    if(PACKAGE_VERSION VERSION_EQUAL PACKAGE_FIND_VERSION)
        set(PACKAGE_VERSION_EXACT TRUE)
    endif()
    list(GET lines 0 major)
    list(GET lines 1 minor)
    if(major EQUAL PACKAGE_FIND_VERSION_MAJOR AND NOT PACKAGE_VERSION VERSION_LESS PACKAGE_FIND_VERSION
            AND (major GREATER 0 OR PACKAGE_FIND_VERSION_COUNT LESS 2 OR minor EQUAL PACKAGE_FIND_VERSION_MINOR))
        set(PACKAGE_VERSION_COMPATIBLE TRUE)
    endif()
endif()
unset(IQDB_HEADER CACHE)
