/*
 * sink/row_text.h
 *		A row, and its key's columns, as texts of JSON: letter for letter what to_jsonb(row)::text and jsonb_build_array(keys)::text are.
 *
 * They are written straight from the values; no jsonb is made of what is a number, a time or a text of PostgreSQL's own. Other types take the
 * way of to_jsonb, casts of users included.
 */
#ifndef STREAMEXT_ROW_TEXT_H
#define STREAMEXT_ROW_TEXT_H

#include "base/streamext.h"

#include "access/tupdesc.h"
#include "executor/tuptable.h"
#include "lib/stringinfo.h"

typedef struct RowTextColumn RowTextColumn;

typedef struct RowText
{
	StringInfoData row, key; /* of the row that was written last; for the caller to read */

	/* the writer's own */
	RowTextColumn *columns; /* in the order of jsonb: shorter names first */
	int			   ncolumns;
	int			  *keys; /* numbers of these */
	int			   nkeys;
	MemoryContext  per_row;
} RowText;

/* keys: names of columns (char *), in the key's order. For as long as the settings that output depends on stay; in the current context. */
extern RowText *streamext_row_text_create(TupleDesc desc, List *keys);
extern void		streamext_row_text_write(RowText *text, TupleTableSlot *slot);

#endif /* STREAMEXT_ROW_TEXT_H */
