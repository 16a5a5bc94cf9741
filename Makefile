# streamext: streams and continuous views inside PostgreSQL. `make test`, `make demo`: see README.md.
PG_CONFIG ?= /usr/lib/postgresql/15/bin/pg_config

MODULE_big = streamext
# Every source file below src/; src/README.md is the tour, src/LAYERS the order of the rooms.
SOURCES = $(sort $(wildcard src/*.c src/*/*.c src/*/*/*.c src/*/*.cpp))
OBJS = $(addsuffix .o, $(basename $(SOURCES)))

EXTENSION = streamext
DATA = streamext--1.0.sql streamext--1.0--1.1.sql
REGRESS = streams views

PG_CPPFLAGS = -I$(srcdir)/src
PG_CFLAGS = -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers
PG_CXXFLAGS = -std=c++17 -fno-rtti -Wextra -Wno-unused-parameter
SHLIB_LINK = -lrdkafka -lpaho-mqtt3as -lcurl -lcrypto -lmicrohttpd -lgnutls -lz -lzstd -lsimdjson -lstdc++

EXTRA_CLEAN = src/gateway/live_page.inc

include Makefile.dev

PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# PGXS knows no header dependencies.
$(OBJS) $(OBJS:.o=.bc): $(wildcard src/*/*.h src/*/*/*.h)

# Bitcode of C++ is of the same standard as the objects.
%.bc: BITCODE_CXXFLAGS += $(PG_CXXFLAGS)

# The gateway's live page, in it.
src/gateway/live_page.inc: $(srcdir)/src/gateway/live.html
	@mkdir -p $(@D)
	{ echo '/* of live.html */'; echo 'static const unsigned char live_page[] = {'; od -An -v -tx1 $< | sed 's/\([0-9a-f][0-9a-f]\)/0x\1,/g'; echo '0x00};'; } > $@

src/gateway/http_page.o src/gateway/http_page.bc: src/gateway/live_page.inc
