/*
 * worker/letters_hold.h
 *		Which letters are held for a while, and when they are written.
 */
#ifndef STREAMEXT_LETTERS_HOLD_H
#define STREAMEXT_LETTERS_HOLD_H

#include "worker/worker_private.h"

/* Whether letters of the batch at hand are staged and not written in its transaction. */
extern bool streamext_letters_may_wait(const Worker *w);

/*
 * Writes what is held; in no transaction. False: that failed, the reason is the stream's last error, and it is tried again in a while. Until then
 * nothing is to be done that needs the letters in their table.
 */
extern bool streamext_letters_settled(Worker *w);

/* Somebody else is about to ask for letters, or to change what they mean. */
extern bool streamext_letters_are_asked_for(const Worker *w);

/* After a round: the same, if they are due, if others might ask for them, or if there is nothing else to do (`idle`). */
extern void streamext_letters_round(Worker *w, bool idle);

/* When it is tried again; DT_NOEND: it has not failed. */
extern TimestampTz streamext_letters_deadline(const Worker *w);

/* The process ends, however: the last try. In no state in particular. */
extern void streamext_letters_at_exit(Worker *w);

#endif /* STREAMEXT_LETTERS_HOLD_H */
