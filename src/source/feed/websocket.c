/*
 * source/feed/websocket.c
 *		A websocket by hand: libcurl makes the connection (with TLS), the handshake and the frames are ours.
 *
 * What is sent is little: the handshake, the option hello, an answer to each PING, a CLOSE. It waits in `out` until the socket takes it.
 */
#include "base/streamext.h"

#include <sys/epoll.h>

#include <openssl/evp.h>

#include "common/base64.h"

#include "base/clip.h"
#include "source/feed/link_private.h"
#include "source/feed/target.h"

#define WEBSOCKET_GUID "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
#define WEBSOCKET_KEY 16
#define WEBSOCKET_READ (256 * 1024)
#define WEBSOCKET_OUT_MAX 65536 /* more that the server does not read: it is gone */

/* ---- the handshake ---- */

static bool
websocket_say(FeedLink *link, const char *text)
{
	return streamext_feed_text_add(&link->out, text, strlen(text), FEED_HEAD_MAX);
}

static bool
websocket_request_line(FeedLink *link)
{
	CURLU *url = streamext_feed_target_parse(link->url);
	char  *host = NULL, *port = NULL, *path = NULL, *query = NULL;
	bool   done = url != NULL && curl_url_get(url, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
				curl_url_get(url, CURLUPART_PATH, &path, 0) == CURLUE_OK;

	if (done)
	{
		(void) curl_url_get(url, CURLUPART_PORT, &port, 0);
		(void) curl_url_get(url, CURLUPART_QUERY, &query, 0);
		done = websocket_say(link, "GET ") && websocket_say(link, path) &&
			   (query == NULL || (websocket_say(link, "?") && websocket_say(link, query))) &&
			   websocket_say(link, " HTTP/1.1\r\nHost: ") && websocket_say(link, host) &&
			   (port == NULL || (websocket_say(link, ":") && websocket_say(link, port))) && websocket_say(link, "\r\n");
	}
	curl_free(host);
	curl_free(port);
	curl_free(path);
	curl_free(query);
	curl_url_cleanup(url);
	return done;
}

static bool
websocket_handshake(FeedLink *link)
{
	uint8 random[WEBSOCKET_KEY];
	int	  length;

	if (!pg_strong_random(random, sizeof(random)))
		return false;
	length = pg_b64_encode((const void *) random, sizeof(random), link->key, sizeof(link->key) - 1);
	if (length < 0)
		return false;
	link->key[length] = '\0';
	if (!websocket_request_line(link))
		return false;
	for (struct curl_slist *header = link->headers; header != NULL; header = header->next)
		if (!websocket_say(link, header->data) || !websocket_say(link, "\r\n"))
			return false;
	return websocket_say(link, "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
							   "Sec-WebSocket-Key: ") &&
		   websocket_say(link, link->key) && websocket_say(link, "\r\n\r\n");
}

/* Whether the server has read our key. PostgreSQL's own digests want a resource owner, which there is only within transactions. */
static bool
websocket_is_accepted(FeedLink *link)
{
	uint8		 digest[EVP_MAX_MD_SIZE];
	char		 text[sizeof(link->key) + sizeof(WEBSOCKET_GUID)], expected[64];
	unsigned int size;
	int			 length;

	snprintf(text, sizeof(text), "%s%s", link->key, WEBSOCKET_GUID);
	if (EVP_Digest(text, strlen(text), digest, &size, EVP_sha1(), NULL) != 1)
		return false;
	length = pg_b64_encode((const void *) digest, size, expected, sizeof(expected) - 1);
	if (length < 0)
		return false;
	expected[length] = '\0';
	return strcmp(expected, link->answer.accept) == 0;
}

/* ---- what is sent ---- */

static void
websocket_watch(FeedLink *link)
{
	struct epoll_event event = { .events = EPOLLIN | (link->out.size > link->sent ? EPOLLOUT : 0),
								 .data.fd = link->socket };

	(void) epoll_ctl(link->epoll, EPOLL_CTL_MOD, link->socket, &event);
}

/* False: the connection is gone. */
static bool
websocket_send(FeedLink *link)
{
	CURLcode rc = CURLE_OK;

	while (link->sent < link->out.size)
	{
		size_t sent = 0;

		rc = curl_easy_send(link->easy, link->out.data + link->sent, link->out.size - link->sent, &sent);
		if (rc != CURLE_OK)
			break;
		link->sent += sent;
	}
	if (link->sent == link->out.size)
		link->sent = link->out.size = 0;
	websocket_watch(link);
	return rc == CURLE_OK || rc == CURLE_AGAIN;
}

/* A client's frames are masked, so that no proxy takes them for something else. */
static bool
websocket_frame(FeedLink *link, int opcode, const char *data, size_t size)
{
	uint8 head[8], mask[4];
	int	  n = 0;

	if (size > PG_UINT16_MAX || link->out.size + size > WEBSOCKET_OUT_MAX * 2 || !pg_strong_random(mask, sizeof(mask)))
		return false;
	head[n++] = 0x80 | opcode;
	if (size < 126)
		head[n++] = 0x80 | size;
	else
	{
		head[n++] = 0x80 | 126;
		head[n++] = size >> 8;
		head[n++] = size & 0xFF;
	}
	memcpy(head + n, mask, sizeof(mask));
	n += sizeof(mask);
	if (!streamext_feed_text_add(&link->out, (const char *) head, n, SIZE_MAX) ||
		!streamext_feed_text_add(&link->out, data, size, SIZE_MAX))
		return false;
	for (size_t i = 0; i < size; i++)
		link->out.data[link->out.size - size + i] ^= mask[i % 4];
	return true;
}

void
streamext_feed_websocket_control(void *context, int opcode, const char *data, size_t size)
{
	FeedLink *link = context;

	if (opcode == FEED_WS_PING && link->out.size < WEBSOCKET_OUT_MAX)
		(void) websocket_frame(link, FEED_WS_PONG, data, size);
	if (opcode != FEED_WS_CLOSE || link->closed)
		return;
	link->closed = true;
	strlcpy(link->close_reason, "it gives no reason", sizeof(link->close_reason));
	if (size >= 2)
		streamext_clip_format(link->close_reason, sizeof(link->close_reason), "%d %.*s",
							  (uint8) data[0] << 8 | (uint8) data[1], (int) size - 2, data + 2);
	(void) websocket_frame(link, FEED_WS_CLOSE, data, Min(size, 2));
}

/* ---- what is received ---- */

/* Bytes of the head; what is behind it goes on as frames. False: the connection ends. */
static bool
websocket_head(FeedLink *link, const char *data, size_t size)
{
	while (size > 0 && !link->answer.ended)
	{
		const char *newline = memchr(data, '\n', size);
		size_t		some = newline != NULL ? newline - data + 1 : size;

		if (!streamext_feed_link_head(link, some) || !streamext_feed_text_add(&link->head, data, some, FEED_HEAD_MAX))
			return false;
		data += some;
		size -= some;
		if (newline == NULL)
			break;
		if (!streamext_feed_answer_line(&link->answer, link->head.data, link->head.size, (int64) time(NULL)))
			return false;
		link->head.size = 0;
	}
	if (!link->answer.ended)
		return true;
	if (link->answer.status != 101)
	{
		(void) streamext_feed_link_body(link, data, size);
		return false;
	}
	if (!websocket_is_accepted(link))
	{
		link->answer.status = 0;
		strlcpy(link->reason, "the server's answer to the websocket handshake is not one to ours",
				sizeof(link->reason));
		return false;
	}
	streamext_feed_link_open(link);
	if (link->options->hello != NULL &&
		!websocket_frame(link, FEED_WS_TEXT, link->options->hello, strlen(link->options->hello)))
		return false;
	return size == 0 || streamext_feed_link_bytes(link, data, size);
}

FeedWebsocketState
streamext_feed_websocket_ready(FeedLink *link, CURLcode *result)
{
	static char buffer[WEBSOCKET_READ];
	CURLcode	rc = CURLE_OK;
	size_t		got = 0;
	bool		more = websocket_send(link);

	if (!more)
		rc = CURLE_SEND_ERROR;
	while (more)
	{
		got = 0;
		rc = curl_easy_recv(link->easy, buffer, sizeof(buffer), &got);
		if (rc != CURLE_OK || got == 0)
			break;
		more =
			link->stage == FEED_OPEN ? streamext_feed_link_bytes(link, buffer, got) : websocket_head(link, buffer, got);
		if (streamext_feed_link_is_full(link))
			break;
	}
	if (link->out.size > 0)
		(void) websocket_send(link);
	if (rc == CURLE_AGAIN && more)
		return FEED_WS_DRAINED;
	if (rc == CURLE_OK && more && got > 0)
		return FEED_WS_MORE;
	*result = rc == CURLE_AGAIN ? CURLE_OK : rc;
	return FEED_WS_ENDED;
}

bool
streamext_feed_websocket_begin(FeedLink *link, CURLcode *result)
{
	struct epoll_event event = { .events = EPOLLIN };
	curl_socket_t	   socket = CURL_SOCKET_BAD;

	link->out.size = link->head.size = link->sent = 0;
	link->closed = false;
	link->close_reason[0] = '\0';
	if (curl_easy_getinfo(link->easy, CURLINFO_ACTIVESOCKET, &socket) != CURLE_OK || socket == CURL_SOCKET_BAD ||
		!websocket_handshake(link))
	{
		*result = CURLE_FAILED_INIT;
		return false;
	}
	event.data.fd = link->socket = socket;
	if (epoll_ctl(link->epoll, EPOLL_CTL_ADD, socket, &event) != 0)
		(void) epoll_ctl(link->epoll, EPOLL_CTL_MOD, socket, &event);
	link->stage = FEED_GREETING;
	*result = CURLE_SEND_ERROR;
	return websocket_send(link);
}

void
streamext_feed_websocket_end(FeedLink *link)
{
	if (link->socket >= 0)
		(void) epoll_ctl(link->epoll, EPOLL_CTL_DEL, link->socket, NULL);
	link->socket = -1;
}
