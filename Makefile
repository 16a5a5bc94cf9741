# streamext: streams and continuous views inside PostgreSQL. `make test`, `make demo`: see README.md.
PG_CONFIG ?= /usr/lib/postgresql/15/bin/pg_config

MODULE_big = streamext
# In the order of the data path; src/README.md is the tour.
OBJS = $(addprefix src/, \
	module.o shmem.o chunk.o clock.o options.o stream_check.o registry.o launcher.o probe.o \
	worker.o worker_refresh.o worker_position.o worker_batch.o worker_watermark.o worker_catchup.o handover.o \
	checkpoint_cut.o checkpoint.o checkpoint_load.o checkpoint_view.o checkpoint_read.o checkpoint_log.o fault.o \
	connector.o connector_kafka.o kafka_partition.o kafka_client.o connector_mqtt.o mqtt_client.o mqtt_topic.o mqtt_properties.o mqtt_seen.o connector_local.o journal.o journal_segment.o journal_append.o journal_read.o journal_remove.o \
	decoder.o decoder_json.o decoder_value.o decoder_csv.o batch.o buffer.o stream_fdw.o spool.o dead_letter.o dead_letter_reread.o stream_event.o \
	window.o aggregate.o aggregate_native.o aggregate_trans.o aggregate_values.o state.o view_options.o view_check.o view_compile.o view_window.o view_cache.o view_key.o session.o view_join.o join.o into.o into_window.o fold_start.o fold.o fold_expire.o history.o history_read.o \
	ddl.o stream_ddl.o view_ddl.o view_plan.o view_path.o view_read.o view_rows.o view_scan.o view_retain.o \
	catalog.o catalog_stream.o catalog_view.o control.o pause.o seek.o retry.o \
	sketch.o sketch_distinct.o sketch_percentile.o first_last.o)

EXTENSION = streamext
DATA = streamext--1.0.sql
REGRESS = streams views

PG_CPPFLAGS = -I$(srcdir)/src
PG_CFLAGS = -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers
PG_CXXFLAGS = -std=c++17 -fno-rtti -Wextra -Wno-unused-parameter
SHLIB_LINK = -lrdkafka -lpaho-mqtt3as -lsimdjson -lstdc++

include Makefile.dev

PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# PGXS knows no header dependencies.
$(OBJS) $(OBJS:.o=.bc): $(wildcard src/*.h)
