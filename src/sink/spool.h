/*
 * sink/spool.h
 *		Rows that a transaction has inserted into local streams, until it commits.
 */
#ifndef STREAMEXT_SPOOL_H
#define STREAMEXT_SPOOL_H

#include "base/streamext.h"
#include "base/layout.h"
#include "utils/tuplestore.h"

#include "source/journal/journal.h"
#include "stream/definition.h"

typedef struct RowSpool
{
	Oid				 relid;
	RowLayout		*layout;  /* of its rows */
	uint64			 changes; /* streamext_layout_changes() when that was right */
	char			*name;	  /* for messages */
	TupleDesc		 desc;
	Tuplestorestate *rows;
	int64			 nrows;
	List			*marks;	 /* of SpoolMark *, innermost last */
	List			*holes;	 /* of SpoolHole *, ascending, apart */
	bool			 blocks; /* the stream's journal holds its rows in blocks (source/journal/block.h) */
	bool			 broken; /* a write failed half-way */
	bool			 appended;
	JournalPlace	 place; /* end and lock are the slot's, once there is one */
} RowSpool;

/* The transaction's spool for a stream as it is defined now. */
extern RowSpool *streamext_spool_get(const StreamConfig *config);

/* Whether rows of this transaction wait for its commit to enter the stream. */
extern bool streamext_spool_has(Oid relid);

/* Adds a row of spool->desc whose values are flat. Raises if an earlier one failed half-way. */
extern void streamext_spool_put(RowSpool *spool, Datum *values, bool *nulls);

/* What commit, rollback and PREPARE do with spools. */
extern void streamext_spool_install_callbacks(void);

#endif /* STREAMEXT_SPOOL_H */
