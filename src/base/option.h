/*
 * base/option.h
 *		Options of servers, user mappings, streams and columns. A table of OptionSpec says all of an option, and belongs to who
 *		understands it: a connector, the formats, every stream. Checks, messages and hints come from the tables.
 *
 * Values are parsed by the same functions at DDL time and by workers, so that what DDL has let through, a worker understands.
 * Values of secret options are in no message.
 */
#ifndef STREAMEXT_OPTION_H
#define STREAMEXT_OPTION_H

#include "base/streamext.h"

#include "nodes/pg_list.h"
#include "utils/timestamp.h"

#define STREAMEXT_OPTION_INTERVAL_MAX (INT64CONST(36525) * USECS_PER_DAY)

typedef enum OptionPlace
{
	PLACE_WRAPPER,
	PLACE_SERVER,
	PLACE_MAPPING,
	PLACE_TABLE,
	PLACE_COLUMN
} OptionPlace;

typedef enum OptionType
{
	OPTION_TEXT,		/* not empty, no control characters */
	OPTION_ANY,			/* may be empty */
	OPTION_FILE,		/* a file of the server, that only who may read such can name */
	OPTION_SECRET_FILE, /* the same, below the data directory */
	OPTION_INT,
	OPTION_ENUM,
	OPTION_INTERVAL, /* microseconds */
	OPTION_BYTE		 /* one ASCII character */
} OptionType;

/* A table of them ends with a name of NULL. */
typedef struct OptionSpec
{
	const char		  *name;
	OptionPlace		   place;
	OptionType		   type;
	const char *const *words;	 /* OPTION_ENUM: NULL-terminated; an enum's value is the word's number */
	int64			   min, max; /* OPTION_INT, OPTION_INTERVAL */
	int64			   preset;	 /* OPTION_INT, OPTION_INTERVAL, OPTION_ENUM: when not given */
	bool			   secret;
	bool			   required;
	bool named;	 /* behind the name come a blank and a name of the user's; `check` finds the whole in spec->name */
	bool nocase; /* OPTION_ENUM: its words are known elsewhere in capitals, which is what they may be written in */
	bool fixed;	 /* says what positions and rows are: cannot change while views read the stream */
	void (*check)(const struct OptionSpec *spec, const char *value); /* what else the value must be; raises. Or NULL */
} OptionSpec;

/* Reads an interval; what it is not is told with the option's name in the hint. */
extern Interval *streamext_option_interval(const char *name, const char *value);

/* An option's text or NULL. */
extern const char *streamext_option(List *options, const char *name);

/* NULL if the table has no such option in that place, or is NULL. */
extern const OptionSpec *streamext_option_find(const OptionSpec *table, OptionPlace place, const char *name);

/* Raises unless the value is of the option's type and range and passes its check. */
extern void streamext_option_check(const OptionSpec *spec, const char *value);

/* NOTICE where the interval of an option, or another kind of one, ends in a number without a unit: it counts seconds. */
extern void streamext_interval_doubt(const char *kind, const char *name, const char *value);

/*
 * While an object is altered that has these options: PostgreSQL has all of them checked again, and what they leave in doubt was told when they
 * were given. NIL: no more.
 */
extern void streamext_option_known(List *options);

/* The value of an int, interval or enum option, or its default; 0 where the table has no such option. */
extern int64 streamext_option_number(const OptionSpec *table, OptionPlace place, List *options, const char *name);

/* A moment's text: UTC unless it names a time zone, whatever the session's settings; refuses what means another one whenever it is read. */
extern TimestampTz streamext_option_moment(const char *value);

/* Raises HV024; the hint says what would do. The value is left out for secrets. */
pg_noreturn extern void streamext_option_invalid(const OptionSpec *spec, const char *value, const char *hint, ...)
	pg_attribute_printf(3, 4);

/* The same, and the hint lists the names that would do. */
pg_noreturn extern void streamext_option_not_of(const OptionSpec *spec, const char *value, List *names);

/* Raises: the option is required. hint: or NULL. */
pg_noreturn extern void streamext_option_missing(const char *name, const char *hint);

/* Raises if both are given. */
extern void streamext_option_conflict(List *options, const char *one, const char *other);

#endif /* STREAMEXT_OPTION_H */
