"""Makes iqdb._native, the compiled module: the public part of iqdb.h as cffi reads it, and native.c.

The declarations are taken from iqdb.h itself, so the package knows every type and function that the header has.
"""
import os
import re

import cffi

HERE = os.path.dirname(os.path.abspath(__file__))
HEADER = os.path.join(HERE, "..", "..", "iqdb.h")
FLAGS = r"#define (IQDB_\w+) (?:0x[0-9A-Fa-f]+u|\d+u?|\(1u << \d+\))$"


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def declarations(header):
    """The public part without comments, macros and linkage; numbers that are macros become constants."""
    text = header[:header.index("#endif /* IQDB_H */")].replace("\\\n", " ")
    text = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.S)
    text = "\n".join(re.sub(r"\s+", " ", line).strip() for line in text.split("\n"))
    constants = re.findall(FLAGS, text, re.M)
    text = re.sub(r"^#.*$", "", text, flags=re.M).replace("IQDB_API ", "")
    text = re.sub(r'^extern "C" \{$', "", text, flags=re.M).strip()
    return "\n".join("#define %s ..." % name for name in constants) + "\n" + text.rstrip("}")


OWN = """
void iqpy_records(iqdb_record *records, const uint64_t *ids, const float *vectors, size_t count, uint32_t dim);
void iqpy_options(iqdb_options *options);
bool iqpy_last_error(iqdb_error *out_error);
extern "Python" bool iqpy_predicate(const iqdb_record *record, void *user);
extern "Python" bool iqpy_write(const void *bytes, size_t size, void *user);
extern "Python" void iqpy_report(const iqdb_error *finding, void *user);
extern "Python" bool iqpy_name(const char *name, void *user);
"""

ffi = cffi.FFI()
ffi.cdef(declarations(read(HEADER)) + OWN)
ffi.set_source("iqdb._native", '#include "native.c"\n', include_dirs=[HERE, os.path.dirname(HEADER)],
               depends=[HEADER, os.path.join(HERE, "native.c")], extra_compile_args=["-O2"],
               libraries=[] if os.name == "nt" else ["pthread"])

if __name__ == "__main__":
    ffi.compile(verbose=True)
