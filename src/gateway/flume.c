/*
 * gateway/flume.c
 *		The protocols of Flume's Avro and Thrift sinks: the rounds, who connects, deadlines.
 *
 * An epoll descriptor of our own stands for all sockets. In a round each connection is read, its call if it is whole is submitted (gateway/flume_batch.c)
 * and told of before the next round begins, so a connection is busy within a round only, and has one call at a time; what comes meanwhile
 * waits. Connections are accepted last: one that its sender has ended before he made the next is known to be ended by then.
 *
 * A call is whole in a minute. Senders keep connections open while they have
 * nothing to say; when there are too many, who has been silent for longest goes, and connects again when it has something.
 */
#include "base/streamext.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "utils/timestamp.h"

#include "base/option.h"
#include "gateway/flume_private.h"
#include "source/flume/flume.h"

#define FLUME_CONNECTIONS 1000
#define FLUME_DEADLINE (60 * USECS_PER_SEC) /* of a call to be whole, of an answer to be sent */
#define FLUME_LOOK_MS 1000
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
		streamext_flume_close(connection);
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
			streamext_flume_adopt(server, fd, &from);
	}
}

/* ---- what has come ---- */

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
		streamext_flume_consume(connection);
	}
	if (connection->busy)
		return true;
	if (connection->out != NULL && !streamext_flume_flush(connection))
	{
		streamext_flume_close(connection);
		return false;
	}
	if (connection->out != NULL)
		return true;
	if (connection->doomed || (connection->ended && !again))
	{
		streamext_flume_close(connection);
		return false;
	}
	server->again |= again;
	if (connection->size > 0 && connection->since == 0)
		connection->since = GetCurrentTimestamp();
	return true;
}

static void
flume_event(FlumeConnection *connection)
{
	/* the least silent ones are last */
	dlist_delete(&connection->node);
	dlist_push_tail(&connection->server->connections, &connection->node);
	if (connection->out != NULL)
	{
		if (!streamext_flume_flush(connection))
		{
			streamext_flume_close(connection);
			return;
		}
		if (connection->out != NULL)
			return;
	}
	else
		streamext_flume_read(connection);
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
		streamext_flume_close(connection);
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
		streamext_flume_close(dlist_container(FlumeConnection, node, iter.cur));
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
