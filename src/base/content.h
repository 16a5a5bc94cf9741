/*
 * base/content.h
 *		Numbers that stand for contents: a view's definition, what a stream reads. Two are the same if and only if the contents are.
 *
 * State on disk and in shared memory names by such a number what it belongs to: checkpoints, slices of history, requests. A number is a hash to begin
 * with, and hashes can be made to collide; so the table streamext_internal.content keeps the whole content of each number that state was ever made for, and who
 * compares numbers has compared contents. With a content go the layouts of the types whose values the state holds (base/layout.h): the number is the same if
 * besides the present types read what former ones wrote, so ADD ATTRIBUTE keeps a view's state and ALTER ATTRIBUTE TYPE does not.
 *
 * Content of a number that was given out before the table was there (by version 1.0) is the first that asks for it.
 */
#ifndef STREAMEXT_CONTENT_H
#define STREAMEXT_CONTENT_H

#include "base/streamext.h"
#include "base/layout.h"

/*
 * The number of the object's (a view's or stream's) content; never 0. `hash` is the number to begin with. In a process that keeps state the
 * number is the content's from then on, in others it is the one that the content has or would get. types: NULL: none. Needs a transaction.
 */
extern uint64 streamext_content_number(Oid object, const char *content, Size size, const RowLayout *types, uint64 hash);

/* This process keeps state. */
extern void streamext_content_keep(void);

/* Forgets contents of objects that are no more. In a transaction with a snapshot. */
extern void streamext_content_forget_dropped(void);

#endif /* STREAMEXT_CONTENT_H */
