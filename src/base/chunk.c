/*
 * base/chunk.c
 *		A buddy system over one area of main shared memory.
 *
 * The area is cut into blocks of STREAMEXT_CHUNK_MIN << order bytes, each aligned to its size within the area. Free
 * blocks are threaded into one doubly linked list an order by links in their own first bytes; so at start only a handful
 * of maximal blocks is written to, and the operating system commits the rest when state grows into it.
 *
 * Beside the area stands one byte a smallest block. It is non-zero exactly where a block, free or handed out, begins.
 * When a block of some order exists, its buddy's place holds either a block of the same order or a cut-up one, so a look
 * at the buddy's first byte says whether the two can be joined.
 *
 * Everything but `used` is guarded by the lock given at start, taken last of all locks and held for some dozens of
 * instructions.
 */
#include "postgres.h"

#include "base/chunk.h"
#include "port/atomics.h"
#include "port/pg_bitutils.h"
#include "storage/shmem.h"

#define CHUNK_ORDERS 26 /* 1 kB to 32 GB, what STREAMEXT_REF reaches */
#define CHUNK_AREA_MAX ((Size) STREAMEXT_CHUNK_MIN << (CHUNK_ORDERS - 1))
#define CHUNK_AREA_ALIGN 4096

/* The byte of a block's first place. */
#define CHUNK_HEAD 0x80
#define CHUNK_ALLOCATED 0x40
#define CHUNK_ORDER_MASK 0x3f

typedef struct FreeChunk
{
	struct FreeChunk *prev;
	struct FreeChunk *next;
} FreeChunk;

typedef struct ChunkControl
{
	LWLock	  *lock;
	char	  *area;
	uint8	  *map; /* a byte for each STREAMEXT_CHUNK_MIN of the area */
	Size	   total;
	FreeChunk *free[CHUNK_ORDERS];
} ChunkControl;

char *streamext_chunk_base = NULL;

static ChunkControl *chunk_control = NULL;


/* Bytes of the area that the settings ask for. */
static Size
chunk_area_size(void)
{
	return Min((Size) Max(streamext_memory_limit_mb, 1) * 1024 * 1024, CHUNK_AREA_MAX);
}

Size
streamext_chunk_shmem_size(void)
{
	Size area = chunk_area_size();
	Size size = MAXALIGN(sizeof(ChunkControl));

	size = add_size(size, area / STREAMEXT_CHUNK_MIN);
	size = add_size(size, CHUNK_AREA_ALIGN);
	return add_size(size, area);
}

static inline Size
chunk_order_size(int order)
{
	return (Size) STREAMEXT_CHUNK_MIN << order;
}

/* The order that holds size bytes; CHUNK_ORDERS or more when none does. */
static int
chunk_order(Size size)
{
	if (size <= STREAMEXT_CHUNK_MIN)
		return 0;
	if (size > CHUNK_AREA_MAX)
		return CHUNK_ORDERS;
	return pg_leftmost_one_pos64((uint64) (size - 1) / STREAMEXT_CHUNK_MIN) + 1;
}

static inline uint8 *
chunk_head(Size offset)
{
	return &chunk_control->map[offset / STREAMEXT_CHUNK_MIN];
}

static void
chunk_push(Size offset, int order)
{
	FreeChunk *chunk = (FreeChunk *) (chunk_control->area + offset);

	chunk->prev = NULL;
	chunk->next = chunk_control->free[order];
	if (chunk->next != NULL)
		chunk->next->prev = chunk;
	chunk_control->free[order] = chunk;
	*chunk_head(offset) = CHUNK_HEAD | order;
}

/* Takes a free block off its list; its head byte is the caller's. */
static Size
chunk_unlink(FreeChunk *chunk, int order)
{
	if (chunk->prev != NULL)
		chunk->prev->next = chunk->next;
	else
		chunk_control->free[order] = chunk->next;
	if (chunk->next != NULL)
		chunk->next->prev = chunk->prev;
	return (char *) chunk - chunk_control->area;
}

/* Covers the area, which need not be a power of two, with the largest blocks that fit. */
static void
chunk_seed(void)
{
	Size offset = 0;
	int	 order = CHUNK_ORDERS - 1;

	while (offset < chunk_control->total)
	{
		while (chunk_order_size(order) > chunk_control->total - offset)
			order--;
		chunk_push(offset, order);
		offset += chunk_order_size(order);
	}
}

/*
 * Makes the area in the postmaster, or finds it. Called from the shared memory start-up hook with AddinShmemInitLock.
 */
void
streamext_chunk_shmem_init(LWLock *lock)
{
	bool  found;
	char *end_of_map;

	chunk_control = ShmemInitStruct("streamext chunks", streamext_chunk_shmem_size(), &found);
	if (!found)
	{
		memset(chunk_control, 0, sizeof(ChunkControl));
		chunk_control->lock = lock;
		chunk_control->total = chunk_area_size();
		chunk_control->map = (uint8 *) chunk_control + MAXALIGN(sizeof(ChunkControl));
		end_of_map = (char *) chunk_control->map + chunk_control->total / STREAMEXT_CHUNK_MIN;
		chunk_control->area = (char *) TYPEALIGN(CHUNK_AREA_ALIGN, end_of_map);
		memset(chunk_control->map, 0, chunk_control->total / STREAMEXT_CHUNK_MIN);
		chunk_seed();
	}

	/* One unit before the area, so that no place in it has the reference 0. */
	streamext_chunk_base = chunk_control->area - 8;
}

void *
streamext_chunk_alloc(Size size, Size *actual)
{
	int	 order = chunk_order(size);
	int	 found;
	Size offset;

	if (chunk_control == NULL || order >= CHUNK_ORDERS)
		return NULL;

	LWLockAcquire(chunk_control->lock, LW_EXCLUSIVE);
	for (found = order; found < CHUNK_ORDERS; found++)
	{
		if (chunk_control->free[found] != NULL)
			break;
	}
	if (found >= CHUNK_ORDERS)
	{
		LWLockRelease(chunk_control->lock);
		return NULL;
	}

	offset = chunk_unlink(chunk_control->free[found], found);
	/* The lower half is kept, so that memory fills from below. */
	while (found > order)
	{
		found--;
		chunk_push(offset + chunk_order_size(found), found);
	}
	*chunk_head(offset) = CHUNK_HEAD | CHUNK_ALLOCATED | order;
	LWLockRelease(chunk_control->lock);

	if (actual != NULL)
		*actual = chunk_order_size(order);
	return chunk_control->area + offset;
}

/* Joins a block that is no more in use with its free buddies, as far up as it goes, and makes the result free. */
static void
chunk_release(Size offset, int order)
{
	while (order < CHUNK_ORDERS - 1)
	{
		Size size = chunk_order_size(order);
		Size buddy = offset ^ size;

		if (buddy + size > chunk_control->total || *chunk_head(buddy) != (CHUNK_HEAD | order))
			break;
		(void) chunk_unlink((FreeChunk *) (chunk_control->area + buddy), order);
		*chunk_head(Max(offset, buddy)) = 0;
		offset = Min(offset, buddy);
		order++;
	}
	chunk_push(offset, order);
}

/*
 * Gives a chunk back; NULL is ignored. What is no chunk in use is left alone with a WARNING: leaking is better than
 * tearing down the server.
 */
void
streamext_chunk_free(void *chunk)
{
	Size  offset;
	uint8 head = 0;

	if (chunk == NULL)
		return;
	if (chunk_control == NULL || (char *) chunk < chunk_control->area ||
		(char *) chunk >= chunk_control->area + chunk_control->total)
	{
		elog(WARNING, "streamext: freed chunk %p lies outside of the area", chunk);
		return;
	}
	offset = (char *) chunk - chunk_control->area;

	LWLockAcquire(chunk_control->lock, LW_EXCLUSIVE);
	if (offset % STREAMEXT_CHUNK_MIN == 0)
		head = *chunk_head(offset);
	if (head & CHUNK_ALLOCATED)
		chunk_release(offset, head & CHUNK_ORDER_MASK);
	LWLockRelease(chunk_control->lock);

	if (!(head & CHUNK_ALLOCATED))
		elog(WARNING, "streamext: freed chunk %p is not in use", chunk);
}

Size
streamext_chunk_total(void)
{
	return chunk_control == NULL ? 0 : chunk_control->total;
}
