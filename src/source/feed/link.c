/*
 * source/feed/link.c
 *		The connection of a feed (source/feed/link.h): stages, timers, what ends it and when the next one is due.
 *
 * One epoll descriptor stands for all there is to wait for: libcurl's sockets, the websocket's, and a timer for libcurl's wishes, the silence
 * of the server and the next attempt. libcurl's resolver makes threads, so all signals are masked while it is called.
 */
#include "base/streamext.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "utils/timestamp.h"

#include "base/clip.h"
#include "source/feed/link_private.h"
#include "source/feed/target.h"

#define LINK_EVENTS 16
#define LINK_ROUNDS 64
#define LINK_ANSWER_MS 30000  /* for connection and head */
#define LINK_LASTING_MS 60000 /* a connection that lasted so long was none that failed */
#define LINK_SOON_MS 1000	  /* after one that did not last longer, */
#define LINK_SOON_WAIT_MS 250 /* "at once" is not before this */
#define LINK_REDIRECTS 5

/* ---- what libcurl tells ---- */

static int
link_on_socket(CURL *easy, curl_socket_t fd, int what, void *context, void *known)
{
	FeedLink		  *link = context;
	struct epoll_event event = { .data.fd = fd };

	if (what == CURL_POLL_REMOVE)
	{
		(void) epoll_ctl(link->epoll, EPOLL_CTL_DEL, fd, NULL);
		return 0;
	}
	event.events = ((what & CURL_POLL_IN) ? EPOLLIN : 0) | ((what & CURL_POLL_OUT) ? EPOLLOUT : 0);
	if (epoll_ctl(link->epoll, EPOLL_CTL_MOD, fd, &event) != 0)
		(void) epoll_ctl(link->epoll, EPOLL_CTL_ADD, fd, &event);
	return 0;
}

static int
link_on_timer(CURLM *multi, long ms, void *context)
{
	((FeedLink *) context)->curl_due = ms < 0 ? -1 : streamext_feed_ms() + ms;
	return 0;
}

static bool
link_on_record(void *context, const FeedRecord *record)
{
	return streamext_feed_intake_take(((FeedLink *) context)->intake, record);
}

/* ---- begin and end ---- */

FeedLink *
streamext_feed_link_new(Connector *c, const FeedOptions *options, FeedIntake *intake)
{
	static bool		   initialised = false;
	FeedLink		  *link = palloc0(sizeof(FeedLink));
	struct epoll_event event = { .events = EPOLLIN };

	if (!initialised && curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("could not initialise libcurl")));
	initialised = true;
	link->c = c;
	link->options = options;
	link->intake = intake;
	link->cxt = AllocSetContextCreate(CurrentMemoryContext, "feed request", ALLOCSET_SMALL_SIZES);
	link->cutter.framing = options->framing;
	link->cutter.emit = link_on_record;
	link->cutter.context = link;
	link->cutter.control = streamext_feed_websocket_control;
	link->socket = -1;
	link->armed = link->curl_due = link->woken = -1;
	link->epoll = epoll_create1(EPOLL_CLOEXEC);
	link->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	link->multi = curl_multi_init();
	event.data.fd = link->timer;
	if (link->epoll < 0 || link->timer < 0 || link->multi == NULL ||
		epoll_ctl(link->epoll, EPOLL_CTL_ADD, link->timer, &event) != 0)
	{
		int saved = errno;

		streamext_feed_link_free(link);
		errno = saved;
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_RESOURCES), errmsg("could not make a feed's descriptors: %m")));
	}
	curl_multi_setopt(link->multi, CURLMOPT_SOCKETFUNCTION, link_on_socket);
	curl_multi_setopt(link->multi, CURLMOPT_SOCKETDATA, link);
	curl_multi_setopt(link->multi, CURLMOPT_TIMERFUNCTION, link_on_timer);
	curl_multi_setopt(link->multi, CURLMOPT_TIMERDATA, link);
	return link;
}

static void
link_drop(FeedLink *link)
{
	streamext_feed_websocket_end(link);
	streamext_feed_unpack_end(&link->unpack);
	if (link->easy != NULL)
	{
		(void) curl_multi_remove_handle(link->multi, link->easy);
		curl_easy_cleanup(link->easy);
	}
	link->easy = NULL;
	link->stage = FEED_IDLE;
	link->body.size = 0;
}

void
streamext_feed_link_free(FeedLink *link)
{
	if (link->multi != NULL)
	{
		link_drop(link);
		(void) curl_multi_cleanup(link->multi);
	}
	curl_slist_free_all(link->headers);
	if (link->timer >= 0)
		close(link->timer);
	if (link->epoll >= 0)
		close(link->epoll);
	free(link->url);
	free(link->redirected);
	streamext_feed_cut_free(&link->cutter);
	streamext_feed_text_free(&link->body);
	streamext_feed_text_free(&link->out);
	streamext_feed_text_free(&link->head);
}

int
streamext_feed_link_fd(const FeedLink *link)
{
	return link->epoll;
}

bool
streamext_feed_link_is_open(const FeedLink *link)
{
	return link->stage == FEED_OPEN;
}

void
streamext_feed_link_excuse(FeedLink *link)
{
	link->heard = streamext_feed_ms();
}

/* ---- what ends it ---- */

/* The next attempt is due after so many ms or more. */
static void
link_wait(FeedLink *link, FeedTrouble trouble, int64 asked)
{
	int64 now = streamext_feed_ms(), wait;

	if (streamext_feed_intake_count(link->intake) > link->count || now - link->since > LINK_LASTING_MS)
		memset(&link->retry, 0, sizeof(link->retry));
	wait = streamext_feed_retry_wait(&link->retry, trouble, asked);
	if (now - link->since < LINK_SOON_MS)
		wait = Max(wait, LINK_SOON_WAIT_MS);
	link_drop(link);
	link->due = now + wait;
	free(link->redirected);
	link->redirected = NULL;
}

/* True: it goes on elsewhere, at once. */
static bool
link_redirect(FeedLink *link)
{
	char *to;

	if (link->answer.status < 300 || link->answer.status > 399 || link->answer.location[0] == '\0')
		return false;
	to = streamext_feed_target_redirect(link->url, link->answer.location);
	if (to == NULL)
	{
		streamext_connector_report(link->c, "the server redirects to another host, which is not followed: %.120s",
								   link->answer.location);
		link_wait(link, FEED_TROUBLE_HTTP, -1);
		return true;
	}
	if (++link->redirects > LINK_REDIRECTS)
	{
		free(to);
		link->redirects = 0;
		streamext_connector_report(link->c, "the server redirects more than %d times", LINK_REDIRECTS);
		link_wait(link, FEED_TROUBLE_HTTP, -1);
		return true;
	}
	link_drop(link);
	free(link->redirected);
	link->redirected = to;
	link->due = streamext_feed_ms();
	return true;
}

/* An answer that is not the feed. */
static void
link_refused_by_server(FeedLink *link)
{
	FeedTrouble trouble = streamext_feed_retry_kind(link->answer.status);
	int64		asked = trouble == FEED_TROUBLE_RATE || link->answer.status == 503 ? link->answer.wait_ms : -1;
	int			size = (int) link->body.size;

	for (int i = 0; i < size; i++)
		if ((unsigned char) link->body.data[i] < ' ')
			link->body.data[i] = ' ';
	streamext_connector_report(link->c, "the server answers %d%s%.*s", link->answer.status, size > 0 ? ": " : "", size,
							   link->body.data);
	link_wait(link, trouble, asked);
}

/*
 * Ended in good order, with half a line left: where it will be sent again it is none, nor where the packed bytes were to go on: half of a number's
 * digits are another number.
 */
static void
link_end_of_feed(FeedLink *link)
{
	if (link->options->resume == FEED_RESUME_NONE && !streamext_feed_unpack_is_cut(&link->unpack) &&
		!streamext_feed_cut_end(&link->cutter))
		link->refused = true;
}

static void
link_done(FeedLink *link, CURLcode result)
{
	const char *why = link->reason[0] != '\0' ? link->reason : curl_easy_strerror(result);
	bool		open = link->stage == FEED_OPEN;

	if (open && !link->refused && result == CURLE_OK)
		link_end_of_feed(link);
	if (link->refused)
	{
		const char *trouble = streamext_feed_intake_trouble(link->intake);

		if (link->cutter.fault == NULL && trouble[0] != '\0')
			streamext_connector_event(link->c, "refused", 0, 0, "%s", trouble);
		streamext_connector_report(link->c, "%s", link->cutter.fault != NULL ? link->cutter.fault : trouble);
	}
	else if (open && link->closed)
		streamext_connector_report(link->c, "the server closed the websocket: %s", link->close_reason);
	else if (open && result == CURLE_OK)
		streamext_connector_report(link->c, "the server ended the feed%s",
								   streamext_feed_unpack_is_cut(&link->unpack) ? " within what it has packed" : "");
	else if (open)
		streamext_connector_report(link->c, "connection to the server lost: %s", why);
	else if (link->answer.ended && link->answer.status != 0)
	{
		if (!link_redirect(link))
			link_refused_by_server(link);
		return;
	}
	else
		streamext_connector_report(link->c, "could not connect to the server: %s",
								   result == CURLE_OK && link->reason[0] == '\0' ? "it ended the connection" : why);
	link_wait(link, FEED_TROUBLE_NETWORK, open ? link->cutter.retry_ms : -1);
}

static void
link_connect(FeedLink *link)
{
	link->since = link->heard = streamext_feed_ms();
	link->count = streamext_feed_intake_count(link->intake);
	link->refused = link->closed = false;
	link->cutter.retry_ms = -1;
	link->cutter.fault = NULL;
	streamext_feed_answer_begin(&link->answer);
	link->body.size = 0;
	link->heads = link->consumed = 0;
	link->full = false;
	if (streamext_feed_request(link))
		link->stage = FEED_CONNECTING;
	else
		link_wait(link, FEED_TROUBLE_HTTP, -1);
}

/* ---- timers ---- */

/* When the stage is over by itself; ms, -1: never. */
static int64
link_deadline(const FeedLink *link)
{
	int64 idle = link->options->idle_timeout / 1000;

	switch (link->stage)
	{
		case FEED_IDLE:
			return link->due;
		case FEED_CONNECTING:
		case FEED_GREETING:
			return link->since + Max(LINK_ANSWER_MS, idle);
		case FEED_OPEN:
			return idle > 0 ? link->heard + idle : -1;
	}
	return -1;
}

/* True: the stage was over. */
static bool
link_look_at_clock(FeedLink *link)
{
	int64 now = streamext_feed_ms(), deadline = link_deadline(link);

	if (deadline < 0 || now < deadline)
		return false;
	if (link->stage == FEED_IDLE)
	{
		link_connect(link);
		return true;
	}
	if (link->stage == FEED_OPEN)
		streamext_connector_report(link->c, "the server has been silent for " INT64_FORMAT " ms (option idle_timeout)",
								   now - link->heard);
	else
		streamext_connector_report(link->c, "the server does not answer");
	link_wait(link, FEED_TROUBLE_NETWORK, -1);
	return true;
}

static void
link_arm(FeedLink *link)
{
	struct itimerspec at = { 0 };
	int64			  next = link_deadline(link);

	if (link->curl_due >= 0 && (next < 0 || link->curl_due < next))
		next = link->curl_due;
	if (link->woken >= 0 && (next < 0 || link->woken < next))
		next = link->woken;
	if (next == link->armed)
		return;
	link->armed = next;
	if (next >= 0)
	{
		next = Max(next, 1);
		at.it_value.tv_sec = next / 1000;
		at.it_value.tv_nsec = next % 1000 * 1000000;
	}
	(void) timerfd_settime(link->timer, TFD_TIMER_ABSTIME, &at, NULL);
}

void
streamext_feed_link_wake(FeedLink *link, int64 ms)
{
	int64 at = streamext_feed_ms() + ms;

	link->woken = link->woken < 0 ? at : Min(link->woken, at);
	link_arm(link);
}

/* ---- driven ---- */

static void
link_timer_fired(FeedLink *link)
{
	uint64 times;

	if (read(link->timer, &times, sizeof(times)) > 0)
		link->armed = -1;
	if (link->woken >= 0 && link->woken <= streamext_feed_ms())
		link->woken = -1;
}

/* What libcurl has finished: a transfer, or the connection of a websocket. */
static bool
link_take_messages(FeedLink *link)
{
	bool	 any = false;
	CURLMsg *message;
	int		 left;

	while ((message = curl_multi_info_read(link->multi, &left)) != NULL)
	{
		CURLcode result = message->data.result;

		if (message->msg != CURLMSG_DONE || message->easy_handle != link->easy)
			continue;
		any = true;
		if (result == CURLE_OK && link->options->framing == FEED_WEBSOCKET && link->stage == FEED_CONNECTING &&
			streamext_feed_websocket_begin(link, &result))
			continue;
		link_done(link, result);
	}
	return any;
}

/* A websocket's socket is ready. */
static void
link_take_frames(FeedLink *link)
{
	CURLcode result;

	switch (streamext_feed_websocket_ready(link, &result))
	{
		case FEED_WS_ENDED:
			link_done(link, result);
			break;
		case FEED_WS_MORE:
			streamext_feed_link_wake(link, 0);
			break;
		case FEED_WS_DRAINED:
			break;
	}
}

static bool
link_take_ready(FeedLink *link)
{
	struct epoll_event events[LINK_EVENTS];
	int				   n = epoll_wait(link->epoll, events, LINK_EVENTS, 0), running;
	bool			   any = false;

	for (int i = 0; i < n; i++)
	{
		int fd = events[i].data.fd, what = 0;

		if (fd == link->timer)
		{
			link_timer_fired(link);
			continue;
		}
		any = true;
		if (fd == link->socket)
		{
			link_take_frames(link);
			continue;
		}
		what |= (events[i].events & EPOLLIN) ? CURL_CSELECT_IN : 0;
		what |= (events[i].events & EPOLLOUT) ? CURL_CSELECT_OUT : 0;
		what |= (events[i].events & (EPOLLERR | EPOLLHUP)) ? CURL_CSELECT_ERR : 0;
		(void) curl_multi_socket_action(link->multi, fd, what, &running);
	}
	if (link->curl_due >= 0 && link->curl_due <= streamext_feed_ms())
	{
		link->curl_due = -1;
		(void) curl_multi_socket_action(link->multi, CURL_SOCKET_TIMEOUT, 0, &running);
		any = true;
	}
	return link_take_messages(link) || any;
}

/* libcurl brings again what it was told to wait with, and goes on. */
static void
link_go_on(FeedLink *link)
{
	CURLcode result;

	link->full = false;
	result = curl_easy_pause(link->easy, CURLPAUSE_CONT);
	if (result != CURLE_OK)
		link_done(link, result);
}

bool
streamext_feed_link_drive(FeedLink *link)
{
	bool	 any = false, again = true;
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	link->taken = 0;
	if (link->full && !streamext_feed_link_is_full(link))
	{
		link_go_on(link);
		any = true;
	}
	for (int i = 0; i < LINK_ROUNDS && again && !streamext_feed_link_is_full(link); i++)
	{
		again = link_take_ready(link);
		again = link_look_at_clock(link) || again;
		any = any || again;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	link_arm(link);
	return any;
}
