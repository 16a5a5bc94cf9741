/*
 * source/connector.c
 *		What the connectors have in common: error texts, secrets, and that no client outlives its context.
 *
 * A client library's threads must be gone before the process detaches from shared memory (the MQTT client's write the
 * journal's end there) and before exit() runs the libraries' exit handlers under them. So each connector with threads is
 * guarded: closed by the worker, else by the reset of its memory context, else by before_shmem_exit.
 */
#include "base/streamext.h"

#include <fcntl.h>
#include <unistd.h>

#include "lib/ilist.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "port.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/timestamp.h"

#include "base/clip.h"
#include "source/connector.h"

#define CONNECTOR_SECRET_MAX 8192			  /* bytes of a secret's file */
#define CONNECTOR_REPEAT INT64CONST(10000000) /* the same error counts again after this many microseconds */

typedef struct ConnectorGuard
{
	dlist_node			  node;
	Connector			 *connector;
	MemoryContextCallback callback;
} ConnectorGuard;

static dlist_head connector_guards = DLIST_STATIC_INIT(connector_guards);
static bool		  connector_exit_hooked = false;

const char *const streamext_words_identification[] = { "https", "none", NULL };

/* ---- the guard ---- */

static void
connector_on_reset(void *arg)
{
	ConnectorGuard *guard = arg;

	dlist_delete(&guard->node);
	guard->connector->ops->close(guard->connector);
}

static void
connector_on_exit(int code, Datum arg)
{
	dlist_iter iter;

	dlist_foreach (iter, &connector_guards)
	{
		Connector *c = dlist_container(ConnectorGuard, node, iter.cur)->connector;

		c->ops->close(c);
	}
}

void
streamext_connector_guard(Connector *c, MemoryContext cxt)
{
	ConnectorGuard *guard = MemoryContextAllocZero(cxt, sizeof(ConnectorGuard));

	if (!connector_exit_hooked)
	{
		before_shmem_exit(connector_on_exit, (Datum) 0);
		connector_exit_hooked = true;
	}
	guard->connector = c;
	guard->callback.func = connector_on_reset;
	guard->callback.arg = guard;
	dlist_push_tail(&connector_guards, &guard->node);
	MemoryContextRegisterResetCallback(cxt, &guard->callback);
}

/* ---- errors ---- */

void
streamext_connector_clean(char *text)
{
	int length = strlen(text);

	if (length >= STREAMEXT_MAX_MESSAGE)
		length = pg_mbcliplen(text, length, STREAMEXT_MAX_MESSAGE - 1);
	text[length] = '\0';
	for (char *p = text; *p != '\0'; p++)
		if ((unsigned char) *p < ' ' || *p == 0x7f)
			*p = ' ';
	if (!pg_verifymbstr(text, length, true))
		for (char *p = text; *p != '\0'; p++)
			if (IS_HIGHBIT_SET(*p))
				*p = '?';
}

void
streamext_connector_event(Connector *c, const char *kind, int index, int64 missed, const char *format, ...)
{
	char			text[STREAMEXT_MAX_MESSAGE * 2];
	ConnectorEvent *event;
	va_list			args;

	if (c->nevents == STREAMEXT_CONNECTOR_EVENTS)
		return;
	event = &c->events[c->nevents++];
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	streamext_connector_clean(text);
	event->kind = kind;
	event->index = index;
	event->missed = missed;
	event->counted = false;
	streamext_clip(event->detail, text, sizeof(event->detail));
}

void
streamext_connector_report(Connector *c, const char *format, ...)
{
	char		text[STREAMEXT_MAX_MESSAGE * 2];
	TimestampTz now = GetCurrentTimestamp();
	va_list		args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);

	streamext_connector_clean(text);
	if (strcmp(text, c->error) == 0 && now - c->reported_at < CONNECTOR_REPEAT)
		return;
	streamext_clip(c->error, text, sizeof(c->error));
	c->reported_at = now;
	c->errors++;
}

/* ---- doubts ---- */

#define CONNECTOR_MAX_PORT 65535

/* The port behind the last colon; -1: none is named. */
static int64
connector_port(const char *address)
{
	const char *colon = strrchr(address, ':');

	if (colon == NULL || strspn(colon + 1, "0123456789") == 0 || strlen(colon + 1) > 18)
		return -1;
	return atoll(colon + 1);
}

void
streamext_connector_doubt_addresses(const StreamConfig *config, const char *option, bool one)
{
	char *rest = pstrdup(streamext_option(config->server_options, option));

	if (one && strchr(rest, ',') != NULL)
		ereport(NOTICE,
				(errmsg("option \"%s\" of the server of stream \"%s\" names several addresses", option, config->name),
				 errdetail("It is \"%s\", which is read as one.", rest),
				 errhint("Name one address; make a server for each broker.")));
	for (char *address = strtok_r(rest, ",", &rest); address != NULL; address = strtok_r(NULL, ",", &rest))
	{
		int64 port = connector_port(address);

		if (port == 0 || port > CONNECTOR_MAX_PORT)
			ereport(NOTICE, (errmsg("stream \"%s\" cannot reach port " INT64_FORMAT, config->name, port),
							 errdetail("It stands in option \"%s\" of the server.", option),
							 errhint("Ports go from 1 to %d: ALTER SERVER ... OPTIONS (SET %s '...').",
									 CONNECTOR_MAX_PORT, option)));
	}
}

/* ---- secrets ---- */

char *
streamext_connector_secret(const StreamConfig *config, const char *name, const char *file_name, char **problem)
{
	const char *value = streamext_option(config->user_options, name);

	*problem = NULL;
	if (value != NULL)
		return pstrdup(value);
	return streamext_connector_secret_file(config->user_options, file_name, problem);
}

char *
streamext_connector_secret_file(List *options, const char *file_name, char **problem)
{
	const char *path = streamext_option(options, file_name);
	char	   *contents;
	ssize_t		size;
	int			fd;

	*problem = NULL;
	if (path == NULL)
		return NULL;
	if (!path_is_relative_and_below_cwd(path))
	{
		*problem = psprintf("option %s does not name a file below the data directory", file_name);
		return NULL;
	}

	fd = OpenTransientFile(path, O_RDONLY | PG_BINARY);
	if (fd < 0)
	{
		*problem = psprintf("could not open the file of option %s: %m", file_name);
		return NULL;
	}
	contents = palloc(CONNECTOR_SECRET_MAX + 1);
	size = read(fd, contents, CONNECTOR_SECRET_MAX);
	if (size < 0)
		*problem = psprintf("could not read the file of option %s: %m", file_name);
	CloseTransientFile(fd);
	if (size < 0)
		return NULL;

	while (size > 0 && strchr(" \t\r\n", contents[size - 1]) != NULL)
		size--;
	contents[size] = '\0';
	return contents + strspn(contents, " \t\r\n");
}

/* ---- headers ---- */

void
streamext_connector_header_text(StringInfo json, const char *value, size_t size)
{
	char *text;

	if (value == NULL)
	{
		appendStringInfoString(json, "null");
		return;
	}
	if (pg_verify_mbstr(GetDatabaseEncoding(), value, (int) size, true))
	{
		text = pnstrdup(value, size);
		escape_json(json, text);
		pfree(text);
		return;
	}
	text = palloc(size * 2 + 1);
	text[hex_encode(value, size, text)] = '\0';
	appendStringInfo(json, "\"\\\\x%s\"", text);
	pfree(text);
}

char *
streamext_connector_headers(const ConnectorOps *ops, Connector *c, const StreamRecord *record, const char **refused,
							int *sqlstate)
{
	*refused = NULL;
	if (ops->headers == NULL || record->message == NULL)
		return NULL;
	if (ops->headers_refused != NULL)
		*refused = ops->headers_refused(record, sqlstate);
	return *refused != NULL ? NULL : ops->headers(c, record);
}

/* ---- keys ---- */

bool
streamext_connector_has_keys(const ConnectorOps *ops)
{
	for (const MetadataSpec *spec = ops->metadata; spec != NULL && spec->name != NULL; spec++)
		if (spec->kind == METADATA_KEY)
			return true;
	return false;
}
