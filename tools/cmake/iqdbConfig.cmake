# find_package(iqdb) ends here, and so does tools/cmake/CMakeLists.txt: the header is searched upwards from this file.
if(NOT TARGET iqdb::iqdb)
    find_path(IQDB_INCLUDE_DIR iqdb.h NO_DEFAULT_PATH
        PATHS "${CMAKE_CURRENT_LIST_DIR}/../../../include" "${CMAKE_CURRENT_LIST_DIR}/../..")
    if(NOT IQDB_INCLUDE_DIR)
        set(iqdb_FOUND FALSE)
        set(iqdb_NOT_FOUND_MESSAGE "there is no iqdb.h above ${CMAKE_CURRENT_LIST_DIR}")
        return()
    endif()
    set(THREADS_PREFER_PTHREAD_FLAG TRUE)
    find_package(Threads REQUIRED)
    add_library(iqdb::iqdb INTERFACE IMPORTED GLOBAL)
    set_target_properties(iqdb::iqdb PROPERTIES
        INTERFACE_INCLUDE_DIRECTORIES "${IQDB_INCLUDE_DIR}" INTERFACE_LINK_LIBRARIES Threads::Threads)
endif()
