/*
 * source/sample.h
 *		A source looked at once by a session, beside any stream: whether it can be reached, lets us in and has what is asked for, and the
 *		newest records it holds.
 *
 * A client of its own that ends with the call, leaves nothing at the source (no group, no session) and takes nothing from anybody.
 * Trouble is a finding, never an error; a cancel of the statement is one.
 */
#ifndef STREAMEXT_SAMPLE_H
#define STREAMEXT_SAMPLE_H

#include "base/streamext.h"

#include "base/record.h"
#include "base/stream_def.h"

#define STREAMEXT_SAMPLE_MAX 1000		  /* records */
#define STREAMEXT_SAMPLE_BYTES (64 << 20) /* of their payloads; what comes beyond is left out */

/* What was found out about one thing, in the order in which it is asked: where one is not well, those behind it are not known. */
typedef struct SourceFinding
{
	const char *what; /* constant */
	bool		ok;
	const char *detail;
	const char *hint; /* of what is not ok, or NULL */
} SourceFinding;

typedef struct SourceSample
{
	/* the caller's */
	int			wanted;	  /* records, the newest; from 0 to STREAMEXT_SAMPLE_MAX */
	TimestampTz deadline; /* for all of it */
	int			linger;	  /* ms, at most, for records that are not there and may come; of sources that keep none */
	bool		stream;	  /* config is a stream's: what its worker needs besides reading is tried too */

	/* by ConnectorOps.sample; palloc'd in the context current at the call */
	List		 *findings; /* of SourceFinding * */
	StreamRecord *records;	/* newest first; headers are set */
	int			  nrecords;
	Size		  bytes;
} SourceSample;

/* Asks the source of config, whose connector has `sample`. */
extern void streamext_sample_run(const StreamConfig *config, SourceSample *sample);

/* The first that is not well; NULL: none. */
extern const SourceFinding *streamext_sample_trouble(const SourceSample *sample);

/* ---- for the connectors ---- */

/* detail is formatted and clipped. hint: constant, or NULL for what the detail's own words suggest. */
extern void streamext_sample_find(SourceSample *sample, const char *what, bool ok, const char *hint, const char *detail,
								  ...) pg_attribute_printf(5, 6);

/* Takes a copy of what the record points to. `headers`: JSON or NULL, becomes the sample's. */
extern void streamext_sample_keep(SourceSample *sample, const StreamRecord *record, const char *headers);

/* Milliseconds to the deadline, at most this many; 0: it is over. Raises for a cancel. */
extern int streamext_sample_left(const SourceSample *sample, int most);

/* Waits so many milliseconds. */
extern void streamext_sample_wait(int ms);

#endif /* STREAMEXT_SAMPLE_H */
