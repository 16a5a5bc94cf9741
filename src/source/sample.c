/*
 * source/sample.c
 *		What the connectors' looks at their sources have in common: findings and their hints, copies of records, waiting.
 */
#include "base/streamext.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#if PG_VERSION_NUM >= 140000
#include "utils/wait_event.h"
#endif

#include "base/clip.h"
#include "source/connector.h"
#include "source/sample.h"

/* What libraries say, and what a person can do about it. The first that is found in the text counts. */
static const struct
{
	const char *said;
	const char *hint;
} sample_hints[] = {
	{ "resolve", "The host's name is not known to this machine: see the server's address." },
	{ "Name or service not known", "The host's name is not known to this machine: see the server's address." },
	{ "Connection refused", "Nothing listens there: see the server's address and port, and whether the broker runs." },
	{ "self signed", "Name the authority that has signed the broker's certificate with the option ssl_ca_location." },
	{ "self-signed", "Name the authority that has signed the broker's certificate with the option ssl_ca_location." },
	{ "unable to get local issuer",
	  "Name the authority that has signed the broker's certificate with the option ssl_ca_location." },
	{ "certificate verify failed",
	  "Name the authority that has signed the broker's certificate with the option ssl_ca_location; it must be the host's, "
	  "see ssl_endpoint_identification_algorithm." },
	{ "wrong version number", "The broker does not speak TLS on that port: use its TLS port, or a plain address." },
	{ "Disconnected while requesting ApiVersion",
	  "The broker may want TLS or SASL: see the option security_protocol." },
	{ "uthentication", "See the user name and password of the user mapping, and the option sasl_mechanism." },
	{ "not authorised", "See the user name and password of the user mapping, and what the broker lets that user do." },
};

static const char *
sample_hint(const char *text)
{
	for (int i = 0; i < lengthof(sample_hints); i++)
		if (strstr(text, sample_hints[i].said) != NULL)
			return sample_hints[i].hint;
	return "See the options of the server and of the user mapping.";
}

void
streamext_sample_find(SourceSample *sample, const char *what, bool ok, const char *hint, const char *detail, ...)
{
	SourceFinding *finding = palloc0(sizeof(SourceFinding));
	char		   raw[STREAMEXT_MAX_MESSAGE];
	char		   text[STREAMEXT_MAX_MESSAGE];
	va_list		   args;

	va_start(args, detail);
	vsnprintf(raw, sizeof(raw), detail, args);
	va_end(args);
	streamext_connector_clean(raw);
	streamext_clip(text, raw, sizeof(text));
	finding->what = what;
	finding->ok = ok;
	finding->detail = pstrdup(text);
	finding->hint = ok ? NULL : hint != NULL ? hint : sample_hint(text);
	sample->findings = lappend(sample->findings, finding);
}

const SourceFinding *
streamext_sample_trouble(const SourceSample *sample)
{
	ListCell *cell;

	foreach (cell, sample->findings)
		if (!((const SourceFinding *) lfirst(cell))->ok)
			return lfirst(cell);
	return NULL;
}

static char *
sample_copy(const char *from, Size size)
{
	char *copy = palloc(size + 1);

	memcpy(copy, from, size);
	copy[size] = '\0';
	return copy;
}

void
streamext_sample_keep(SourceSample *sample, const StreamRecord *record, const char *headers)
{
	uint64		  size = (uint64) record->payload_size + record->key_size + (headers != NULL ? strlen(headers) : 0);
	StreamRecord *kept;

	if (sample->bytes + size > STREAMEXT_SAMPLE_BYTES)
		return;
	sample->bytes += size;
	/* by doubling */
	if (sample->records == NULL)
		sample->records = palloc(sizeof(StreamRecord));
	else if ((sample->nrecords & (sample->nrecords - 1)) == 0)
		sample->records = repalloc_huge(sample->records, sizeof(StreamRecord) * sample->nrecords * 2);
	kept = &sample->records[sample->nrecords++];
	*kept = *record;
	kept->topic = pstrdup(record->topic);
	kept->message = NULL;
	kept->headers = headers;
	if (record->payload != NULL)
		kept->payload = sample_copy(record->payload, record->payload_size);
	if (record->key != NULL)
		kept->key = sample_copy(record->key, record->key_size);
}

static int
sample_newer(const void *a, const void *b)
{
	const StreamRecord *x = a, *y = b;

	if (x->timestamp != y->timestamp)
		return x->timestamp > y->timestamp ? -1 : 1;
	if (x->position != y->position)
		return x->position > y->position ? -1 : 1;
	return x->partition - y->partition;
}

/* Newest first, no more than wanted. */
static void
sample_sort(SourceSample *sample)
{
	if (sample->nrecords > 1)
		qsort(sample->records, sample->nrecords, sizeof(StreamRecord), sample_newer);
	sample->nrecords = Min(sample->nrecords, sample->wanted);
}

int
streamext_sample_left(const SourceSample *sample, int most)
{
	CHECK_FOR_INTERRUPTS();
	return (int) Min(Max((sample->deadline - GetCurrentTimestamp()) / 1000, 0), most);
}

void
streamext_sample_wait(int ms)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

void
streamext_sample_run(const StreamConfig *config, SourceSample *sample)
{
	Assert(config->connector->sample != NULL && sample->wanted >= 0 && sample->wanted <= STREAMEXT_SAMPLE_MAX);
	config->connector->sample(config, sample);
	sample_sort(sample);
}
