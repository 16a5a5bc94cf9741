/*
 * sources: base/clip
 *
 * The file in which an MQTT client keeps what the broker remembers: bytes of any kind, with a right checksum or without, are a session or as
 * good as none; what is noted in a session is found again by the next process, and a file that was cut off or changed is none.
 */
#include "fuzz.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

/* The two files, in memory. */
static char	 *session_now, *session_new;
static size_t session_now_size, session_new_size;

static FILE *
session_fopen(const char *path, const char *mode)
{
	if (*mode == 'w')
		return open_memstream(&session_new, &session_new_size);
	if (session_now != NULL && session_now_size > 0)
		return fmemopen(session_now, session_now_size, "r");
	errno = ENOENT;
	return NULL;
}

static int
session_rename(const char *from, const char *to)
{
	free(session_now);
	session_now = session_new;
	session_now_size = session_new_size;
	session_new = NULL;
	return 0;
}

#define fopen session_fopen
#define rename session_rename
#include "source/mqtt/session.c"
#undef fopen
#undef rename

/* As DDL lets it through: neither empty nor with control characters. */
static const char *
session_text(FuzzInput *in)
{
	char *text = fuzz_text(in, 1 + fuzz_number(in, 40));

	for (char *c = text; *c != '\0'; c++)
		if ((unsigned char) *c < ' ' || *c == 127)
			*c = '/';
	return *text == '\0' ? "a" : text;
}

static void
session_step(FuzzInput *in, MqttSession *session)
{
	const char *filter = session_text(in);
	const char *other;
	int			qos = fuzz_number(in, 3);

	switch (fuzz_number(in, 6))
	{
		case 0:
			REQUIRE(streamext_mqtt_session_begin(session, filter, session_text(in), qos == 0));
			REQUIRE(strcmp(streamext_mqtt_session_uri(session), filter) == 0);
			break;
		case 1:
		case 2:
			REQUIRE(streamext_mqtt_session_ask(session, filter) && session_find(session, filter) != NULL);
			break;
		case 3:
			REQUIRE(streamext_mqtt_session_ask(session, filter) &&
					streamext_mqtt_session_confirm(session, filter, qos) &&
					streamext_mqtt_session_qos(session, filter) == qos);
			break;
		case 4:
			REQUIRE(streamext_mqtt_session_remove(session, filter) && session_find(session, filter) == NULL);
			break;
		case 5:
			other = streamext_mqtt_session_other(session, filter, "marker");
			if (other != NULL)
			{
				REQUIRE(strcmp(other, filter) != 0);
				streamext_mqtt_session_pass_over(session, other);
			}
			break;
	}
}

static bool
session_same(const MqttSession *a, const MqttSession *b)
{
	if (b->uri == NULL || a->n != b->n || strcmp(a->uri, b->uri) != 0 || strcmp(a->client_id, b->client_id) != 0)
		return false;
	for (int i = 0; i < a->n; i++)
		if (session_find(b, a->subscriptions[i].filter) == NULL ||
			streamext_mqtt_session_qos(b, a->subscriptions[i].filter) != a->subscriptions[i].qos)
			return false;
	return true;
}

/* Read anew it is the same; with a byte changed, or less of it, nothing is known. */
static void
session_again(FuzzInput *in, const MqttSession *session)
{
	MqttSession *again = streamext_mqtt_session_open("");

	REQUIRE(again != NULL && session_same(session, again));
	streamext_mqtt_session_close(again);
	if (fuzz_number(in, 2) == 0)
		session_now_size = fuzz_number(in, 65536) % session_now_size;
	else
		session_now[fuzz_number(in, 65536) % session_now_size] ^= 1 << fuzz_number(in, 8);
	again = streamext_mqtt_session_open("");
	REQUIRE(again != NULL && again->uri == NULL && again->n == 0);
	streamext_mqtt_session_close(again);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	FuzzInput	 in = { data, size };
	MqttSession *session;
	bool		 sum;

	server_start();
	free(session_now);
	session_now = NULL;
	sum = fuzz_number(&in, 4) != 0;
	session_now_size = fuzz_size(&in, 8192);
	session_now = malloc(session_now_size + SESSION_CRC_SIZE + 1);
	fuzz_bytes(&in, session_now, session_now_size);
	if (sum && session_now_size > 0)
		session_now_size +=
			sprintf(session_now + session_now_size, "%08x\n", session_crc(session_now, session_now_size));
	session = streamext_mqtt_session_open("");
	REQUIRE(session != NULL);
	for (int step = 0; step < 24 && in.size > 0; step++)
		session_step(&in, session);
	/* whatever was in the file: what is written since can be read */
	if (streamext_mqtt_session_begin(session, "mqtt://a", session_text(&in), true) &&
		streamext_mqtt_session_ask(session, "b/#"))
		session_again(&in, session);
	streamext_mqtt_session_close(session);
	server_reset();
	return 0;
}
