/*-------------------------------------------------------------------------
 *
 * dead_letter.c
 *		Rejected records into the table streamext.dead_letter.
 *
 * One INSERT over unnested arrays for up to DEAD_LETTER_ROWS records or about DEAD_LETTER_BYTES of payload, so that a source that
 * sends nothing but rubbish costs no statement a record. Payloads are cut at DEAD_LETTER_PAYLOAD bytes.
 *
 *-------------------------------------------------------------------------
 */
#include "streamext.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/resowner.h"

#include "dead_letter.h"

#define DEAD_LETTER_ROWS 512
#define DEAD_LETTER_BYTES (8 * 1024 * 1024)
#define DEAD_LETTER_PAYLOAD (1024 * 1024)

enum
{
	LETTER_VIEW,
	LETTER_TOPIC,
	LETTER_PARTITION,
	LETTER_POSITION,
	LETTER_SQLSTATE,
	LETTER_REASON,
	LETTER_PAYLOAD,
	LETTER_COLUMNS
};

static const Oid letter_types[LETTER_COLUMNS] = { OIDOID, TEXTOID, INT4OID, INT8OID, TEXTOID, TEXTOID, BYTEAOID };

static const char letter_insert_sql[] =
	"INSERT INTO streamext.dead_letter (stream, view, topic, partition, position, sqlstate, reason, payload) "
	"SELECT $1, u.v, u.t, u.p, u.o, u.s, u.r, u.b "
	"FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5), "
	"pg_catalog.unnest($6), pg_catalog.unnest($7), pg_catalog.unnest($8)) AS u(v, t, p, o, s, r, b) "
	"ON CONFLICT DO NOTHING";

static const char letter_prune_sql[] =
	"DELETE FROM streamext.dead_letter WHERE stream OPERATOR(pg_catalog.=) $1 AND id OPERATOR(pg_catalog.<=) "
	"(SELECT d.id FROM streamext.dead_letter AS d WHERE d.stream OPERATOR(pg_catalog.=) $1 ORDER BY d.id DESC LIMIT 1 OFFSET $2)";

static SPIPlanPtr letter_insert_plan = NULL;
static SPIPlanPtr letter_prune_plan = NULL;
static int64	  letter_unpruned = PG_INT64_MAX; /* inserted since the last pruning; at first nothing is known */

static SPIPlanPtr
letter_prepare(const char *sql, int nargs, Oid *types)
{
	SPIPlanPtr plan = SPI_prepare(sql, nargs, types);

	if (plan == NULL)
		elog(ERROR, "could not prepare a statement on streamext.dead_letter: %s", SPI_result_code_string(SPI_result));
	SPI_keepplan(plan);
	return plan;
}

static void
letter_prepare_plans(void)
{
	Oid types[1 + LETTER_COLUMNS] = { OIDOID };
	Oid prune_types[2] = { OIDOID, INT8OID };

	for (int i = 0; i < LETTER_COLUMNS; i++)
		types[i + 1] = get_array_type(letter_types[i]);
	if (letter_insert_plan == NULL)
		letter_insert_plan = letter_prepare(letter_insert_sql, 1 + LETTER_COLUMNS, types);
	if (letter_prune_plan == NULL)
		letter_prune_plan = letter_prepare(letter_prune_sql, 2, prune_types);
}

/* Text from outside, in whatever encoding: bytes that the database's encoding does not know become question marks. */
static Datum
letter_text(const char *s)
{
	char *copy = pstrdup(s == NULL ? "" : s);

	if (!pg_verify_mbstr(GetDatabaseEncoding(), copy, strlen(copy), true))
		for (char *c = copy; *c; c++)
			if (IS_HIGHBIT_SET(*c))
				*c = '?';
	return CStringGetTextDatum(copy);
}

static bytea *
letter_raw_payload(const StreamRecord *record, Size size)
{
	bytea *payload = palloc(VARHDRSZ + size);

	SET_VARSIZE(payload, VARHDRSZ + size);
	memcpy(VARDATA(payload), record->payload, size);
	return payload;
}

/* A row as JSON text runs output functions: should one raise, the bytes must do. */
static bytea *
letter_row_payload(Decoder *decoder, const StreamRecord *record)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	bytea *volatile payload = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		payload = streamext_decoder_payload(decoder, record);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(cxt);
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		payload = letter_raw_payload(record, Min(record->payload_size, DEAD_LETTER_PAYLOAD));
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
	CHECK_FOR_INTERRUPTS(); /* it may have been a cancel */
	return payload;
}

static Datum
letter_payload(Batch *batch, Decoder *decoder, const StreamRecord *record, Size *size)
{
	bytea *payload = batch->config->format == FORMAT_ROW
						 ? letter_row_payload(decoder, record)
						 : letter_raw_payload(record, Min(record->payload_size, DEAD_LETTER_PAYLOAD));

	if (VARSIZE_ANY_EXHDR(payload) > DEAD_LETTER_PAYLOAD)
		SET_VARSIZE(payload, VARHDRSZ + DEAD_LETTER_PAYLOAD);
	*size += VARSIZE_ANY(payload);
	return PointerGetDatum(payload);
}

static Datum
letter_array(Datum *values, bool *nulls, int n, Oid type)
{
	int	  dims[1] = { n };
	int	  lbs[1] = { 1 };
	int16 len;
	bool  byval;
	char  align;

	get_typlenbyvalalign(type, &len, &byval, &align);
	return PointerGetDatum(construct_md_array(values, nulls, 1, dims, lbs, type, len, byval, align));
}

/* Inserts the rejects from *cell on, as many as one statement shall carry; the next one's number. */
static int
letter_insert_some(Batch *batch, Decoder *decoder, int from)
{
	Datum *values[LETTER_COLUMNS];
	bool  *nulls = palloc0(sizeof(bool) * DEAD_LETTER_ROWS);
	bool  *payload_nulls = palloc0(sizeof(bool) * DEAD_LETTER_ROWS);
	Datum  args[1 + LETTER_COLUMNS];
	Size   bytes = 0;
	int	   n = 0;
	int	   rc;

	for (int i = 0; i < LETTER_COLUMNS; i++)
		values[i] = palloc(sizeof(Datum) * DEAD_LETTER_ROWS);
	for (; from < list_length(batch->rejected) && n < DEAD_LETTER_ROWS && bytes < DEAD_LETTER_BYTES; from++, n++)
	{
		RejectedRecord	   *rejected = list_nth(batch->rejected, from);
		const StreamRecord *record = &batch->records[rejected->record];

		values[LETTER_VIEW][n] = ObjectIdGetDatum(rejected->view);
		values[LETTER_TOPIC][n] = letter_text(record->topic);
		values[LETTER_PARTITION][n] = Int32GetDatum(record->partition);
		values[LETTER_POSITION][n] = Int64GetDatum(record->position);
		values[LETTER_SQLSTATE][n] = CStringGetTextDatum(unpack_sql_state(rejected->sqlstate));
		values[LETTER_REASON][n] = letter_text(rejected->reason);
		payload_nulls[n] = record->payload == NULL;
		values[LETTER_PAYLOAD][n] = payload_nulls[n] ? (Datum) 0 : letter_payload(batch, decoder, record, &bytes);
	}
	args[0] = ObjectIdGetDatum(batch->config->relid);
	for (int i = 0; i < LETTER_COLUMNS; i++)
		args[i + 1] = letter_array(values[i], i == LETTER_PAYLOAD ? payload_nulls : nulls, n, letter_types[i]);
	rc = SPI_execute_plan(letter_insert_plan, args, NULL, false, 0);
	if (rc != SPI_OK_INSERT)
		elog(ERROR, "could not insert into streamext.dead_letter: %s", SPI_result_code_string(rc));
	if (letter_unpruned < PG_INT64_MAX - n)
		letter_unpruned += n;
	return from;
}

/* Not after each batch: a tenth more than the limit may stand there for a while. */
static void
letter_prune(Oid stream)
{
	Datum args[2];
	int	  rc;

	if (letter_unpruned <= streamext_dead_letter_limit / 10)
		return;
	args[0] = ObjectIdGetDatum(stream);
	args[1] = Int64GetDatum(streamext_dead_letter_limit);
	rc = SPI_execute_plan(letter_prune_plan, args, NULL, false, 0);
	if (rc != SPI_OK_DELETE)
		elog(ERROR, "could not delete from streamext.dead_letter: %s", SPI_result_code_string(rc));
	letter_unpruned = 0;
}

void
streamext_dead_letters_write(Batch *batch, Decoder *decoder)
{
	MemoryContext cxt;
	MemoryContext old;
	int			  next;

	if (batch->rejected == NIL || batch->config->on_error == ON_ERROR_SKIP || streamext_dead_letter_limit == 0)
		return;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	letter_prepare_plans();
	cxt = AllocSetContextCreate(CurrentMemoryContext, "streamext dead letters", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(cxt);
	/* those that the pruning would take at once are not written at all */
	next = Max(0, list_length(batch->rejected) - streamext_dead_letter_limit);
	while (next < list_length(batch->rejected))
	{
		next = letter_insert_some(batch, decoder, next);
		MemoryContextReset(cxt);
	}
	MemoryContextSwitchTo(old);
	letter_prune(batch->config->relid);
	SPI_finish();
}
