/*
 * aggregate/portable.h
 *		Partial states of aggregates as bytes that leave the process and the server: streamext.partial gives them, streamext.merge takes them.
 *
 * A portable partial, all numbers in the machine's own order:
 *
 *		uint32	STREAMEXT_PORTABLE_MAGIC, which holds the version
 *		uint32	CRC-32C of all that follows
 *		uint8	AggMode, uint8 flags, uint8 server encoding, uint8 0
 *		uint32	size of the definition; 0 unless PORTABLE_NAMED
 *		uint64	fingerprint of the definition
 *				the definition: a SELECT of the aggregate over columns c1, c2, ... of a subquery that names their types
 *				the state: of NATIVE as in memory; of TRANS a byte (0, or 1: NULL), then the state type's binary form or what the serialise
 *				function made; of VALUES rows of as many values as there are columns, each an int32 size (-1: NULL) and its type's binary form
 *
 * It is valid if and only if all of this holds, to the last byte. Who takes one knows nothing of who made it, so what is in it is read by
 * the types' receive functions only, and nothing in it is executed: a definition that comes with the bytes may name PostgreSQL's and this
 * extension's own aggregates, types and operators and nothing else.
 */
#ifndef STREAMEXT_PORTABLE_H
#define STREAMEXT_PORTABLE_H

#include "aggregate/mode.h"

#define STREAMEXT_PORTABLE_MAGIC 0x31505853 /* "SXP1" */
#define PORTABLE_NAMED 1
#define PORTABLE_HEADER 24
#define PORTABLE_MAX_DEFINITION 65536

typedef struct PortableHead
{
	AggMode		mode;
	int			encoding;
	const char *definition; /* not terminated; NULL: not named */
	uint32		definition_size;
	uint64		fingerprint;
	const char *body;
	Size		body_size;
} PortableHead;

/* What is left of a body. */
typedef struct PortableCursor
{
	const char *at;
	Size		left;
} PortableCursor;

/* aggregate/portable_format.c: bytes alone. Opens bytes of anybody; false: they are no partial. */
extern bool streamext_portable_open(const char *bytes, Size size, PortableHead *head);
/* The bytes of head before the body to an empty buffer, and, when the body is behind it, their checksum. */
extern void	  streamext_portable_begin(StringInfo to, const PortableHead *head);
extern void	  streamext_portable_end(StringInfo to);
extern uint64 streamext_portable_fingerprint(const char *definition, Size size);
/* The next value: *size is -1 for NULL. False: there is none, or the bytes end within it. */
extern bool streamext_portable_value(PortableCursor *cursor, const char **bytes, int32 *size);

/* aggregate/portable.c. Settings under which a query is written, and read, in one way only; for AtEOXact_GUC. */
extern int streamext_portable_pin(void);
/* The definition of an aggregate, palloc'd. Raises 0A000 for what cannot leave the process. */
extern char *streamext_portable_definition(const AggSpec *spec);
/*
 * The aggregate that a definition names, in the current memory context; *own: all that it names is PostgreSQL's or this extension's. From bytes
 * (not `trusted`) anything else raises 0A000.
 */
extern AggSpec *streamext_portable_compile(const char *definition, bool trusted, bool *own);

/* The bytes of a partial; head has the definition. */
extern bytea *streamext_portable_give(AggReader *reader, const AggPartial *partial, const PortableHead *head);
/* The partial in the current memory context; to be combined from, not into. Raises 22P03. */
extern AggPartial *streamext_portable_take(AggReader *reader, const PortableHead *head);

pg_noreturn extern void streamext_portable_invalid(const char *why);

/* A value's bytes by its type's send function, as streamext_portable_value reads them, and back. */
typedef struct AggWire
{
	int16	 len;
	bool	 byval;
	Oid		 ioparam;
	FmgrInfo send, receive;
} AggWire;

extern AggWire *streamext_wires(const Oid *types, int n);
extern void		streamext_wire_put(AggWire *wire, StringInfo to, Datum value, bool isnull);
extern Datum	streamext_wire_get(AggWire *wire, PortableCursor *cursor, bool *isnull);

/* Raises 22P03 for a serialised state that PostgreSQL's own deserialise function would believe and should not. */
extern void streamext_portable_check_serial(Oid deserialfn, const char *bytes, int32 size);

#endif /* STREAMEXT_PORTABLE_H */
