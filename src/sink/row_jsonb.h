/*
 * sink/row_jsonb.h
 *		The jsonb of a row's text.
 */
#ifndef STREAMEXT_ROW_JSONB_H
#define STREAMEXT_ROW_JSONB_H

#include "base/streamext.h"

#include "utils/jsonb.h"

/*
 * text: as sink/row_text.h writes it, so names are in jsonb's order and none is there twice; not terminated. What jsonb_in makes of it, byte
 * for byte; palloc'd.
 */
extern Jsonb *streamext_row_jsonb(const char *text, uint32 size);

#endif /* STREAMEXT_ROW_JSONB_H */
