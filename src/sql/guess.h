/*
 * sql/guess.h
 *		Which columns a stream should have, guessed from a sample of its records.
 */
#ifndef STREAMEXT_GUESS_H
#define STREAMEXT_GUESS_H

#include "base/streamext.h"

#include "base/record.h"

struct FormatOps;

typedef struct GuessedColumn
{
	char	   *name; /* no two alike */
	Oid			type;
	char	   *path;		 /* option path; NULL: the name says it */
	const char *time_format; /* option, or NULL */
	bool		time;		 /* a timestamptz that every record has */
} GuessedColumn;

typedef struct Guess
{
	const struct FormatOps *format;
	List				   *columns;	/* of GuessedColumn *, in the order in which payloads have them */
	const char			   *event_time; /* a column's name, or NULL */
	int						records;	/* looked at; without tombstones */
	int						strange;	/* of them those that are not of the format */
} Guess;

/* Never raises for what records hold; records without a payload do not count. NULL: there are none to guess from. */
extern Guess *streamext_guess(const StreamRecord *records, int n);

#endif /* STREAMEXT_GUESS_H */
