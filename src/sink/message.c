/*
 * sink/message.c
 *		A row of the outbox as a message, for a thread that makes no call of PostgreSQL: all of it lies in the current memory context, texts end with a NUL.
 */
#include "base/streamext.h"

#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"

#include "base/transaction.h"
#include "sink/message.h"

static char *
message_copy_bytes(Datum value, size_t *size)
{
	bytea *bytes = DatumGetByteaPP(value);
	char  *copy;

	*size = VARSIZE_ANY_EXHDR(bytes);
	copy = palloc(*size + 1);
	memcpy(copy, VARDATA_ANY(bytes), *size);
	copy[*size] = '\0';
	return copy;
}

static char *
message_text(JsonbValue *v)
{
	return v->type == jbvString ? pnstrdup(v->val.string.val, v->val.string.len) : NULL;
}

typedef struct HeadersStep
{
	const char *json;
	Jsonb	   *jsonb;
} HeadersStep;

static void
message_headers_step(void *arg)
{
	HeadersStep *step = arg;

	step->jsonb = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(step->json)));
}

/* A row's column of json or text may hold what is no jsonb. *problem then says so. */
static Jsonb *
message_read_headers(const char *json, char **problem)
{
	HeadersStep step = { json, NULL };
	ErrorData  *error = json == NULL ? NULL : streamext_try(message_headers_step, &step);

	if (error == NULL)
		return step.jsonb;
	if (streamext_error_blame(error) != BLAME_ROW)
		ReThrowError(error);
	*problem = psprintf("its headers cannot be read: %s", streamext_error_text(error));
	return NULL;
}

/*
 * Headers are a JSON object of texts; what is none has none. The id is a header too, and no
 * other has its name: who gets a message twice can tell, and a message that came from another sink has a new one. What is not to be sent, ever:
 * why; else NULL.
 */
static char *
message_headers(Message *m, const char *json)
{
	JsonbIterator	  *it;
	JsonbValue		   v;
	JsonbIteratorToken token;
	char			  *problem = NULL;
	Jsonb			  *jsonb = message_read_headers(json, &problem);
	int				   most = jsonb != NULL && JB_ROOT_IS_OBJECT(jsonb) ? JB_ROOT_COUNT(jsonb) + 1 : 1;

	m->header_names = palloc(sizeof(char *) * most);
	m->header_values = palloc(sizeof(char *) * most);
	m->header_names[0] = "token";
	m->header_values[0] = psprintf(INT64_FORMAT, m->id);
	m->nheaders = 1;
	if (most == 1)
		return problem;
	it = JsonbIteratorInit(&jsonb->root);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			m->header_names[m->nheaders] = message_text(&v);
		else if (token == WJB_VALUE && pg_strcasecmp(m->header_names[m->nheaders], "token") != 0 &&
				 (m->header_values[m->nheaders] = message_text(&v)) != NULL)
			m->nheaders++;
	}
	return NULL;
}

char *
streamext_message_read(Message *m, HeapTuple tuple, TupleDesc desc)
{
	Datum values[MESSAGE_COLUMNS];
	bool  nulls[MESSAGE_COLUMNS];

	for (int c = 0; c < MESSAGE_COLUMNS; c++)
		values[c] = SPI_getbinval(tuple, desc, c + 1, &nulls[c]);
	memset(m, 0, sizeof(Message));
	m->id = DatumGetInt64(values[0]);
	m->topic = nulls[2] ? NULL : TextDatumGetCString(values[2]);
	if (!nulls[3])
		m->key = message_copy_bytes(values[3], &m->key_size);
	if (!nulls[4])
		m->payload = message_copy_bytes(values[4], &m->payload_size);
	return message_headers(m, nulls[5] ? NULL : TextDatumGetCString(values[5]));
}
