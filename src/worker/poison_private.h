/*-------------------------------------------------------------------------
 *
 * worker/poison_private.h
 *		Marks of what is at work in a worker, as they stand in their file (poison_file.c). Of poison*.c alone.
 *
 *-------------------------------------------------------------------------
 */
#ifndef STREAMEXT_POISON_PRIVATE_H
#define STREAMEXT_POISON_PRIVATE_H

#include "worker/poison.h"

#define POISON_RANGES 32
#define POISON_BLAMED 32

typedef enum PoisonStage
{
	STAGE_NONE,
	STAGE_DECODE,
	STAGE_VIEW,
	STAGE_REST,
	STAGE_START
} PoisonStage;

typedef struct PoisonRange
{
	uint32 topic; /* hash */
	int32  partition;
	int64  first;
	int64  end;
} PoisonRange;

typedef struct PoisonBlame
{
	Oid	   view;  /* InvalidOid: the stream */
	int32  whole; /* the view itself, whatever the record */
	uint64 stamp; /* of its definition; 0: not looked at yet */
	uint32 topic;
	int32  partition;
	int64  position;
	int64  retry; /* the request in which it was tried again; 0: it was read */
} PoisonBlame;

/* What was at work. */
typedef struct PoisonPlace
{
	uint32		stage;
	Oid			view;
	uint32		counted; /* the view has counted something before */
	uint32		nrecords;
	uint32		overflow; /* partitions that have no range */
	uint32		nranges;
	int64		retry; /* as above */
	PoisonRange ranges[POISON_RANGES];
} PoisonPlace;

/* One process's. Only that one writes it. */
typedef struct PoisonMark
{
	volatile uint32 at_work;
	volatile uint32 alive;		/* the process has not ended by itself */
	TimestampTz		postmaster; /* whose it is */
	TimestampTz		started;
	uint64			reached; /* the sum of the positions that the processes have passed */
	uint32			barren;	 /* of its crashes with nothing at work: in a row, without passing `reached` */
	volatile uint32 faulted; /* the process has had a signal that is a fault of the program */
	uint32			faults;	 /* of its crashes with nothing at work: by such ones, in a row, records passed or not */
	uint32			crashes; /* in a row, since the marked place was passed */
	PoisonPlace		now;
	PoisonPlace		last; /* of the crash before */
	uint32			nblamed;
	uint32			next_blamed; /* is overwritten */
	PoisonBlame		blamed[POISON_BLAMED];
} PoisonMark;

/* A stream and shard's: its worker's and its catch-up worker's. Found and taken under registry_lock exclusive. */
typedef struct PoisonEntry
{
	uint32		magic;
	Oid			dboid;
	Oid			relid;
	int32		shard;
	TimestampTz used;
	PoisonMark	marks[2];
} PoisonEntry;

/* Crashes in a row that are held against what its connections bring. */
static inline uint32
streamext_poison_barren(const PoisonMark *mark)
{
	return Max(mark->barren, mark->faults);
}

/* The file's n entries, mapped for the life of the process; NULL, and a line in the log, where that fails. */
extern PoisonEntry *streamext_poison_map(int n);

/*
 * The stream's entry, else of those that no stream has the one that was not used for longest, and one that tells something only where all do; NULL:
 * there are as many as streams. With registry_lock exclusive.
 */
extern PoisonEntry *streamext_poison_find(const Worker *w, PoisonEntry *entries, int n);

#endif /* STREAMEXT_POISON_PRIVATE_H */
