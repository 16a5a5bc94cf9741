/*
 * gateway/cut.h
 *		A body into records, by what its Content-Type says. Only the seams are looked for: what stands between two is the worker's to judge.
 *		Pure: no PostgreSQL call but that a StringInfo grows.
 */
#ifndef STREAMEXT_CUT_H
#define STREAMEXT_CUT_H

#include "base/streamext.h"

#include "lib/stringinfo.h"

typedef enum CutKind
{
	CUT_JSON,  /* a value, or an array of them */
	CUT_LINES, /* JSON values, a line each; empty lines are none */
	CUT_CSV,   /* lines, but for what is quoted */
	CUT_RAW	   /* one record */
} CutKind;

typedef struct CutResult
{
	int64		records; /* good ones; of a body that cannot be cut: those before what is wrong */
	const char *error;	 /* constant, or NULL */
} CutResult;

/* Appends each record to the block (source/journal/block.h). quote: of CUT_CSV. */
extern CutResult streamext_cut(CutKind kind, const char *body, Size size, char quote, StringInfo block);

#endif /* STREAMEXT_CUT_H */
