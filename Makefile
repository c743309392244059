# iqdb.h - a vector database in one C header. `make help` lists the targets.
#
# You edit src/; iqdb.h is made from it (make header) and committed. Whatever is built goes to $(BUILD).
# The suite exists once and runs against both faces: the modules of src/ linked together, which unit tests can look
# into, and the single header in every dialect a compiler is found for. GNU make, a C compiler and python3 are all it
# needs; what else is missing is skipped, and said so.
#
# Honoured: CC CXX CFLAGS CXXFLAGS LDFLAGS DESTDIR PREFIX, and CLANG CLANGXX for the second compiler.
# IQDB_DATA, where set, is a directory of real vectors for the tests that want some. V=1 shows the commands.

.DEFAULT_GOAL := iqdb
.DELETE_ON_ERROR:
.SUFFIXES:

BUILD   ?= build
PREFIX  ?= /usr/local
PYTHON  ?= python3
found    = $(firstword $(foreach name,$(1),$(if $(shell command -v $(name) 2>/dev/null),$(name))))
ifeq (undefined,$(origin CLANG))
CLANG   := $(or $(call found,clang-19 clang clang-14),clang)
endif
ifeq (undefined,$(origin CLANGXX))
CLANGXX := $(or $(call found,clang++-19 clang++ clang++-14),clang++)
endif
Q       := $(if $(V),,@)
JOBS    := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
# A sub-make uses all cores, unless the caller has chosen a number with -j. MAKEFLAGS tells only inside a recipe.
SUBMAKE  = $(MAKE) --no-print-directory $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(JOBS))
export CC CXX CLANG CLANGXX BUILD

ifneq (,$(IQDB_DATA))
ifneq (ok,$(shell test -d "$(IQDB_DATA)" -a -r "$(IQDB_DATA)" -a -x "$(IQDB_DATA)" && echo ok))
$(error IQDB_DATA is set to '$(IQDB_DATA)', which is not a readable directory: correct it or unset it)
endif
export IQDB_DATA
endif

# ---- what there is -------------------------------------------------------------------------------------------------

SOURCES    := $(sort $(wildcard src/*/*.c))
ARCHIVE    := $(BUILD)/libiqdb_modules.a
UNIT_DIRS  := base sys codec kernel store persist index db
SUITE_DIRS := $(UNIT_DIRS) model format crash
programs_of = $(patsubst tests/%.c,$(BUILD)/unit/%,$(sort $(foreach dir,$(1),$(wildcard tests/$(dir)/test_*.c))))
API_TESTS  := $(sort $(wildcard tests/api/test_*.c))
FUZZERS    := $(sort $(wildcard tests/fuzz/fuzz_*.c))
PY_TESTS   := $(sort $(wildcard tests/*/test_*.py))

# The public suite is built against the modules and against iqdb.h in these dialects. `static` puts the implementation
# into each test program itself. A variant whose compiler is missing is skipped. There is one as C and one as C++, by a
# compiler each; with IQDB_TEST_TIER=long, as in test-full, or where there is one compiler only, all standards come by all.
# `make check` compiles the rest.
ALL_DIALECTS := $(or $(filter long,$(IQDB_TEST_TIER)),$(if $(call found,$(firstword $(CLANG))),,one compiler))
VARIANTS := c99 clang-cxx20 static $(if $(ALL_DIALECTS),c11 cxx11 cxx20 clang-c99 clang-c11 clang-cxx11)
COMPILE_c99         = $(CC) -std=c99 $(CFLAGS)
COMPILE_c11         = $(CC) -std=c11 $(CFLAGS)
COMPILE_cxx11       = $(CXX) -x c++ -std=c++11 $(CXXFLAGS)
COMPILE_cxx20       = $(CXX) -x c++ -std=c++20 $(CXXFLAGS)
COMPILE_clang-c99   = $(CLANG) -std=c99 $(CFLAGS)
COMPILE_clang-c11   = $(CLANG) -std=c11 $(CFLAGS)
COMPILE_clang-cxx11 = $(CLANGXX) -x c++ -std=c++11 $(CXXFLAGS)
COMPILE_clang-cxx20 = $(CLANGXX) -x c++ -std=c++20 $(CXXFLAGS)
COMPILE_static      = $(CC) -std=c99 -DIQDB_STATIC -DIQDB_IMPLEMENTATION $(CFLAGS)
# Compilers that are no compilers (a stub named g++, a clang without libstdc++) count as missing: a trial decides.
HASH := \#
COMMA := ,
works = $(shell printf '$(HASH)include <stdio.h>\nint main(void) { return 0; }\n' >$(BUILD)/trial.c && \
    $(1) $(BUILD)/trial.c -o $(BUILD)/trial >/dev/null 2>&1 && echo yes)
# Asked only in the recipe of `test`, and then once.
AVAILABLE  = $(eval AVAILABLE := $(shell mkdir -p $(BUILD))$(foreach v,$(VARIANTS),$(if $(call works,$(COMPILE_$v)),$v)))$(AVAILABLE)

# Every test runs in every one of these builds, but only in two with all it has: `make test` runs the others in the quick
# tier. A dialect decides whether the text compiles, which the build shows, and what the parts mean that C and C++ read
# differently, which each test shows once. It does not decide what is computed: no line of iqdb.h asks which standard it
# is (__cplusplus opens `extern "C"` and words static assertions), so one compiler makes the same of c99 as of c11. What
# thousands of rounds of a test can find depends on the code that a compiler makes; hence one of the two is by CC as C,
# and the other, where there is clang, by the other compiler as the other language. With IQDB_TEST_TIER=long, as in
# test-full, all builds run with all they have.
WHOLE_VARIANTS = $(if $(filter long,$(IQDB_TEST_TIER)),$(VARIANTS),c99) $(firstword $(filter clang-cxx20,$(AVAILABLE)) cxx11)
QUICK_FOLDERS  = $(patsubst %,--quick $(BUILD)/api/%,$(filter-out $(WHOLE_VARIANTS),modules uring $(VARIANTS)))

# The suite once more over files by io_uring, where liburing is installed and the system lets one use it.
URING = $(eval URING := $(if $(wildcard tests/uring.c),$(shell mkdir -p $(BUILD) && \
    printf '$(HASH)include <liburing.h>\nint main(void) { struct io_uring r; return io_uring_queue_init(2, &r, 0) != 0; }\n' | \
    $(CC) $(CFLAGS) -D_GNU_SOURCE -x c - $(LIBRARIES) -luring -o $(BUILD)/trial-uring >/dev/null 2>&1 && \
    $(BUILD)/trial-uring && echo uring)))$(URING)

UNIT_PROGRAMS  = $(call programs_of,$(SUITE_DIRS)) $(patsubst tests/%.c,$(BUILD)/unit/%,$(FUZZERS))
# `static` compiles the whole implementation once a program, so but for the long tier only these are built so.
STATIC_TESTS  := $(filter $(patsubst %,tests/api/test_%.c,collections persistence search threads values),$(API_TESTS))
STATIC_TESTS  := $(if $(ALL_DIALECTS),$(API_TESTS),$(or $(STATIC_TESTS),$(API_TESTS)))
api_programs   = $(patsubst tests/api/%.c,$(BUILD)/api/$(1)/%,$(if $(filter static,$(1)),$(STATIC_TESTS),$(API_TESTS)))
# The header first, because compiling it takes longer than anything else.
CORE_FACES    := c99 modules
CORE_PROGRAMS  = $(foreach v,$(CORE_FACES),$(call api_programs,$v)) $(UNIT_PROGRAMS)
FUZZ_PROGRAMS  = $(patsubst tests/fuzz/%.c,$(BUILD)/libfuzzer/%,$(FUZZERS))
SMOKE_PROGRAMS = $(call programs_of,$(UNIT_DIRS) format) $(call api_programs,modules)
# Those that start a thread; of one thread there is nothing to see for a thread sanitizer.
THREADED      := $(if $(API_TESTS),$(shell grep -l pthread_create $(API_TESTS) $(wildcard $(UNIT_DIRS:%=tests/%/test_*.c))))
RACE_PROGRAMS  = $(patsubst tests/%.c,$(BUILD)/unit/%,$(THREADED:tests/api/%.c=$(BUILD)/api/modules/%))
ALL_PROGRAMS   = $(UNIT_PROGRAMS) $(foreach v,modules $(URING) $(AVAILABLE),$(call api_programs,$v))

# ---- how it is built -----------------------------------------------------------------------------------------------

WARNINGS     := -Wall -Wextra -Wpedantic
DEPEND        = -MMD -MP -MF $@.d -MT $@
# feature.h opens iqdb.h; the modules get it by a flag, so that both know the same face of the C library.
MODULE_FLAGS  = -std=c99 -O2 -g $(WARNINGS) -fvisibility=hidden -pthread -DIQDB_MODULES -Isrc $(CFLAGS)
# Tests use POSIX freely. api tests are written in what C99 and C++11 have in common, and say <iqdb.h>. Emulated vectors
# are wider than the machine's, and how those would be passed between files is of no interest: -Wno-psabi.
TEST_FLAGS    = -g $(WARNINGS) -Wno-psabi -pthread -D_GNU_SOURCE -Itests
UNIT_FLAGS    = $(TEST_FLAGS) -std=c99 -O1 -DIQDB_MODULES -Isrc -I$(BUILD)/include-modules $(CFLAGS) $(TEST_CFLAGS)
LIBRARIES     = -pthread $(LDFLAGS) -lm

# A test may ask for a library in its first five lines: /* link: -lz */. Where that does not link here, a program that
# reports one skipped test takes its place. $(1): the compile command with its flags, $(2): what follows $<.
define build_test
	@mkdir -p $(@D)
	$(if $(V),,@echo "  TEST $@")
	$(Q)libs=$$(sed -n '1,5s|.*/\* *link: *\([^*]*[^* ]\) *\*/.*|\1|p' $<); \
	if [ -n "$$libs" ] && ! echo 'int main(void) { return 0; }' | $(CC) $(CFLAGS) -x c - $(LIBRARIES) $$libs -o $@ 2>/dev/null; then \
	    printf '$(HASH)include <stdio.h>\nint main(void) { return puts("  skip all: does not link with %s\\n%s: 0 passed, 0 failed, 1 skipped") < 0; }' \
	        "$$libs" "$(@:$(BUILD)/%=%)" | $(CC) $(CFLAGS) -x c - $(LIBRARIES) -o $@; \
	else $(1) $(DEPEND) $< $(2) $(LIBRARIES) $$libs -o $@; fi
endef

$(BUILD)/modules/%.o: src/%.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(if $(V),,@echo "  CC   $@")
	$(Q)$(CC) $(MODULE_FLAGS) -include src/base/feature.h $(DEPEND) -c $< -o $@

# Appended, not replaced: two folders may have a file of the same name.
$(ARCHIVE): $(SOURCES:src/%.c=$(BUILD)/modules/%.o)
	@rm -f $@
	$(Q)$(AR) qcs $@ $^

$(BUILD)/unit/fuzz/%: tests/fuzz/%.c tests/replay.c $(ARCHIVE) $(BUILD)/include-modules/iqdb.h $(BUILD)/flags
	$(call build_test,$(CC) $(UNIT_FLAGS) -DREPLAY_NAME='"$*"' -DREPLAY_CORPUS='"tests/fuzz/corpus/$(*:fuzz_%=%)"',tests/replay.c $(ARCHIVE))

$(BUILD)/unit/%: tests/%.c $(ARCHIVE) $(BUILD)/include-modules/iqdb.h $(BUILD)/flags
	$(call build_test,$(CC) $(UNIT_FLAGS),$(ARCHIVE))

$(BUILD)/api/modules/%: tests/api/%.c $(ARCHIVE) $(BUILD)/include-modules/iqdb.h $(BUILD)/flags
	$(call build_test,$(CC) $(UNIT_FLAGS),$(ARCHIVE))

$(BUILD)/api/uring/%: tests/api/%.c tests/uring.c $(ARCHIVE) $(BUILD)/include-modules/iqdb.h $(BUILD)/flags
	$(call build_test,$(CC) $(UNIT_FLAGS),tests/uring.c $(ARCHIVE) -Wl$(COMMA)--wrap=iqdb_files_default -luring)

# In this build src/api.h stands in for iqdb.h.
$(BUILD)/include-modules/iqdb.h:
	@mkdir -p $(@D)
	@echo '#include "api.h"' >$@

# The two lines a user writes, compiled without any feature macro: the header has to bring its own. What the whole suite
# runs against is at -O2 by gcc: at -O1, where it inlines little, approximate search takes three times as long, and all
# that is won when it is compiled is lost many times over. Clang's -O1 is as fast as its -O2, and takes less to make.
SINGLE_LEVEL = $(if $(filter c99 c11 cxx11 cxx20,$(1)),-O2,-O1)
define single_rules
$(BUILD)/single/iqdb_$(1).o: iqdb.h $(BUILD)/flags
	@mkdir -p $$(@D)
	$$(if $$(V),,@echo "  CC   $$@")
	$$(Q)printf '#define IQDB_IMPLEMENTATION\n#include "iqdb.h"\n' >$$(@:.o=.c)
	$$(Q)$$(COMPILE_$(1)) $(SINGLE_LEVEL) -g $$(WARNINGS) -pthread -I. -c $$(@:.o=.c) -o $$@

$(BUILD)/api/$(1)/%: tests/api/%.c $(if $(filter static,$(1)),iqdb.h,$(BUILD)/single/iqdb_$(1).o) $(BUILD)/flags
	$$(call build_test,$$(COMPILE_$(1)) $$(TEST_FLAGS) $(if $(filter static,$(1)),-O0,$$(if $$(filter $(1),$$(WHOLE_VARIANTS)),-O1,-O0)) -I. $$(TEST_CFLAGS),$(if $(filter static,$(1)),,-x none $(BUILD)/single/iqdb_$(1).o))
endef
$(foreach v,$(VARIANTS),$(eval $(call single_rules,$v)))

# Objects are made anew when a compiler, a flag or the list of sources changes.
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' '$(CC) $(CXX) $(CLANG) $(CLANGXX) $(CFLAGS) $(CXXFLAGS) $(LDFLAGS) $(SOURCES)' >$@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

# The command, for which tools/iqdb.c brings iqdb.h and its implementation.
$(BUILD)/iqdb: tools/iqdb.c iqdb.h $(BUILD)/flags
	@mkdir -p $(@D)
	$(if $(V),,@echo "  CC   $@")
	$(Q)$(CC) -std=gnu99 -O2 $(WARNINGS) -pthread -I. $(CFLAGS) $(DEPEND) $< $(LIBRARIES) -o $@

# What brings databases of the original over; where Zstandard is installed, packed ones too.
$(BUILD)/iqdb-import: tools/import/iqdb-import.c iqdb.h $(BUILD)/flags
	@mkdir -p $(@D)
	$(if $(V),,@echo "  CC   $@")
	$(Q)zstd=; printf '$(HASH)include <zstd.h>\nint main(void) { return ZSTD_versionNumber() == 0; }\n' | \
	    $(CC) $(CFLAGS) -x c - $(LIBRARIES) -lzstd -o $@ 2>/dev/null && zstd="-DIMPORT_ZSTD -lzstd"; \
	$(CC) -std=gnu99 -O2 $(WARNINGS) -pthread -I. $(CFLAGS) $(DEPEND) $< $(LIBRARIES) $$zstd -o $@

$(BUILD)/iqdb-redis.so: examples/redis/module.c iqdb.h $(BUILD)/flags
	@mkdir -p $(@D)
	$(if $(V),,@echo "  CC   $@")
	$(Q)$(CC) -std=gnu99 -O2 $(WARNINGS) -shared -fPIC -fvisibility=hidden -pthread -I. $(CFLAGS) $(DEPEND) $< $(LIBRARIES) -o $@

-include $(wildcard $(BUILD)/*.d $(BUILD)/modules/*/*.d $(BUILD)/unit/*/*.d $(BUILD)/api/*/*.d $(BUILD)/libfuzzer/*.d)
FORCE:

# ---- targets -------------------------------------------------------------------------------------------------------

.PHONY: help demo header check-header test test-full check format install clean FORCE need-cc need-python \
    iqdb iqdb-import redis wasm nothing core smoke races sanitize tsan valgrind aarch64 wine portability size cover fuzz fuzz-run

HIDDEN := $(if $(FUZZERS),,fuzz)
help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / && $$1 !~ /^($(or $(HIDDEN),-))$$/ { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

need-cc:
	@command -v $(firstword $(CC)) >/dev/null 2>&1 || { echo "No C compiler named '$(firstword $(CC))' here: install gcc or clang, or name yours with CC=..."; exit 1; }
need-python:
	@command -v $(firstword $(PYTHON)) >/dev/null 2>&1 || { echo "No '$(firstword $(PYTHON))' here: install python3, or name yours with PYTHON=..."; exit 1; }

demo: need-cc ## build examples/demo.c with iqdb.h and run it on examples/data
	@mkdir -p $(BUILD)
	$(Q)$(CC) -std=gnu99 -O2 $(CFLAGS) -pthread -I. examples/demo.c $(LIBRARIES) -o $(BUILD)/demo
	$(Q)$(BUILD)/demo examples/data

WASM_CC = $(or $(call found,clang-19),$(CLANG))
wasm: need-cc ## the page of examples/wasm in $(BUILD)/wasm, to be served by any server
	@mkdir -p $(BUILD)/wasm
	$(Q)$(WASM_CC) --target=wasm32 -Os -msimd128 -mbulk-memory -ffreestanding -nostdlib -I. -Wall -Wextra -Wl,--no-entry -Wl,-z,stack-size=32768 examples/wasm/notes.c -o $(BUILD)/wasm/notes.wasm
	$(Q)$(CC) -std=gnu99 -O1 $(CFLAGS) -I. examples/wasm/bake.c -pthread $(LIBRARIES) -o $(BUILD)/wasm/bake
	$(Q)$(BUILD)/wasm/bake examples/data >$(BUILD)/wasm/notes.blob
	@cp examples/wasm/index.html examples/wasm/notes.mjs examples/wasm/check.mjs examples/data/questions.* $(BUILD)/wasm

iqdb: need-cc $(BUILD)/iqdb ## build the command, $(BUILD)/iqdb (tools/iqdb.c)

iqdb-import: need-cc $(BUILD)/iqdb-import ## build the importer of the original's databases, $(BUILD)/iqdb-import (tools/import)

redis: need-cc $(BUILD)/iqdb-redis.so ## build the Redis module, $(BUILD)/iqdb-redis.so (examples/redis/module.c)

header: need-python ## make iqdb.h from src/
	@$(PYTHON) tools/amalgamate.py
check-header: need-python ## fail when iqdb.h is not what src/ gives
	@$(PYTHON) tools/amalgamate.py --check

test: need-cc check-header ## all tests: modules, iqdb.h in every dialect, tools, examples (fails when iqdb.h is stale)
	+@$(SUBMAKE) nothing $(ALL_PROGRAMS)
	@$(if $(URING),,echo "skipped: the public suite over io_uring (no liburing, or a system without);")
	@$(foreach v,$(filter-out $(AVAILABLE),$(VARIANTS)),echo "skipped: iqdb.h as $v (no working compiler: $(firstword $(COMPILE_$v)))";)
	@$(PYTHON) tests/run.py $(QUICK_FOLDERS) $(PY_TESTS) $(ALL_PROGRAMS)
nothing: ;

test-full: ## test, check, and every slow pass: sanitize tsan valgrind aarch64 wine portability size cover (and fuzz), long tiers
	+@IQDB_TEST_TIER=long IQDB_TEST_TIMEOUT=14400 $(SUBMAKE) test
	+@$(SUBMAKE) check
	+@$(if $(shell command -v clang-14),$(SUBMAKE) check CLANG=clang-14 CLANGXX=clang++-14 CHECK="warnings: CLANG",echo "skipped: clang 14")
	+@IQDB_TEST_TIER=normal IQDB_TEST_TIMEOUT=7200 $(SUBMAKE) sanitize SANITIZED="c99 modules"
	+@IQDB_TEST_TIER=long IQDB_TEST_TIMEOUT=7200 $(SUBMAKE) tsan
	+@$(foreach target,valgrind aarch64 wine portability size cover $(if $(FUZZERS),fuzz),$(SUBMAKE) $(target) &&) true

check: need-cc need-python check-header ## warnings, symbols, macro leaks, frames, switches, house rules, line budgets (CHECK=... picks)
	@$(PYTHON) tools/check.py $(if $(CHECK),"$(CHECK)")

# The passes below build the suite again with other flags, each in a directory of its own, and run it.
core: $(CORE_PROGRAMS)
	@$(PYTHON) tests/run.py $(RUN_FLAGS) $(CORE_PROGRAMS)
smoke: $(SMOKE_PROGRAMS)
	@$(PYTHON) tests/run.py $(RUN_FLAGS) $(SMOKE_PROGRAMS)
races: $(RACE_PROGRAMS)
	@$(PYTHON) tests/run.py $(RUN_FLAGS) $(RACE_PROGRAMS)

# The public suite against iqdb.h only: the modules are the same text, and the unit tests are built with them. What tests
# do themselves takes no long time, but to compile it at a level would.
SANITIZED := c99
sanitize: need-cc need-python check-header ## the suite under address and undefined-behaviour sanitizers
	+@ASAN_OPTIONS=allocator_may_return_null=1:detect_stack_use_after_return=1 UBSAN_OPTIONS=print_stacktrace=1 \
	$(SUBMAKE) core BUILD=$(BUILD)/sanitize CORE_FACES="$(SANITIZED)" SINGLE_LEVEL=-O1 TEST_CFLAGS=-O0 CFLAGS="$(CFLAGS) -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"

# gcc 12's runtime cannot place its shadow under some kernels' address randomisation; clang's can, and setarch helps both.
TSAN_CC     = $(or $(call found,$(firstword $(CLANG))),$(CC))
NO_RANDOM   = $(if $(shell setarch -R true 2>/dev/null && echo ok),setarch -R)
tsan: need-cc need-python check-header ## the unit and public tests that start threads under the thread sanitizer
	+@TSAN_OPTIONS=halt_on_error=1:allocator_may_return_null=1 IQDB_TEST_TIER=$${IQDB_TEST_TIER:-quick} \
	$(SUBMAKE) races BUILD=$(BUILD)/tsan CC="$(TSAN_CC)" CFLAGS="$(CFLAGS) -O1 -fsanitize=thread" RUN_FLAGS='--wrap "$(NO_RANDOM)"'

# The programs are those of `make test`. Real vectors are too many for an emulated processor, here and below.
valgrind: need-cc need-python check-header ## the unit and public tests under valgrind, quick tier
	@command -v valgrind >/dev/null || { echo "No valgrind here: install it for this pass."; exit 1; }
	+@env -u IQDB_DATA IQDB_TEST_TIER=quick $(SUBMAKE) smoke \
	RUN_FLAGS='--timeout 900 --wrap "valgrind -q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite,possible"'

aarch64: need-python ## the unit and public tests as aarch64 under qemu, quick tier
	@command -v aarch64-linux-gnu-gcc >/dev/null && command -v qemu-aarch64-static >/dev/null || \
	    { echo "No aarch64-linux-gnu-gcc or qemu-aarch64-static here: install both for this pass."; exit 1; }
	+@env -u IQDB_DATA IQDB_TEST_TIER=quick $(SUBMAKE) smoke BUILD=$(BUILD)/aarch64 CC=aarch64-linux-gnu-gcc AR=aarch64-linux-gnu-ar \
	LDFLAGS="$(LDFLAGS) -static" RUN_FLAGS='--timeout 900 --wrap qemu-aarch64-static'

# The single header as Windows programs get it. Wine keeps its registry in the build directory.
WINE_CC    ?= x86_64-w64-mingw32-gcc
WINE_FLAGS  = -O1 -g -Wall -Wextra -D_GNU_SOURCE -D__USE_MINGW_ANSI_STDIO=1 -Itests -I. $(CFLAGS)
WINE_TESTS := $(patsubst tests/api/%.c,$(BUILD)/wine/%.exe,$(API_TESTS))
wine: need-python check-header ## the public tests as Windows programs, by MinGW under Wine, quick tier
	@command -v $(WINE_CC) >/dev/null && command -v wine >/dev/null || \
	    { echo "No $(WINE_CC) or wine here: install both for this pass."; exit 1; }
	+@$(SUBMAKE) nothing $(WINE_TESTS)
	@WINEDEBUG=-all WINEPREFIX="$(abspath $(BUILD))/wine/prefix" wine cmd /c exit >/dev/null 2>&1 || true
	@WINEDEBUG=-all WINEPREFIX="$(abspath $(BUILD))/wine/prefix" IQDB_TEST_TIER=$${IQDB_TEST_TIER:-quick} \
	$(PYTHON) tests/run.py --timeout 900 --wrap wine $(WINE_TESTS)
$(BUILD)/wine/iqdb.o: iqdb.h
	@mkdir -p $(@D)
	$(Q)printf '#define IQDB_IMPLEMENTATION\n#include "iqdb.h"\n' >$(@:.o=.c)
	$(Q)$(WINE_CC) -std=c99 $(WINE_FLAGS) -c $(@:.o=.c) -o $@
$(BUILD)/wine/%.exe: tests/api/%.c $(BUILD)/wine/iqdb.o $(wildcard tests/*.h tests/api/*.h)
	$(if $(V),,@echo "  TEST $@")
	$(Q)$(WINE_CC) -std=gnu99 $(WINE_FLAGS) $< $(BUILD)/wine/iqdb.o -static -pthread -lm -o $@

# One tape of operations on every compiler and processor there is a package for; ROWS=a,b picks, REQUIRED=a,b must be there.
portability: need-python check-header ## the same answers, bit for bit, on every compiler, processor and system at hand
	@$(PYTHON) tests/portability/matrix.py $(BUILD)/portability $(if $(ROWS),--rows $(ROWS)) $(if $(REQUIRED),--required $(REQUIRED))

size: need-python check-header ## code and stack of each set of features on each processor, and whether limits are kept
	@$(PYTHON) tests/portability/size.py

cover: need-cc need-python ## line and branch coverage of src/ by the modules' tests, as a table
	@test ! -d $(BUILD)/cover || find $(BUILD)/cover -name '*.gcda' -delete
	+@$(SUBMAKE) core BUILD=$(BUILD)/cover CORE_FACES=modules CFLAGS="$(CFLAGS) -O0 --coverage -DIQ_COVERAGE"
	@$(PYTHON) tests/cover.py $(BUILD)/cover/modules

ifneq (,$(FUZZERS))
FUZZ_SECONDS ?= 60
fuzz: need-python check-header ## each fuzz target for FUZZ_SECONDS (60) with libFuzzer, starting from its committed corpus
	@command -v $(firstword $(CLANG)) >/dev/null || { echo "No clang here: install clang with its runtime for this pass."; exit 1; }
	+@$(SUBMAKE) fuzz-run BUILD=$(BUILD)/libfuzzer CC="$(CLANG)" FUZZ_SECONDS=$(FUZZ_SECONDS) \
	    CFLAGS="$(CFLAGS) -O1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all"
fuzz-run: $(FUZZ_PROGRAMS)
	@$(PYTHON) tests/run.py --fuzz $(FUZZ_SECONDS) $(FUZZ_PROGRAMS)
$(BUILD)/libfuzzer/%: tests/fuzz/%.c $(ARCHIVE) $(BUILD)/include-modules/iqdb.h $(BUILD)/flags
	$(call build_test,$(CC) $(UNIT_FLAGS) -fsanitize=fuzzer,$(ARCHIVE))
endif

format: ## lay out src/ and tests/ with clang-format 14
	clang-format-14 -i $(wildcard src/*.h src/*/*.[ch] tests/*.[ch] tests/*/*.[ch])

install: need-cc $(BUILD)/iqdb $(BUILD)/iqdb-import ## iqdb.h, the commands, their manual and completion, files for pkg-config and CMake, to $(DESTDIR)$(PREFIX)
	install -d $(addprefix $(DESTDIR)$(PREFIX)/,bin include share/man/man1 share/pkgconfig share/cmake/iqdb share/bash-completion/completions)
	install -m 644 iqdb.h $(DESTDIR)$(PREFIX)/include/iqdb.h
	install -m 755 $(BUILD)/iqdb $(BUILD)/iqdb-import $(DESTDIR)$(PREFIX)/bin
	install -m 644 tools/iqdb.1 $(DESTDIR)$(PREFIX)/share/man/man1/iqdb.1
	install -m 644 tools/iqdb.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/iqdb
	install -m 644 $(wildcard tools/cmake/*.cmake) $(DESTDIR)$(PREFIX)/share/cmake/iqdb
	printf 'Name: iqdb\nDescription: a vector database in one C header\nVersion: %s\nCflags: -I%s/include -pthread\nLibs: -pthread\n' \
	    $$($(BUILD)/iqdb --version | cut -d " " -f 2) $(PREFIX) >$(DESTDIR)$(PREFIX)/share/pkgconfig/iqdb.pc

clean: ## remove build/
	rm -rf $(BUILD)

# Measurements bring their own rules.
-include bench/bench.mk
