/*
 * source/mqtt/session.c
 *		What the broker remembers for a stream's client (see source/mqtt/session.h).
 *
 * The file has a line each for the format, the broker's address and the client id, then one for each subscription: `+` and the QoS when it
 * was granted, `?0` when that is not known, and the filter. None of these texts has control characters: DDL refuses them. The last line
 * is the CRC-32C of all before it; a file whose last line is anything else, torn or damaged, is as good as none: a wrong filter would be
 * refused by the broker for ever, while of a session that nothing is known of the present filter is asked for again.
 */
#include "base/streamext.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/xlog.h"
#include "miscadmin.h"
#include "port/pg_crc32c.h"

#include "source/mqtt/session.h"

#define SESSION_FORMAT "streamext mqtt session 2"
#define SESSION_FILE "session"
#define SESSION_CRC_SIZE 9 /* eight hexadecimal digits and the end of the line */
#define SESSION_MAX_SIZE (16 * 1024 * 1024)

typedef struct MqttSubscription
{
	char *filter;
	int	  qos; /* granted; -1: not known */
	bool  passed_over;
} MqttSubscription;

struct MqttSession
{
	char			  directory[MAXPGPATH];
	char			 *uri, *client_id; /* NULL: not known */
	int				  n;
	MqttSubscription *subscriptions;
};

static MqttSubscription *
session_find(const MqttSession *session, const char *filter)
{
	for (int i = 0; i < session->n; i++)
		if (strcmp(session->subscriptions[i].filter, filter) == 0)
			return &session->subscriptions[i];
	return NULL;
}

/* False: out of memory. */
static bool
session_add(MqttSession *session, const char *filter, int qos)
{
	MqttSubscription *larger = realloc(session->subscriptions, sizeof(MqttSubscription) * (session->n + 1));
	char			 *copy = strdup(filter);

	if (larger != NULL)
		session->subscriptions = larger;
	if (larger == NULL || copy == NULL)
	{
		free(copy);
		errno = ENOMEM;
		return false;
	}
	session->subscriptions[session->n].filter = copy;
	session->subscriptions[session->n].qos = qos;
	session->subscriptions[session->n].passed_over = false;
	session->n++;
	return true;
}

static void
session_delete(MqttSession *session, MqttSubscription *subscription)
{
	free(subscription->filter);
	*subscription = session->subscriptions[--session->n];
}

/* ---- the file ---- */

static bool
session_read_line(MqttSession *session, int number, const char *line)
{
	switch (number)
	{
		case 0:
			return true;
		case 1:
			return (session->uri = strdup(line)) != NULL;
		case 2:
			return (session->client_id = strdup(line)) != NULL;
		default:
			return strlen(line) < 4 || session_add(session, line + 3, line[0] == '+' ? line[1] - '0' : -1);
	}
}

static uint32
session_crc(const char *text, size_t size)
{
	pg_crc32c crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, text, size);
	FIN_CRC32C(crc);
	return crc;
}

/* The whole file as a string, malloc'd, less the checksum, which fits; NULL, errno 0: there is none to be used. */
static char *
session_read_file(const char *path)
{
	FILE *file = fopen(path, "re");
	char *text = NULL, last[SESSION_CRC_SIZE + 1];
	long  size = -1;

	if (file == NULL)
	{
		errno = errno == ENOENT ? 0 : errno;
		return NULL;
	}
	if (fseek(file, 0, SEEK_END) == 0)
		size = ftell(file);
	rewind(file);
	errno = 0;
	if (size > SESSION_CRC_SIZE && size <= SESSION_MAX_SIZE && (text = malloc(size + 1)) != NULL)
	{
		bool good = fread(text, 1, size, file) == (size_t) size;

		text[size] = '\0';
		size -= SESSION_CRC_SIZE;
		snprintf(last, sizeof(last), "%08x\n", session_crc(text, size));
		good = good && strcmp(text + size, last) == 0;
		text[size] = '\0';
		if (!good)
		{
			free(text);
			text = NULL;
		}
	}
	fclose(file);
	return text;
}

MqttSession *
streamext_mqtt_session_open(const char *directory)
{
	MqttSession *session = calloc(1, sizeof(MqttSession));
	char		 path[MAXPGPATH + 16];
	char		*text, *rest, *line;
	bool		 good;
	int			 saved;

	if (session == NULL)
		return NULL;
	strlcpy(session->directory, directory, sizeof(session->directory));
	snprintf(path, sizeof(path), "%s/" SESSION_FILE, directory);
	text = rest = session_read_file(path);
	good = text != NULL || errno == 0;
	for (int number = 0; good && (line = strsep(&rest, "\n")) != NULL; number++)
	{
		if (number == 0 && strcmp(line, SESSION_FORMAT) != 0)
			break; /* of another version: as good as none */
		good = session_read_line(session, number, line);
	}
	saved = errno;
	free(text);
	if (good)
		return session;
	streamext_mqtt_session_close(session);
	errno = saved;
	return NULL;
}

void
streamext_mqtt_session_close(MqttSession *session)
{
	if (session == NULL)
		return;
	while (session->n > 0)
		session_delete(session, &session->subscriptions[0]);
	free(session->subscriptions);
	free(session->uri);
	free(session->client_id);
	free(session);
}

static bool
session_write_text(const MqttSession *session, FILE *file)
{
	char  *text = NULL;
	size_t size = 0;
	FILE  *memory = open_memstream(&text, &size);
	bool   good;

	if (memory == NULL)
		return false;
	fprintf(memory, SESSION_FORMAT "\n%s\n%s\n", session->uri, session->client_id);
	for (int i = 0; i < session->n; i++)
		fprintf(memory, "%c%d %s\n", session->subscriptions[i].qos < 0 ? '?' : '+',
				Max(session->subscriptions[i].qos, 0), session->subscriptions[i].filter);
	good = fclose(memory) == 0;
	if (good)
		fprintf(file, "%s%08x\n", text, session_crc(text, size));
	free(text);
	return good && fflush(file) == 0 && !ferror(file);
}

/* The name in the directory is on disk. */
static bool
session_sync_directory(const MqttSession *session)
{
	int	 fd = open(session->directory, O_RDONLY | O_CLOEXEC);
	bool done = fd >= 0 && fsync(fd) == 0;
	int	 saved = errno;

	if (fd >= 0)
		close(fd);
	errno = saved;
	return done;
}

static bool
session_save(const MqttSession *session)
{
	char  path[MAXPGPATH + 16], other[MAXPGPATH + 16];
	FILE *file;
	int	  saved;
	bool  done;

	if (session->uri == NULL || session->client_id == NULL)
		return true; /* whose it is comes first */
	snprintf(path, sizeof(path), "%s/" SESSION_FILE, session->directory);
	snprintf(other, sizeof(other), "%s/" SESSION_FILE ".new", session->directory);
	file = fopen(other, "we");
	if (file == NULL)
		return false;
	done = session_write_text(session, file) && (!enableFsync || fsync(fileno(file)) == 0);
	saved = errno;
	fclose(file);
	errno = saved;
	return done && rename(other, path) == 0 && (!enableFsync || session_sync_directory(session));
}

/* ---- what is known ---- */

const char *
streamext_mqtt_session_uri(const MqttSession *session)
{
	return session->uri;
}

const char *
streamext_mqtt_session_client(const MqttSession *session)
{
	return session->client_id;
}

bool
streamext_mqtt_session_begin(MqttSession *session, const char *uri, const char *client_id, bool fresh)
{
	bool same_client = session->client_id != NULL && strcmp(session->client_id, client_id) == 0;
	bool same = same_client && session->uri != NULL && strcmp(session->uri, uri) == 0;

	for (int i = 0; i < session->n; i++)
		session->subscriptions[i].passed_over = false;
	if (same && (!fresh || session->n == 0))
		return true;
	if (!same)
	{
		char *new_uri = strdup(uri), *new_client_id = strdup(client_id);

		if (new_uri == NULL || new_client_id == NULL)
		{
			free(new_uri);
			free(new_client_id);
			errno = ENOMEM;
			return false;
		}
		free(session->uri);
		free(session->client_id);
		session->uri = new_uri;
		session->client_id = new_client_id;
	}
	while ((fresh || !same_client) && session->n > 0)
		session_delete(session, &session->subscriptions[0]);
	return session_save(session);
}

bool
streamext_mqtt_session_ask(MqttSession *session, const char *filter)
{
	int saved;

	if (session_find(session, filter) != NULL)
		return true;
	if (!session_add(session, filter, -1))
		return false;
	if (session_save(session))
		return true;
	saved = errno;
	session_delete(session, session_find(session, filter));
	errno = saved;
	return false;
}

bool
streamext_mqtt_session_confirm(MqttSession *session, const char *filter, int qos)
{
	MqttSubscription *subscription = session_find(session, filter);

	if (subscription == NULL || subscription->qos == qos)
		return true;
	subscription->qos = qos;
	return session_save(session);
}

bool
streamext_mqtt_session_remove(MqttSession *session, const char *filter)
{
	MqttSubscription *subscription = session_find(session, filter);

	if (subscription == NULL)
		return true;
	for (; subscription != NULL; subscription = session_find(session, filter)) /* a file may have it twice */
		session_delete(session, subscription);
	return session_save(session);
}

int
streamext_mqtt_session_qos(const MqttSession *session, const char *filter)
{
	MqttSubscription *subscription = session_find(session, filter);

	return subscription == NULL ? -1 : subscription->qos;
}

const char *
streamext_mqtt_session_other(const MqttSession *session, const char *filter, const char *marker)
{
	for (int i = 0; i < session->n; i++)
	{
		const MqttSubscription *subscription = &session->subscriptions[i];

		if (!subscription->passed_over && strcmp(subscription->filter, filter) != 0 &&
			strcmp(subscription->filter, marker) != 0)
			return subscription->filter;
	}
	return NULL;
}

void
streamext_mqtt_session_pass_over(MqttSession *session, const char *filter)
{
	MqttSubscription *subscription = session_find(session, filter);

	if (subscription != NULL)
		subscription->passed_over = true;
}
