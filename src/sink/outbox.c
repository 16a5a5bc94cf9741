/*
 * sink/outbox.c
 *		Rows on their way to another system. What the functions promise is in sink/outbox.h.
 */
#include "base/streamext.h"

#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/bytea.h"
#include "utils/float.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/lsyscache.h"

#include "base/giving.h"
#include "base/identity.h"
#include "base/own_table.h"
#include "base/relation.h"
#include "decode/write.h"
#include "shared/shmem.h"
#include "sink/outbox.h"
#include "sink/transport.h"

#define OUTBOX_PIECE_ROWS 500
#define OUTBOX_PIECE_BYTES (1024 * 1024)

enum
{
	OUTBOX_TOPIC,
	OUTBOX_KEY,
	OUTBOX_PAYLOAD,
	OUTBOX_HEADERS,
	OUTBOX_COLUMNS
};

struct OutboxWriter
{
	const StreamConfig *config;
	const TransportOps *transport;
	PayloadWriter	   *payload;
	MemoryContext		cxt, row_cxt, piece_cxt;
	int					n;
	Size				bytes;
	Datum			   *values[OUTBOX_COLUMNS];
	bool			   *nulls[OUTBOX_COLUMNS];
};

static List *outbox_targets = NIL; /* of this transaction, in TopTransactionContext */

/* The target's worker is told at commit. */
static void
outbox_note(Oid target)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

	outbox_targets = list_append_unique_oid(outbox_targets, target);
	MemoryContextSwitchTo(old);
}

/* ---------------------------------------------------------------- room */

/* Whether the table takes rows for the target. Needs a snapshot. They are counted only where their numbers do not tell that they are few. */
static bool
outbox_has_room(Oid target)
{
	Oid	  types[] = { OIDOID, INT4OID };
	Datum values[] = { ObjectIdGetDatum(target), Int32GetDatum(streamext_outbox_limit) };

	if (streamext_control_execute(
			"SELECT COALESCE(pg_catalog.max(id) OPERATOR(pg_catalog.-) pg_catalog.min(id), -1) FROM "
			"streamext_internal.outbox WHERE target OPERATOR(pg_catalog.=) $1 AND reason IS NULL",
			1, types, values, NULL, SPI_OK_SELECT) < streamext_outbox_limit - 1)
		return true;
	return streamext_control_execute("SELECT pg_catalog.count(*) FROM (SELECT FROM streamext_internal.outbox "
									 "WHERE target OPERATOR(pg_catalog.=) $1 AND reason IS NULL LIMIT $2) AS waiting",
									 2, types, values, NULL, SPI_OK_SELECT) < streamext_outbox_limit;
}

/* ---------------------------------------------------------------- rows */

static void
outbox_clear(OutboxWriter *writer)
{
	MemoryContextReset(writer->piece_cxt);
	writer->n = 0;
	writer->bytes = 0;
}

/* The format's part of a writer. */
static PayloadWriter *
outbox_payload(const StreamConfig *config, const TransportOps *transport)
{
	PayloadWriter *payload = streamext_write_begin(config);

	if (transport->check != NULL)
		transport->check(config);
	return payload;
}

void
streamext_outbox_check(Oid target)
{
	const StreamConfig *config;

	if (get_rel_relkind(target) != RELKIND_FOREIGN_TABLE || streamext_stream_kind(target) == NULL)
		return;
	config = streamext_stream_config(target);
	if (config->connector->published)
		(void) outbox_payload(config, streamext_transport(config->connector));
}

OutboxWriter *
streamext_outbox_begin(const StreamConfig *config)
{
	OutboxWriter *writer = palloc0(sizeof(OutboxWriter));

	writer->config = config;
	writer->transport = streamext_transport(config->connector);
	writer->payload = outbox_payload(config, writer->transport);
	if (!outbox_has_room(config->relid))
		ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						errmsg("too many rows wait to be sent to \"%s\"", config->name),
						errdetail("streamext.outbox_limit is %d rows.", streamext_outbox_limit),
						errhint("See state and last_error in streamext.sinks.")));
	writer->cxt = CurrentMemoryContext;
	writer->row_cxt = AllocSetContextCreate(writer->cxt, "streamext outbox row", ALLOCSET_DEFAULT_SIZES);
	writer->piece_cxt = AllocSetContextCreate(writer->cxt, "streamext outbox piece", ALLOCSET_DEFAULT_SIZES);
	for (int i = 0; i < OUTBOX_COLUMNS; i++)
	{
		writer->values[i] = palloc(sizeof(Datum) * OUTBOX_PIECE_ROWS);
		writer->nulls[i] = palloc(sizeof(bool) * OUTBOX_PIECE_ROWS);
	}
	outbox_note(config->relid);
	return writer;
}

static char *
outbox_text(const StreamColumn *column, Datum value)
{
	Oid	 output;
	bool is_varlena;

	getTypeOutputInfo(column->type, &output, &is_varlena);
	return OidOutputFunctionCall(output, value);
}

static const StreamColumn *
outbox_column(const StreamConfig *config, const char *name, int *index)
{
	for (*index = 0; *index < config->desc->natts; (*index)++)
	{
		const StreamColumn *column = &config->columns[*index];

		if (!column->dropped && strcmp(column->name, name) == 0)
			return column;
	}
	return NULL;
}

static bool
outbox_bytes(StringInfo text, Datum *value)
{
	bytea *bytes = palloc(VARHDRSZ + text->len);

	SET_VARSIZE(bytes, VARHDRSZ + text->len);
	memcpy(VARDATA(bytes), text->data, text->len);
	*value = PointerGetDatum(bytes);
	return true;
}

/* What a column of metadata says goes beside the payload; false: nothing. */
static bool
outbox_metadata(OutboxWriter *writer, MetadataKind kind, const Datum *values, const bool *nulls, Datum *to)
{
	const StreamConfig *config = writer->config;

	for (int i = 0; i < config->desc->natts; i++)
	{
		const StreamColumn *column = &config->columns[i];
		StringInfoData		text;

		if (column->dropped || column->metadata != kind || nulls[i])
			continue;
		if (kind == METADATA_KEY && column->type == BYTEAOID)
		{
			*to = PointerGetDatum(PG_DETOAST_DATUM_COPY(values[i]));
			return true;
		}
		initStringInfo(&text);
		appendStringInfoString(&text, outbox_text(column, values[i]));
		if (kind == METADATA_KEY)
			return outbox_bytes(&text, to);
		*to = CStringGetTextDatum(text.data);
		return true;
	}
	return false;
}

/* The group key of the view's row, a JSON object of its columns, as text. */
static bool
outbox_group_key(OutboxWriter *writer, const Giving *giving, const Datum *values, const bool *nulls, Datum *to)
{
	StringInfoData json;
	ListCell	  *lc;

	if (giving->keys == NIL && giving->version == 0)
		return false;
	initStringInfo(&json);
	appendStringInfoChar(&json, '{');
	foreach (lc, giving->keys)
	{
		int					index;
		const StreamColumn *column = outbox_column(writer->config, lfirst(lc), &index);

		if (column == NULL)
			continue;
		if (json.len > 1)
			appendStringInfoString(&json, ", ");
		escape_json(&json, column->name);
		appendStringInfoString(&json, ": ");
		if (nulls[index])
			appendStringInfoString(&json, "null");
		else if (column->type == INT2OID || column->type == INT4OID || column->type == INT8OID ||
				 column->type == BOOLOID)
			appendStringInfoString(&json, column->type != BOOLOID		? outbox_text(column, values[index])
										  : DatumGetBool(values[index]) ? "true"
																		: "false");
		else
			escape_json(&json, outbox_text(column, values[index]));
	}
	appendStringInfoChar(&json, '}');
	return outbox_bytes(&json, to);
}

/* A JSON object of texts: what the row's own column of headers says, and whose row it is. */
static bool
outbox_headers(OutboxWriter *writer, const Giving *giving, const Datum *values, const bool *nulls, Datum *to)
{
	const StreamColumn *window;
	StringInfoData		json;
	int					index;

	if (outbox_metadata(writer, METADATA_HEADERS, values, nulls, to))
		return true;
	if (!OidIsValid(giving->view))
		return false;
	initStringInfo(&json);
	appendStringInfoString(&json, "{\"view\": ");
	escape_json(&json, streamext_relation_name(giving->view));
	window = giving->window != NULL ? outbox_column(writer->config, giving->window, &index) : NULL;
	if (window != NULL && !nulls[index])
	{
		appendStringInfoString(&json, ", \"window\": ");
		escape_json(&json, outbox_text(window, values[index]));
	}
	if (giving->version > 0)
		appendStringInfo(&json, ", \"version\": \"" INT64_FORMAT "\"", giving->version);
	appendStringInfoChar(&json, '}');
	*to = CStringGetTextDatum(json.data);
	return true;
}

static Datum
outbox_array(OutboxWriter *writer, int column, Oid type)
{
	int dims[1] = { writer->n };
	int lower[1] = { 1 };

	return PointerGetDatum(construct_md_array(writer->values[column], writer->nulls[column], 1, dims, lower, type, -1,
											  false, TYPALIGN_INT));
}

static void
outbox_write(OutboxWriter *writer)
{
	Oid	  types[] = { OIDOID, OIDOID, TEXTARRAYOID, BYTEAARRAYOID, BYTEAARRAYOID, TEXTARRAYOID };
	Datum values[6];

	if (writer->n == 0)
		return;
	values[0] = ObjectIdGetDatum(writer->config->relid);
	values[1] = ObjectIdGetDatum(streamext_giving()->view);
	values[2] = outbox_array(writer, OUTBOX_TOPIC, TEXTOID);
	values[3] = outbox_array(writer, OUTBOX_KEY, BYTEAOID);
	values[4] = outbox_array(writer, OUTBOX_PAYLOAD, BYTEAOID);
	values[5] = outbox_array(writer, OUTBOX_HEADERS, TEXTOID);
	(void) streamext_control_execute(
		"INSERT INTO streamext_internal.outbox (target, view, topic, key, payload, headers) "
		"SELECT $1, $2, r.topic, r.key, r.payload, r.headers "
		"FROM ROWS FROM (pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5), pg_catalog.unnest($6)) "
		"WITH ORDINALITY AS r (topic, key, payload, headers, n) ORDER BY r.n",
		6, types, values, NULL, SPI_OK_INSERT);
	outbox_clear(writer);
}

/*
 * What goes out is read by others, who know nothing of how this session, or the view's settings, show dates, intervals and floats. What to give
 * to AtEOXact_GUC; 0: nothing was to be set.
 */
static int
outbox_pin_settings(void)
{
	int level;

	if (DateStyle == USE_ISO_DATES && IntervalStyle == INTSTYLE_POSTGRES && extra_float_digits > 0 &&
		bytea_output == BYTEA_OUTPUT_HEX)
		return 0;
	level = NewGUCNestLevel();
	streamext_identity_set("datestyle", "ISO");
	streamext_identity_set("intervalstyle", "postgres");
	streamext_identity_set("extra_float_digits", "1");
	streamext_identity_set("bytea_output", "hex");
	return level;
}

void
streamext_outbox_put(OutboxWriter *writer, const Datum *values, const bool *nulls)
{
	const Giving  *giving = streamext_giving();
	int			   n = writer->n;
	MemoryContext  old = MemoryContextSwitchTo(writer->piece_cxt);
	bool		   there[OUTBOX_COLUMNS];
	StringInfoData payload;
	char		  *topic;
	int			   level = outbox_pin_settings();

	initStringInfo(&payload);
	there[OUTBOX_PAYLOAD] = !giving->gone && streamext_write_row(writer->payload, values, nulls, &payload);
	if (there[OUTBOX_PAYLOAD])
		(void) outbox_bytes(&payload, &writer->values[OUTBOX_PAYLOAD][n]);
	there[OUTBOX_KEY] = outbox_metadata(writer, METADATA_KEY, values, nulls, &writer->values[OUTBOX_KEY][n]) ||
						outbox_group_key(writer, giving, values, nulls, &writer->values[OUTBOX_KEY][n]);
	there[OUTBOX_HEADERS] = outbox_headers(writer, giving, values, nulls, &writer->values[OUTBOX_HEADERS][n]);
	topic = writer->transport->topic != NULL
				? writer->transport->topic(writer->config, values, nulls, !streamext_identity_is_own_process())
				: NULL;
	if (level != 0)
		AtEOXact_GUC(false, level);
	there[OUTBOX_TOPIC] = topic != NULL;
	if (topic != NULL)
		writer->values[OUTBOX_TOPIC][n] = CStringGetTextDatum(topic);
	for (int i = 0; i < OUTBOX_COLUMNS; i++)
	{
		writer->nulls[i][n] = !there[i];
		if (!there[i])
			writer->values[i][n] = (Datum) 0;
	}
	MemoryContextSwitchTo(old);
	writer->n++;
	writer->bytes += payload.len;
	if (writer->n == OUTBOX_PIECE_ROWS || writer->bytes >= OUTBOX_PIECE_BYTES)
		outbox_write(writer);
}

void
streamext_outbox_end(OutboxWriter *writer)
{
	outbox_write(writer);
	MemoryContextDelete(writer->row_cxt);
	MemoryContextDelete(writer->piece_cxt);
}

/* ---------------------------------------------------------------- dead rows */

int64
streamext_outbox_retry(Oid target)
{
	Oid	  types[] = { OIDOID };
	Datum values[] = { ObjectIdGetDatum(target) };

	outbox_note(target);
	return streamext_control_execute(
		"UPDATE streamext_internal.outbox SET reason = NULL WHERE target OPERATOR(pg_catalog.=) $1 AND reason IS NOT NULL",
		1, types, values, NULL, SPI_OK_UPDATE);
}

/* ---------------------------------------------------------------- the transaction ends */

static void
outbox_wake(void)
{
	ListCell *lc;

	foreach (lc, outbox_targets)
	{
		int			index = streamext_find_stream(MyDatabaseId, lfirst_oid(lc), 0);
		StreamSlot *slot = index >= 0 ? &streamext_shared->streams[index] : NULL;

		if (slot == NULL)
			continue; /* made by this transaction: its worker looks when it starts */
		pg_atomic_write_u32(&slot->ask.outbox_due, 1);
		pg_memory_barrier();
		streamext_wake_worker(slot);
	}
}

static void
outbox_xact_callback(XactEvent event, void *arg)
{
	if (outbox_targets == NIL)
		return;
	switch (event)
	{
		case XACT_EVENT_PRE_PREPARE:
			/* nobody would tell the worker when it commits */
			ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
							errmsg("cannot PREPARE a transaction that has inserted into a stream")));
			break;
		case XACT_EVENT_COMMIT:
			outbox_wake();
			outbox_targets = NIL;
			break;
		case XACT_EVENT_ABORT:
			outbox_targets = NIL;
			break;
		default:
			break;
	}
}

void
streamext_outbox_install_callbacks(void)
{
	RegisterXactCallback(outbox_xact_callback, NULL);
}
