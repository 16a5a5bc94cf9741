/*
 * source/mqtt/link.c
 *		What an MQTT client's threads tell each other and the main thread: the link's state, what is wrong, that there is something to be looked at.
 */
#include "base/streamext.h"

#include <time.h>
#include <unistd.h>

#include "base/clip.h"
#include "source/mqtt/client_private.h"

#define MQTT_MARKER_REFUSED_MS 30000 /* publish the marker again no sooner where the broker seems to refuse it */

int64
streamext_mqtt_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void
streamext_mqtt_signal(MqttClient *m)
{
	uint64 one = 1;

	if (pg_atomic_exchange_u32(&m->signalled, 1) == 0 && write(m->wait_fd, &one, sizeof(one)) < 0)
		return; /* full: it is readable */
}

void
streamext_mqtt_set_link(MqttClient *m, MqttLink link, int delay_ms)
{
	m->link = link;
	m->since = streamext_mqtt_ms();
	m->due = m->since + delay_ms;
	pthread_cond_signal(&m->wake);
}

void
streamext_mqtt_set_error(MqttClient *m, const char *what, const char *why)
{
	streamext_clip_format(m->error, sizeof(m->error), why != NULL && why[0] != '\0' ? "%s: %s" : "%s", what, why);
	m->errors++;
}

void
streamext_mqtt_marker_refused(MqttClient *m)
{
	streamext_mqtt_set_error(m, "the broker must allow this client to publish flush markers and to read them",
							 m->marker_topic);
	m->marker_refused = true;
	m->flush_due = streamext_mqtt_ms() + MQTT_MARKER_REFUSED_MS;
}

const char *
streamext_mqtt_reason(const MqttClient *m, int code)
{
	return streamext_mqtt_address_reason(&m->at, code);
}
