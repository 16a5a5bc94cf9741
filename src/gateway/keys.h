/*
 * gateway/keys.h
 *		Idempotency keys: what a role has sent to a stream by a key is taken once, for a day or the role's last 100,000 keys, over crashes.
 *
 * On disk, in the file `keys` beside the stream's journal: KeyEntry (64 bytes, as the machine has it) back to back. An entry is valid if and only if its
 * checksum is right and its position lies before the journal's end: it is written before the records are, and names where they were to
 * begin. So a crash between the two leaves an entry that means nothing, and none leaves records without one. A gateway that starts
 * reads the file before it appends anything, and writes it anew without what is not valid.
 */
#ifndef STREAMEXT_KEYS_H
#define STREAMEXT_KEYS_H

#include "base/streamext.h"

#include "source/journal/journal.h"

#define STREAMEXT_KEYS_KEPT 100000
#define STREAMEXT_KEYS_TIME (24 * USECS_PER_HOUR)

typedef struct KeyHash
{
	uint8 bytes[16];
} KeyHash;

typedef enum KeyState
{
	KEY_NEW,   /* noted now, until streamext_keys_end says what became of it */
	KEY_NOTED, /* in this group, with the same body */
	KEY_TAKEN, /* with the same body */
	KEY_OTHER, /* with another one */
	KEY_FAILED /* errno */
} KeyState;

/* Looks the key up and notes it. The first one of a group needs begin. */
extern bool		streamext_keys_begin(Oid relid, const JournalPlace *place);
extern KeyState streamext_keys_note(Oid role, KeyHash key, KeyHash body, TimestampTz now);
/* Before the append: what was noted is on disk, as the journal's mode says. False and errno. */
extern bool streamext_keys_write(void);
/* After it. */
extern void streamext_keys_end(bool taken);

#endif /* STREAMEXT_KEYS_H */
