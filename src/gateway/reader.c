/*
 * gateway/reader.c
 *		Both sides of reading a view for a gateway. What the functions promise is in gateway/reader.h.
 *
 * The question lies in a dynamic segment, with a queue for the answer: messages of a status (4 bytes; 0: there is more) and a piece of the body.
 * The process runs one read-only query as the role, in a security-restricted operation, and ends.
 */
#include "base/streamext.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "executor/spi.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "storage/shm_mq.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "base/background.h"
#include "base/budget.h"
#include "base/identity.h"
#include "gateway/reader.h"

#define READ_QUEUE (256 * 1024)
#define READ_FETCH 500		   /* rows at once */
#define READ_PIECE (32 * 1024) /* bytes of a message, about */

typedef struct ReadQuestion
{
	Oid		   dboid, role;
	ReadFormat format;
	int64	   limit;
	Size	   size;
	char	   names[FLEXIBLE_ARRAY_MEMBER];
} ReadQuestion;

typedef struct ReadProcess
{
	dsm_segment			   *segment;
	shm_mq_handle		   *queue;
	BackgroundWorkerHandle *handle;
} ReadProcess;

static Size
read_queue_at(Size size)
{
	return BUFFERALIGN(offsetof(ReadQuestion, names) + size);
}

/* ---------------------------------------------------------------- who asks */

static bool
read_register(ReadProcess *process)
{
	BackgroundStart start = { .name = "streamext reader",
							  .type = "streamext reader",
							  .function = "streamext_reader_main",
							  .arg = UInt32GetDatum(dsm_segment_handle(process->segment)),
							  .in_recovery = true };

	return streamext_background_start(&start, &process->handle);
}

/* False: there is no segment, or no process. */
static bool
read_start(ReadProcess *process, const ReadQuestion *question, const char *names)
{
	Size		  at = read_queue_at(question->size);
	ReadQuestion *shared;
	shm_mq		 *queue;

	process->segment = dsm_create(at + READ_QUEUE, DSM_CREATE_NULL_IF_MAXSEGMENTS);
	if (process->segment == NULL)
		return false;
	shared = dsm_segment_address(process->segment);
	*shared = *question;
	memcpy(shared->names, names, question->size);
	queue = shm_mq_create((char *) shared + at, READ_QUEUE);
	shm_mq_set_receiver(queue, MyProc);
	if (!read_register(process))
	{
		dsm_detach(process->segment);
		return false;
	}
	process->queue = shm_mq_attach(queue, process->segment, process->handle);
	return true;
}

GatewayRead *
streamext_gateway_read(Oid role, ReadFormat format, int64 limit, const char *names, Size size)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	GatewayRead	 *read = palloc0(sizeof(GatewayRead));
	ReadQuestion  question = { MyDatabaseId, role, format, limit, size };

	read->process = palloc0(sizeof(ReadProcess));
	initStringInfo(&read->body);
	if (!read_start(read->process, &question, names))
	{
		pfree(read->body.data);
		pfree(read->process);
		pfree(read);
		read = NULL;
	}
	MemoryContextSwitchTo(old);
	return read;
}

static void
read_finish(GatewayRead *read, int status, const char *text)
{
	read->status = status;
	if (text != NULL)
	{
		resetStringInfo(&read->body);
		appendStringInfoString(&read->body, text);
	}
}

static void
read_take(GatewayRead *read, const char *data, Size size)
{
	int32 status;

	Assert(size >= sizeof(status));
	memcpy(&status, data, sizeof(status));
	if (status != 0 && status != 200)
		resetStringInfo(&read->body);
	if (read->body.len + size > STREAMEXT_READ_BYTES)
	{
		read_finish(read, 413, "the answer is too large: name a limit, or filter by columns");
		return;
	}
	appendBinaryStringInfo(&read->body, data + sizeof(status), size - sizeof(status));
	if (status != 0)
		read->status = status;
}

bool
streamext_gateway_read_poll(GatewayRead *read)
{
	while (read->status == 0)
	{
		Size		  size;
		void		 *data;
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
		shm_mq_result result = shm_mq_receive(read->process->queue, &size, &data, true);

		if (result == SHM_MQ_SUCCESS)
			read_take(read, data, size);
		else if (result == SHM_MQ_DETACHED)
			read_finish(read, 500, "the process that read the view has ended");
		MemoryContextSwitchTo(old);
		if (result == SHM_MQ_WOULD_BLOCK)
			return false;
	}
	return true;
}

void
streamext_gateway_read_end(GatewayRead *read)
{
	TerminateBackgroundWorker(read->process->handle);
	shm_mq_detach(read->process->queue);
	dsm_detach(read->process->segment);
	pfree(read->process->handle);
	pfree(read->process);
	pfree(read->body.data);
	pfree(read);
}

/* ---------------------------------------------------------------- who reads */

static shm_mq_handle *reader_queue;

static void
reader_send(int32 status, const char *text, Size size)
{
	shm_mq_iovec parts[2] = { { (char *) &status, sizeof(status) }, { text, size } };

	if (shm_mq_sendv(reader_queue, parts, 2, false, true) != SHM_MQ_SUCCESS)
		proc_exit(0); /* nobody wants it any more */
}

static void
reader_flush(StringInfo piece)
{
	reader_send(0, piece->data, piece->len);
	resetStringInfo(piece);
}

int
streamext_reader_status(const ErrorData *error)
{
	switch (ERRCODE_TO_CATEGORY(error->sqlerrcode))
	{
		case ERRCODE_TO_CATEGORY(ERRCODE_DATA_EXCEPTION):
			return 400;
		default:
			break;
	}
	switch (error->sqlerrcode)
	{
		case ERRCODE_UNDEFINED_TABLE:
			return 404;
		case ERRCODE_INSUFFICIENT_PRIVILEGE:
			return 403;
		case ERRCODE_UNDEFINED_COLUMN:
		case ERRCODE_UNDEFINED_FUNCTION:
		case ERRCODE_WRONG_OBJECT_TYPE:
		case ERRCODE_FEATURE_NOT_SUPPORTED:
			return 400;
		case ERRCODE_QUERY_CANCELED:
			return 503;
		default:
			return 500;
	}
}

Oid
streamext_reader_view(const char *schema, const char *name, Oid role)
{
	Oid namespace = get_namespace_oid(schema, true);
	Oid	 relid = InvalidOid;
	char kind;

	if (OidIsValid(namespace) && object_aclcheck(NamespaceRelationId, namespace, role, ACL_USAGE) == ACLCHECK_OK)
		relid = get_relname_relid(name, namespace);
	kind = OidIsValid(relid) ? get_rel_relkind(relid) : '\0';
	if (kind != RELKIND_VIEW && kind != RELKIND_MATVIEW)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE), errmsg("there is no view \"%s.%s\"", schema, name)));
	if (pg_class_aclcheck(relid, role, ACL_SELECT) != ACLCHECK_OK)
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("permission denied for view \"%s.%s\"", schema, name)));
	return relid;
}

static char *
reader_query(const ReadQuestion *question)
{
	const char	  *schema = question->names;
	const char	  *name = schema + strlen(schema) + 1;
	const char	  *end = question->names + question->size;
	const char	  *word = " WHERE ";
	StringInfoData sql;
	Oid			   relid;

	if (question->format == READ_METRICS || question->format == READ_OPENMETRICS)
		return psprintf("SELECT streamext.metrics_text(%s)", question->format == READ_OPENMETRICS ? "true" : "false");
	relid = streamext_reader_view(schema, name, question->role);
	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT * FROM %s", quote_qualified_identifier(schema, name));
	for (const char *p = name + strlen(name) + 1; p < end; word = " AND ")
	{
		const char *value = p + strlen(p) + 1;

		if (get_attnum(relid, p) <= 0)
			ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN), errmsg("the view has no column \"%s\"", p)));
		appendStringInfo(&sql, "%s%s = %s", word, quote_identifier(p), quote_literal_cstr(value));
		p = value + strlen(value) + 1;
	}
	if (question->limit >= 0)
		appendStringInfo(&sql, " LIMIT " INT64_FORMAT, question->limit);
	if (question->format == READ_CSV)
		return sql.data;
	streamext_identity_check_columns(relid);
	return psprintf("SELECT pg_catalog.row_to_json(q.*)::pg_catalog.text FROM (%s) AS q", sql.data);
}

static void
reader_csv_field(StringInfo piece, const char *value)
{
	if (value == NULL)
		return;
	if (value[0] != '\0' && strpbrk(value, ",\"\r\n") == NULL)
	{
		appendStringInfoString(piece, value);
		return;
	}
	appendStringInfoChar(piece, '"');
	for (const char *p = value; *p != '\0'; p++)
	{
		if (*p == '"')
			appendStringInfoChar(piece, '"');
		appendStringInfoChar(piece, *p);
	}
	appendStringInfoChar(piece, '"');
}

static void
reader_csv_row(StringInfo piece, HeapTuple tuple, TupleDesc desc)
{
	for (int i = 1; i <= desc->natts; i++)
	{
		if (i > 1)
			appendStringInfoChar(piece, ',');
		reader_csv_field(piece, tuple != NULL ? SPI_getvalue(tuple, desc, i) : SPI_fname(desc, i));
	}
	appendStringInfoString(piece, "\r\n");
}

static void
reader_row(StringInfo piece, ReadFormat format, HeapTuple tuple, TupleDesc desc, bool first)
{
	char *json;

	if (format == READ_CSV)
	{
		reader_csv_row(piece, tuple, desc);
		return;
	}
	json = SPI_getvalue(tuple, desc, 1);

	/* a value of the type json is as it was written, and may have ends of lines, though only between words: a record is one line */
	if (format == READ_NDJSON)
		for (char *p = json; (p = strpbrk(p, "\r\n")) != NULL;)
			*p = ' ';
	if (format == READ_JSON)
		appendStringInfoString(piece, first ? "[" : ",\n");
	appendStringInfoString(piece, json);
	if (format == READ_NDJSON)
		appendStringInfoChar(piece, '\n');
}

/* The portal's rows, piece by piece. */
static void
reader_answer(Portal portal, ReadFormat format)
{
	StringInfoData piece;
	bool		   first = true;
	MemoryContext  rows = AllocSetContextCreate(CurrentMemoryContext, "streamext rows", ALLOCSET_DEFAULT_SIZES);

	initStringInfo(&piece);
	if (format == READ_CSV)
		reader_csv_row(&piece, NULL, portal->tupDesc);
	for (;;)
	{
		SPI_cursor_fetch(portal, true, READ_FETCH);
		if (SPI_processed == 0)
			break;
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			MemoryContext old = MemoryContextSwitchTo(rows);

			reader_row(&piece, format, SPI_tuptable->vals[i], SPI_tuptable->tupdesc, first);
			MemoryContextSwitchTo(old);
			first = false;
			if (piece.len >= READ_PIECE)
				reader_flush(&piece);
			CHECK_FOR_INTERRUPTS();
		}
		SPI_freetuptable(SPI_tuptable);
		MemoryContextReset(rows);
	}
	if (format == READ_JSON)
		appendStringInfoString(&piece, first ? "[]\n" : "]\n");
	reader_send(200, piece.data, piece.len);
}

IdentityScope
streamext_reader_enter(Oid role)
{
	/* code that asks for session_user, as policies may, is to hear of the role and not of the superuser that the process is */
	SetSessionAuthorization(role, superuser_arg(role));
	return streamext_identity_enter(role);
}

static void
reader_run(const ReadQuestion *question)
{
	IdentityScope scope;
	Portal		  portal;

	StartTransactionCommand();
	XactReadOnly = true;
	PushActiveSnapshot(GetTransactionSnapshot());
	streamext_budget_begin(STREAMEXT_READ_MS);
	scope = streamext_reader_enter(question->role);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	portal = SPI_cursor_open_with_args(NULL, reader_query(question), 0, NULL, NULL, NULL, true, 0);
	reader_answer(portal, question->format);
	SPI_cursor_close(portal);
	SPI_finish();
	streamext_identity_leave(scope);
	(void) streamext_budget_end();
	PopActiveSnapshot();
	CommitTransactionCommand();
}

void
streamext_reader_session(const char *name)
{
	static const char *const settings[][2] = {
		{ "search_path", "pg_catalog, pg_temp" },
		{ "statement_timeout", "0" },
		{ "default_transaction_isolation", "read committed" },
		{ "row_security", "on" },
	};

	for (int i = 0; i < lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("application_name", name, PGC_SUSET, PGC_S_OVERRIDE);
}

void
streamext_reader_main(Datum arg)
{
	dsm_segment	 *segment;
	ReadQuestion *question;
	shm_mq		 *queue;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	CurrentResourceOwner = ResourceOwnerCreate(NULL, "streamext reader");
	segment = dsm_attach(DatumGetUInt32(arg));
	if (segment == NULL)
		proc_exit(0); /* who asked is gone */
	dsm_pin_mapping(segment);
	question = dsm_segment_address(segment);
	queue = (shm_mq *) ((char *) question + read_queue_at(question->size));
	shm_mq_set_sender(queue, MyProc);
	reader_queue = shm_mq_attach(queue, segment, NULL);
	BackgroundWorkerInitializeConnectionByOid(question->dboid, InvalidOid, 0);
	streamext_reader_session("streamext reader");
	streamext_budget_register();
	PG_TRY();
	{
		reader_run(question);
	}
	PG_CATCH();
	{
		ErrorData *error;
		bool	   over;

		HOLD_INTERRUPTS();
		over = streamext_budget_end();
		MemoryContextSwitchTo(TopMemoryContext);
		error = CopyErrorData();
		if (over)
			streamext_budget_explain(error, STREAMEXT_READ_MS);
		FlushErrorState();
		AbortCurrentTransaction();
		RESUME_INTERRUPTS();
		reader_send(streamext_reader_status(error), error->message, strlen(error->message));
	}
	PG_END_TRY();
	proc_exit(0);
}
