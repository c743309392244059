/* What module.c uses of the interface that Redis (7.0 and later) offers to its modules, declared from the public
 * reference at https://redis.io/docs/latest/develop/reference/modules/modules-api-ref/.
 *
 * Redis hands a module one function, which finds all others by name; redis_find() fills the table `redis` with it, so
 * that RedisModule_OpenKey is called as redis.OpenKey. Include it in one file only. */
#ifndef REDIS_MODULE_H
#define REDIS_MODULE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct redis_context redis_context; /* of one command */
typedef struct redis_string redis_string;
typedef struct redis_key redis_key;
typedef struct redis_io redis_io; /* a key that is being saved or loaded */
typedef struct redis_digest redis_digest;
typedef struct redis_type redis_type;
typedef int redis_command(redis_context *context, redis_string **arguments, int count);

enum {
    REDIS_OK = 0,
    REDIS_ERROR = 1,
    REDIS_API_VERSION = 1,
    REDIS_METHODS_VERSION = 3, /* of redis_methods, up to its last member here */
    REDIS_READ = 1,            /* modes of OpenKey */
    REDIS_WRITE = 2,
    REDIS_KEY_EMPTY = 0,        /* answer of KeyType */
    REDIS_HANDLES_IO_ERRORS = 1 /* option: a load that breaks off is seen by IsIOError, and does not end Redis */
};

/* What Redis calls for a value of our type. Members that are never set have no types of their own here. */
typedef struct redis_methods {
    uint64_t version;
    void *(*load)(redis_io *io, int encoding); /* NULL: refused */
    void (*save)(redis_io *io, void *value);
    void (*rewrite)(redis_io *io, redis_string *key, void *value);
    size_t (*memory)(const void *value);
    void (*digest)(redis_digest *digest, void *value);
    void (*free)(void *value); /* in a thread of Redis's, where free_effort was high */
    void (*unused_aux_load)(void);
    void (*unused_aux_save)(void);
    int unused_aux_when;
    size_t (*free_effort)(redis_string *key, const void *value);
    void (*unused_unlink)(void);
    void *(*copy)(redis_string *from, redis_string *to, const void *value);
    void (*unused_defrag)(void);
} redis_methods;

/* F(result, name, parameters) for each function. */
#define REDIS_FUNCTIONS(F) \
    F(void, SetModuleAttribs, (redis_context *, const char *name, int version, int api_version)) \
    F(void, SetModuleOptions, (redis_context *, int options)) \
    F(int, CreateCommand, \
      (redis_context *, const char *name, redis_command *, const char *flags, int first_key, int last_key, int step)) \
    F(redis_type *, CreateDataType, (redis_context *, const char *name, int encoding, redis_methods *)) \
    F(void *, TryAlloc, (size_t size)) \
    F(void, Free, (void *memory)) \
    F(redis_key *, OpenKey, (redis_context *, redis_string * name, int mode)) \
    F(void, CloseKey, (redis_key *)) \
    F(int, DeleteKey, (redis_key *)) \
    F(int, KeyType, (redis_key *)) \
    F(redis_type *, ModuleTypeGetType, (redis_key *)) \
    F(void *, ModuleTypeGetValue, (redis_key *)) \
    F(int, ModuleTypeSetValue, (redis_key *, redis_type *, void *value)) \
    F(redis_string *, CreateString, (redis_context *, const char *bytes, size_t size)) \
    F(void, FreeString, (redis_context *, redis_string *)) \
    F(const char *, StringPtrLen, (const redis_string *, size_t *out_size)) \
    F(int, WrongArity, (redis_context *)) \
    F(int, ReplyWithError, (redis_context *, const char *text)) \
    F(int, ReplyWithLongLong, (redis_context *, long long value)) \
    F(int, ReplyWithArray, (redis_context *, long count)) \
    F(int, ReplyWithStringBuffer, (redis_context *, const char *bytes, size_t size)) \
    F(int, ReplyWithNull, (redis_context *)) \
    F(int, ReplicateVerbatim, (redis_context *)) \
    F(void, SaveStringBuffer, (redis_io *, const char *bytes, size_t size)) \
    F(char *, LoadStringBuffer, (redis_io *, size_t * out_size)) \
    F(int, IsIOError, (redis_io *)) \
    F(void, LogIOError, (redis_io *, const char *level, const char *format, ...)) \
    F(void, EmitAOF, (redis_io *, const char *command, const char *format, ...)) \
    F(void, DigestAddStringBuffer, (redis_digest *, const char *bytes, size_t size)) \
    F(void, DigestEndSequence, (redis_digest *))

#define REDIS_MEMBER(result, name, parameters) result(*name) parameters;
static struct { REDIS_FUNCTIONS(REDIS_MEMBER) } redis;

/* Finds every function above; false where this Redis lacks one. A context begins with the function that finds. */
static int redis_find(redis_context *context) {
    int (*find)(const char *name, void *out_function);
    memcpy(&find, (void *)context, sizeof find);
#define REDIS_FIND(result, name, parameters) &&find("RedisModule_" #name, (void *)&redis.name) == REDIS_OK
    return 1 REDIS_FUNCTIONS(REDIS_FIND);
}

#endif
