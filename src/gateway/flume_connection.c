/*
 * gateway/flume_connection.c
 *		A connection of Flume's: its socket, what has come of it and is no call yet, what is to be sent. What the functions promise is in
 *		gateway/flume_private.h.
 *
 * What a connection may hold: a call of FLUME_MAX_MESSAGE; all together FLUME_BYTES.
 */
#include "base/streamext.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <linux/sockios.h>
#include <unistd.h>

#include "utils/timestamp.h"

#include "gateway/flume_private.h"

#define FLUME_BYTES (INT64CONST(256) * 1024 * 1024)
#define FLUME_READ (64 * 1024)	 /* room for a read at the least */
#define FLUME_KEPT (1024 * 1024) /* of a buffer that is empty */
#define FLUME_READS 64			 /* of one connection a round */

/* ---- begin and end ---- */

static void
flume_show(FlumeServer *server)
{
	pg_atomic_write_u64(&server->gateway->slot->connections, server->nconnections);
}

static void
flume_watch(const FlumeConnection *connection, int operation)
{
	struct epoll_event event = { .events = connection->out != NULL ? EPOLLOUT : EPOLLIN,
								 .data.ptr = (void *) connection };

	(void) epoll_ctl(connection->server->epoll_fd, operation, connection->fd, &event);
}

static void
flume_address(const struct sockaddr_storage *from, uint8 address[16])
{
	memset(address, 0, 16);
	if (from->ss_family == AF_INET6)
		memcpy(address, &((const struct sockaddr_in6 *) from)->sin6_addr, 16);
	else if (from->ss_family == AF_INET)
		memcpy(address, &((const struct sockaddr_in *) from)->sin_addr, 4);
}

void
streamext_flume_adopt(FlumeServer *server, int fd, const struct sockaddr_storage *from)
{
	FlumeConnection *connection = calloc(1, sizeof(FlumeConnection));
	int				 one = 1;

	if (connection == NULL || !pg_strong_random(&connection->number, sizeof(connection->number)))
	{
		free(connection);
		close(fd);
		return;
	}
	(void) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	(void) setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	connection->server = server;
	connection->fd = fd;
	flume_address(from, connection->address);
	dlist_push_tail(&server->connections, &connection->node);
	server->nconnections++;
	flume_show(server);
	flume_watch(connection, EPOLL_CTL_ADD);
}

void
streamext_flume_close(FlumeConnection *connection)
{
	FlumeServer *server = connection->server;

	Assert(!connection->busy);
	streamext_flume_taken_keep(server->taken, &connection->last);
	dlist_delete(&connection->node);
	server->nconnections--;
	server->bytes -= (int64) connection->capacity + (int64) connection->out_size;
	close(connection->fd);
	free(connection->in);
	free(connection->out);
	free(connection);
	flume_show(server);
}

bool
streamext_flume_is_lost(const FlumeConnection *connection)
{
	char	byte;
	ssize_t n;
	int		unsent = 0;

	if (connection->ended || connection->out != NULL)
		return true;
	if (ioctl(connection->fd, SIOCOUTQ, &unsent) == 0 && unsent > 0)
		return true;
	n = recv(connection->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	return n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK);
}

/* ---- what is sent ---- */

bool
streamext_flume_flush(FlumeConnection *connection)
{
	while (connection->sent < connection->out_size)
	{
		ssize_t n = send(connection->fd, connection->out + connection->sent, connection->out_size - connection->sent,
						 MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN || errno == EWOULDBLOCK;
		connection->sent += n;
	}
	if (connection->out != NULL)
	{
		connection->server->bytes -= (int64) connection->out_size;
		free(connection->out);
		connection->out = NULL;
		connection->out_size = connection->sent = 0;
		connection->since = 0;
		flume_watch(connection, EPOLL_CTL_MOD);
	}
	return true;
}

void
streamext_flume_send(FlumeConnection *connection, const char *bytes, Size size)
{
	ssize_t n = send(connection->fd, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);

	Assert(connection->out == NULL);
	if (n == (ssize_t) size)
		return;
	n = Max(n, 0); /* a broken connection shows itself again */
	connection->out = malloc(size - n);
	if (connection->out == NULL)
	{
		connection->doomed = true;
		return;
	}
	memcpy(connection->out, bytes + n, size - n);
	connection->out_size = size - n;
	connection->server->bytes += (int64) connection->out_size;
	connection->since = GetCurrentTimestamp();
	flume_watch(connection, EPOLL_CTL_MOD);
}

/* ---- what has come ---- */

static void
flume_forget(FlumeConnection *connection)
{
	FlumeServer *server = connection->server;

	if (connection->size > 0)
		return;
	connection->from = 0;
	if (connection->capacity <= FLUME_KEPT)
		return;
	server->bytes -= (int64) connection->capacity;
	free(connection->in);
	connection->in = NULL;
	connection->capacity = 0;
}

void
streamext_flume_consume(FlumeConnection *connection)
{
	connection->from += connection->frame.used;
	connection->size -= connection->frame.used;
	memset(&connection->frame, 0, sizeof(connection->frame));
	connection->since = 0;
	flume_forget(connection);
}

/* Buffers that are kept for calls to come: who holds nothing else is given up for nobody. */
static void
flume_free_kept(FlumeServer *server)
{
	dlist_iter iter;

	dlist_foreach (iter, &server->connections)
	{
		FlumeConnection *other = dlist_container(FlumeConnection, node, iter.cur);

		if (other->size > 0)
			continue;
		server->bytes -= (int64) other->capacity;
		free(other->in);
		other->in = NULL;
		other->from = other->capacity = 0;
	}
}

/*
 * Of those that hold at least half as much as they do on the average, who has been silent for longest: neither many small calls nor a large one that
 * goes on coming are given up for calls that do not. NULL: there is none.
 */
static FlumeConnection *
flume_most_silent(FlumeServer *server)
{
	int64	   bytes = 0, holders = 0;
	dlist_iter iter;

	dlist_foreach (iter, &server->connections)
	{
		bytes += (int64) dlist_container(FlumeConnection, node, iter.cur)->capacity;
		holders += dlist_container(FlumeConnection, node, iter.cur)->capacity > 0;
	}
	dlist_foreach (iter, &server->connections)
	{
		FlumeConnection *other = dlist_container(FlumeConnection, node, iter.cur);

		if (!other->busy && other->capacity > 0 && 2 * holders * (int64) other->capacity >= bytes)
			return other;
	}
	return NULL;
}

/* False: it is this one. Another is closed in the next round, since an event of it may be at hand. */
static bool
flume_give_up_another(FlumeConnection *connection)
{
	FlumeServer		*server = connection->server;
	FlumeConnection *other = flume_most_silent(server);

	streamext_gateway_error(
		server->gateway,
		"calls that are not whole take more than %d MB, a large one that has been silent for longest was given up",
		(int) (FLUME_BYTES / 1024 / 1024));
	if (other == NULL || other == connection)
		return false;
	other->doomed = true;
	other->from = other->size = 0;
	server->bytes -= (int64) other->capacity;
	free(other->in);
	other->in = NULL;
	other->capacity = 0;
	server->again = true;
	return true;
}

/* To the buffer's begin, where that moves no more than has been taken out before it: many small calls are not moved at each of them. */
static void
flume_move(FlumeConnection *connection)
{
	if (connection->from < connection->size)
		return;
	memmove(connection->in, connection->in + connection->from, connection->size);
	connection->from = 0;
}

static Size
flume_room(const FlumeConnection *connection)
{
	return connection->capacity - connection->from - connection->size;
}

/* False: no memory, or it is the connection that is given up for too much. */
static bool
flume_make_room(FlumeConnection *connection)
{
	FlumeServer *server = connection->server;
	Size		 capacity = Max(connection->capacity * 2, FLUME_READ * 2);
	char		*in;

	if (flume_room(connection) < FLUME_READ && connection->from > 0)
		flume_move(connection);
	if (flume_room(connection) >= FLUME_READ)
		return true;
	if (server->bytes + (int64) (capacity - connection->capacity) > FLUME_BYTES)
		flume_free_kept(server);
	while (server->bytes + (int64) (capacity - connection->capacity) > FLUME_BYTES)
		if (!flume_give_up_another(connection))
			return false;
	in = realloc(connection->in, capacity);
	if (in == NULL)
		return false;
	server->bytes += (int64) (capacity - connection->capacity);
	connection->in = in;
	connection->capacity = capacity;
	return true;
}

void
streamext_flume_read(FlumeConnection *connection)
{
	for (int i = 0; i < FLUME_READS && !connection->ended && !connection->doomed; i++)
	{
		ssize_t n;

		if (!flume_make_room(connection))
		{
			connection->doomed = true;
			break;
		}
		n = recv(connection->fd, connection->in + connection->from + connection->size, flume_room(connection),
				 MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			break;
		if (n <= 0)
			connection->ended = true;
		else
			connection->size += n;
		if (connection->size > FLUME_MAX_MESSAGE)
			break; /* one call is whole, or none will be */
	}
}
