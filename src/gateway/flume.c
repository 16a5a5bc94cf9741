/*
 * gateway/flume.c
 *		The protocols of Flume's Avro and Thrift sinks: connections, what has come of them and what is to be sent, their deadlines.
 *
 * An epoll descriptor of our own stands for all sockets. In a round each connection is read, its call if it is whole is submitted (gateway/flume_batch.c)
 * and told of before the next round begins, so a connection is busy within a round only, and has one call at a time; what comes meanwhile
 * waits. Connections are accepted last: one that its sender has ended before he made the next is known to be ended by then.
 *
 * What a connection may hold: a call of FLUME_MAX_MESSAGE, in a minute; all together FLUME_BYTES. Senders keep connections open while they have
 * nothing to say; when there are too many, who has been silent for longest goes, and connects again when it has something.
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

#include "base/option.h"
#include "gateway/flume_private.h"
#include "source/flume/flume.h"

#define FLUME_CONNECTIONS 1000
#define FLUME_BYTES (INT64CONST(256) * 1024 * 1024)
#define FLUME_DEADLINE (60 * USECS_PER_SEC) /* of a call to be whole, of an answer to be sent */
#define FLUME_LOOK_MS 1000
#define FLUME_READ (64 * 1024)				 /* room for a read at the least */
#define FLUME_KEPT (1024 * 1024)			 /* of a buffer that is empty */
#define FLUME_READS 64						 /* of one connection a round */
#define FLUME_CALLS 64						 /* of one connection, before others have their turn */
#define FLUME_EVENTS (FLUME_CONNECTIONS + 1) /* all of them, so that who has ended is seen before who is new */
#define FLUME_ACCEPTS 64

/* It outlives a gateway that is stopped and started because options have changed. */
static FlumeTakenRing flume_taken;

static char *
flume_key(const StreamConfig *config)
{
	return streamext_flume_topic(config->table_options, config->schema, config->name);
}

/* ---- connections ---- */

static void
flume_show(FlumeServer *server)
{
	pg_atomic_write_u64(&server->gateway->slot->connections, server->nconnections);
}

static void
flume_close(FlumeConnection *connection)
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

static void
flume_adopt(FlumeServer *server, int fd, const struct sockaddr_storage *from)
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
	flume_watch(connection, EPOLL_CTL_ADD);
}

/* Who has been silent for longest. False: there is nobody. */
static bool
flume_evict(FlumeServer *server)
{
	dlist_iter iter;

	dlist_foreach (iter, &server->connections)
	{
		FlumeConnection *connection = dlist_container(FlumeConnection, node, iter.cur);

		if (connection->busy)
			continue;
		streamext_gateway_error(server->gateway, "a silent connection was ended, because there are %d",
								server->nconnections);
		flume_close(connection);
		return true;
	}
	return false;
}

static void
flume_accept(FlumeServer *server)
{
	for (int i = 0; i < FLUME_ACCEPTS; i++)
	{
		struct sockaddr_storage from;
		socklen_t				size = sizeof(from);
		int						fd;

		memset(&from, 0, sizeof(from));
		fd = accept4(server->gateway->listen_fd, (struct sockaddr *) &from, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0 && (errno != EMFILE && errno != ENFILE))
			break;
		if ((fd < 0 || server->nconnections >= FLUME_CONNECTIONS) && !flume_evict(server))
			break;
		if (fd >= 0)
			flume_adopt(server, fd, &from);
	}
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

/* False: the connection is broken. */
static bool
flume_flush(FlumeConnection *connection)
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

static void
flume_consume(FlumeConnection *connection)
{
	connection->from += connection->frame.used;
	connection->size -= connection->frame.used;
	memset(&connection->frame, 0, sizeof(connection->frame));
	connection->since = 0;
	flume_forget(connection);
}

static void
flume_fault(FlumeConnection *connection, const char *fault)
{
	const char *in = connection->in + connection->from;
	bool		tls = connection->size > 2 && in[0] == 0x16 && in[1] == 0x03;

	streamext_gateway_error(connection->server->gateway, "%s",
							tls ? "a connection begins with TLS, which is not spoken" : fault);
	connection->doomed = true;
}

/* Goes on with what has come, one call after the other. False: the connection is gone. */
static bool
flume_advance(FlumeConnection *connection)
{
	FlumeServer *server = connection->server;
	bool		 again = true; /* there may be one more call */

	for (int i = 0; i < FLUME_CALLS && !connection->busy && connection->out == NULL && !connection->doomed; i++)
	{
		const char	*fault = NULL;
		FlumeFraming framing =
			server->protocol->frame(&connection->frame, connection->in + connection->from, connection->size, &fault);

		again = framing != FLUME_MORE;
		if (!again)
			break;
		if (framing == FLUME_FAULT)
		{
			flume_fault(connection, fault);
			break;
		}
		streamext_flume_batch(connection);
		flume_consume(connection);
	}
	if (connection->busy)
		return true;
	if (connection->out != NULL && !flume_flush(connection))
	{
		flume_close(connection);
		return false;
	}
	if (connection->out != NULL)
		return true;
	if (connection->doomed || (connection->ended && !again))
	{
		flume_close(connection);
		return false;
	}
	server->again |= again;
	if (connection->size > 0 && connection->since == 0)
		connection->since = GetCurrentTimestamp();
	return true;
}

/* Of all the one that holds most; false: it is this one. It is closed in the next round, since an event of it may be at hand. */
static bool
flume_give_up_another(FlumeConnection *connection)
{
	FlumeServer		*server = connection->server;
	FlumeConnection *most = connection;
	dlist_iter		 iter;

	dlist_foreach (iter, &server->connections)
	{
		FlumeConnection *other = dlist_container(FlumeConnection, node, iter.cur);

		if (!other->busy && other->capacity > most->capacity)
			most = other;
	}
	streamext_gateway_error(server->gateway, "calls that are not whole take more than %d MB, the largest was given up",
							(int) (FLUME_BYTES / 1024 / 1024));
	most->doomed = true;
	if (most == connection)
		return false;
	most->from = most->size = 0;
	server->bytes -= (int64) most->capacity;
	free(most->in);
	most->in = NULL;
	most->capacity = 0;
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

/* False: no memory, or it is the connection that holds most of too much. */
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

static void
flume_read(FlumeConnection *connection)
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

static void
flume_event(FlumeConnection *connection)
{
	/* the least silent ones are last */
	dlist_delete(&connection->node);
	dlist_push_tail(&connection->server->connections, &connection->node);
	if (connection->out != NULL)
	{
		if (!flume_flush(connection))
		{
			flume_close(connection);
			return;
		}
		if (connection->out != NULL)
			return;
	}
	else
		flume_read(connection);
	(void) flume_advance(connection);
}

/* ---- the round ---- */

static void
flume_look(FlumeServer *server, TimestampTz now)
{
	dlist_mutable_iter iter;

	if (now < server->next_look)
		return;
	server->next_look = now + FLUME_LOOK_MS * 1000;
	dlist_foreach_modify (iter, &server->connections)
	{
		FlumeConnection *connection = dlist_container(FlumeConnection, node, iter.cur);

		if (connection->busy || connection->since == 0 || now - connection->since < FLUME_DEADLINE)
			continue;
		streamext_gateway_error(server->gateway, "a connection was ended: %s",
								connection->out != NULL ? "it did not take its answer"
														: "its call was not whole in a minute");
		flume_close(connection);
	}
}

static void
flume_go_on(FlumeServer *server)
{
	dlist_mutable_iter iter;

	server->again = false;
	dlist_foreach_modify (iter, &server->connections)
	{
		FlumeConnection *connection = dlist_container(FlumeConnection, node, iter.cur);

		if (connection->size > 0 || connection->ended || connection->doomed)
			(void) flume_advance(connection);
	}
}

static void
flume_run(Gateway *gateway)
{
	FlumeServer		  *server = gateway->own;
	struct epoll_event events[FLUME_EVENTS];
	bool			   accepts = false;
	int				   n;

	if (server->again)
		flume_go_on(server);
	n = epoll_wait(server->epoll_fd, events, FLUME_EVENTS, 0);
	for (int i = 0; i < n; i++)
		if (events[i].data.ptr == NULL)
			accepts = true;
		else if (!((FlumeConnection *) events[i].data.ptr)->busy)
			flume_event(events[i].data.ptr);
	if (accepts)
		flume_accept(server);
	if (server->nconnections > 0)
		flume_look(server, GetCurrentTimestamp());
}

static int
flume_wait_fd(Gateway *gateway)
{
	return ((FlumeServer *) gateway->own)->epoll_fd;
}

static long
flume_timeout(Gateway *gateway)
{
	FlumeServer *server = gateway->own;

	if (server->again)
		return 0;
	return server->nconnections > 0 ? FLUME_LOOK_MS : -1;
}

/* ---- start and stop ---- */

static int
flume_kind(List *options)
{
	return (int) streamext_option_number(streamext_flume_options, PLACE_SERVER, options, "protocol");
}

static bool
flume_options(Gateway *gateway)
{
	return ((FlumeServer *) gateway->own)->kind == flume_kind(gateway->options);
}

static bool
flume_start(Gateway *gateway, GatewayState *state, char *error, Size size)
{
	FlumeServer		  *server = calloc(1, sizeof(FlumeServer));
	struct epoll_event event = { .events = EPOLLIN };

	if (server != NULL)
		server->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (server == NULL || server->epoll_fd < 0 ||
		epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, gateway->listen_fd, &event) != 0)
	{
		snprintf(error, size, "could not make an epoll descriptor: %s", strerror(errno));
		if (server != NULL && server->epoll_fd >= 0)
			close(server->epoll_fd);
		free(server);
		return false;
	}
	server->gateway = gateway;
	server->kind = flume_kind(gateway->options);
	server->protocol = server->kind == FLUME_THRIFT ? &streamext_flume_thrift : &streamext_flume_avro;
	server->taken = &flume_taken;
	dlist_init(&server->connections);
	gateway->own = server;
	return true;
}

static void
flume_stop(Gateway *gateway)
{
	FlumeServer		  *server = gateway->own;
	dlist_mutable_iter iter;

	dlist_foreach_modify (iter, &server->connections)
		flume_close(dlist_container(FlumeConnection, node, iter.cur));
	close(server->epoll_fd);
	free(server);
}

const GatewayOps streamext_flume_gateway = {
	.name = "flume",
	.key = flume_key,
	.start = flume_start,
	.stop = flume_stop,
	.wait_fd = flume_wait_fd,
	.timeout = flume_timeout,
	.run = flume_run,
	.options = flume_options,
};
