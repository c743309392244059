/* The whole of a user's iqdb.c, for systems where no program can be run here. */
#define IQDB_IMPLEMENTATION
#include "iqdb.h"
