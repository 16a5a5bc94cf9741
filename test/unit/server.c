/*
 * unit/server.c
 *		What stands in for the server (see unit/server.h).
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xlog.h"
#include "common/file_perm.h"
#include "lib/hyperloglog.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "utils/datetime.h"
#include "utils/memutils.h"

#include "base/streamext.h"

#include "server.h"

/* ---- memory ---- */

typedef struct Block
{
	struct Block   *prev, *next;
	struct Context *context;
	Size			size;
} Block;

typedef struct Context
{
	NodeTag			type; /* MemoryContextIsValid asks for it */
	struct Context *parent, *child, *sibling;
	Block			blocks; /* ring */
} Context;

static Context server_top;

MemoryContext CurrentMemoryContext, TopMemoryContext, ErrorContext, CacheMemoryContext, TopTransactionContext;

static void
context_begin(Context *context, Context *parent)
{
	memset(context, 0, sizeof(Context));
	context->type = T_AllocSetContext;
	context->parent = parent;
	context->blocks.next = context->blocks.prev = &context->blocks;
	if (parent != NULL)
	{
		context->sibling = parent->child;
		parent->child = context;
	}
}

MemoryContext
AllocSetContextCreateInternal(MemoryContext parent, const char *name, Size min, Size init, Size max)
{
	Context *context = malloc(sizeof(Context));

	context_begin(context, (Context *) parent);
	return (MemoryContext) context;
}

static void
block_free(Block *block)
{
	block->prev->next = block->next;
	block->next->prev = block->prev;
	free(block);
}

void
MemoryContextReset(MemoryContext cxt)
{
	Context *context = (Context *) cxt;

	while (context->child != NULL)
		MemoryContextDelete((MemoryContext) context->child);
	while (context->blocks.next != &context->blocks)
		block_free(context->blocks.next);
}

void
MemoryContextDelete(MemoryContext cxt)
{
	Context	 *context = (Context *) cxt;
	Context **link = &context->parent->child;

	MemoryContextReset(cxt);
	while (*link != context)
		link = &(*link)->sibling;
	*link = context->sibling;
	free(context);
}

static void *
context_alloc(MemoryContext cxt, Size size, Size limit)
{
	Block *block;

	if (size > limit)
		elog(ERROR, "invalid memory alloc request size %zu", size);
	block = malloc(sizeof(Block) + size);
	block->context = (Context *) cxt;
	block->size = size;
	block->prev = &block->context->blocks;
	block->next = block->prev->next;
	block->prev->next = block->next->prev = block;
	return block + 1;
}

static void *
context_realloc(void *pointer, Size size, Size limit)
{
	Block *block = (Block *) pointer - 1;
	void  *moved = context_alloc((MemoryContext) block->context, size, limit);

	memcpy(moved, pointer, Min(size, block->size));
	block_free(block);
	return moved;
}

void *
MemoryContextAlloc(MemoryContext cxt, Size size)
{
	return context_alloc(cxt, size, MaxAllocSize);
}
void *
MemoryContextAllocHuge(MemoryContext cxt, Size size)
{
	return context_alloc(cxt, size, MaxAllocHugeSize);
}
void *
MemoryContextAllocZero(MemoryContext cxt, Size size)
{
	return memset(MemoryContextAlloc(cxt, size), 0, size);
}
void *
MemoryContextAllocZeroAligned(MemoryContext cxt, Size size)
{
	return MemoryContextAllocZero(cxt, size);
}
void *
palloc(Size size)
{
	return MemoryContextAlloc(CurrentMemoryContext, size);
}
void *
palloc0(Size size)
{
	return MemoryContextAllocZero(CurrentMemoryContext, size);
}
void *
palloc_extended(Size size, int flags)
{
	return MemoryContextAllocExtended(CurrentMemoryContext, size, flags);
}
void *
repalloc(void *pointer, Size size)
{
	return context_realloc(pointer, size, MaxAllocSize);
}
void *
repalloc_huge(void *pointer, Size size)
{
	return context_realloc(pointer, size, MaxAllocHugeSize);
}
void
pfree(void *pointer)
{
	block_free((Block *) pointer - 1);
}

void *
MemoryContextAllocExtended(MemoryContext cxt, Size size, int flags)
{
	void *pointer = context_alloc(cxt, size, (flags & MCXT_ALLOC_HUGE) ? MaxAllocHugeSize : MaxAllocSize);

	return (flags & MCXT_ALLOC_ZERO) ? memset(pointer, 0, size) : pointer;
}

char *
MemoryContextStrdup(MemoryContext cxt, const char *text)
{
	return strcpy(MemoryContextAlloc(cxt, strlen(text) + 1), text);
}

char *
pstrdup(const char *text)
{
	return MemoryContextStrdup(CurrentMemoryContext, text);
}

char *
pnstrdup(const char *text, Size size)
{
	char *copy = palloc0((size = strnlen(text, size)) + 1);

	return memcpy(copy, text, size);
}

/* libpgcommon's frontend objects */
extern void *pg_malloc(size_t size);
extern void *pg_malloc0(size_t size);
extern void *pg_malloc_extended(size_t size, int flags);
extern void *pg_realloc(void *pointer, size_t size);
extern char *pg_strdup(const char *text);
extern void	 pg_free(void *pointer);

void *
pg_malloc(size_t size)
{
	return palloc(size);
}
void *
pg_malloc0(size_t size)
{
	return palloc0(size);
}
void *
pg_malloc_extended(size_t size, int flags)
{
	return palloc_extended(size, flags);
}
void *
pg_realloc(void *pointer, size_t size)
{
	return pointer == NULL ? palloc(size) : repalloc(pointer, size);
}
char *
pg_strdup(const char *text)
{
	return pstrdup(text);
}
void
pg_free(void *pointer)
{
	pfree(pointer);
}

/* ---- errors ---- */

int					  server_sqlstate;
char				  server_message[1024];
sigjmp_buf			 *PG_exception_stack;
ErrorContextCallback *error_context_stack;
static int			  error_level;

bool
errstart(int elevel, const char *domain)
{
	error_level = elevel;
	if (elevel >= ERROR)
		server_sqlstate = ERRCODE_INTERNAL_ERROR;
	return elevel >= ERROR;
}

bool
errstart_cold(int elevel, const char *domain)
{
	return errstart(elevel, domain);
}

void
errfinish(const char *filename, int lineno, const char *funcname)
{
	if (error_level >= ERROR)
		pg_re_throw();
}

void
pg_re_throw(void)
{
	if (PG_exception_stack == NULL)
	{
		fprintf(stderr, "uncaught: %s\n", server_message);
		abort();
	}
	siglongjmp(*PG_exception_stack, 1);
}

static int
error_text(const char *format, va_list args)
{
	vsnprintf(server_message, sizeof(server_message), format, args);
	return 0;
}

#define ERROR_TEXT(name)              \
	int name(const char *format, ...) \
	{                                 \
		va_list args;                 \
		va_start(args, format);       \
		error_text(format, args);     \
		va_end(args);                 \
		return 0;                     \
	}

ERROR_TEXT(errmsg)
ERROR_TEXT(errmsg_internal)
int
errdetail(const char *format, ...)
{
	return 0;
}
int
errdetail_internal(const char *format, ...)
{
	return 0;
}
int
errhint(const char *format, ...)
{
	return 0;
}
int
errcode(int sqlstate)
{
	return server_sqlstate = sqlstate, 0;
}
void
FlushErrorState(void)
{
}

#if PG_VERSION_NUM >= 160000
void
ExceptionalCondition(const char *condition, const char *file, int line)
#else
void
						 ExceptionalCondition(const char *condition, const char *type, const char *file, int line)
#endif
{
	fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, condition);
	abort();
}

/* ---- processes and shared memory ---- */

volatile sig_atomic_t InterruptPending;
static LWLockPadded	  server_locks[256];
LWLockPadded		 *MainLWLockArray = server_locks;
char				 *DataDir;
Oid					  MyDatabaseId = 1;
bool				  enableFsync = false;

void
ProcessInterrupts(void)
{
}
bool
LWLockAcquire(LWLock *lock, LWLockMode mode)
{
	return true;
}
void
LWLockRelease(LWLock *lock)
{
}
void
LWLockInitialize(LWLock *lock, int tranche)
{
}
Size
add_size(Size a, Size b)
{
	return a + b;
}
Size
mul_size(Size a, Size b)
{
	return a * b;
}
uint64
GetSystemIdentifier(void)
{
	return 42;
}

void *
ShmemInitStruct(const char *name, Size size, bool *found)
{
	*found = false;
	return calloc(1, size);
}

/* ---- settings ---- */

int streamext_memory_limit_mb = 16;
int streamext_journal_limit_mb = 0;

/* ---- transactions ---- */

uint64 server_next_fxid = 1000;
uint64 server_running = 900;
#if PG_VERSION_NUM >= 170000
static TransamVariablesData server_variables = { .oldestClogXid = 3 };
TransamVariablesData	   *TransamVariables = &server_variables;
#else
static VariableCacheData server_variables = { .oldestClogXid = 3 };
VariableCache			 ShmemVariableCache = &server_variables;
#endif

FullTransactionId
ReadNextFullTransactionId(void)
{
	return FullTransactionIdFromU64(server_next_fxid);
}
bool
TransactionIdIsInProgress(TransactionId xid)
{
	return xid >= server_running;
}
bool
TransactionIdDidCommit(TransactionId xid)
{
	return xid % 2 == 1;
}
XLogRecPtr
TransactionIdGetCommitLSN(TransactionId xid)
{
	return 1;
}
XLogRecPtr
GetFlushRecPtr(TimeLineID *line)
{
	return 2;
}

/* ---- the cluster ---- */

char server_nonce[32] = "0123456789abcdefghijklmnopqrstu";

char *
GetMockAuthenticationNonce(void)
{
	return server_nonce;
}

/* ---- what is not in libpgcommon ---- */

const int day_tab[2][13] = { { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 0 },
							 { 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 0 } };

/* Days since 4714-11-24 BC: whole years, then whole months of a year that begins in March. */
int
date2j(int year, int month, int day)
{
	int64 y = (int64) year - (month <= 2 ? 1 : 0);
	int64 m = (month + 9) % 12;

	return (int) (365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 + 1721120);
}

void
initHyperLogLog(hyperLogLogState *state, uint8 width)
{
	state->registerWidth = width;
	state->nRegisters = (Size) 1 << width;
	state->alphaMM = 0.7213 / (1.0 + 1.079 / state->nRegisters) * state->nRegisters * state->nRegisters;
	state->arrSize = state->nRegisters + 1;
	state->hashesArr = palloc0(state->arrSize);
}

void
addHyperLogLog(hyperLogLogState *state, uint32 hash)
{
	uint32 index = hash >> (32 - state->registerWidth);
	uint32 rest = hash << state->registerWidth;
	uint8  rank = rest == 0 ? 32 - state->registerWidth + 1 : __builtin_clz(rest) + 1;

	state->hashesArr[index] = Max(state->hashesArr[index], rank);
}

double
estimateHyperLogLog(hyperLogLogState *state)
{
	double sum = 0;

	for (Size i = 0; i < state->nRegisters; i++)
		sum += 1.0 / (double) (UINT64CONST(1) << state->hashesArr[i]);
	return state->alphaMM / sum;
}

/* The database's encoding is UTF-8. */
int
pg_mbcliplen(const char *text, int length, int limit)
{
	int clipped = 0;

	while (length > 0 && *text != '\0')
	{
		int size = pg_encoding_mblen(PG_UTF8, text);

		if (clipped + size > limit)
			break;
		clipped += size;
		text += size;
		length -= size;
	}
	return clipped;
}

/* Nothing is toasted here. */
struct varlena *
pg_detoast_datum(struct varlena *value)
{
	return value;
}
struct varlena *
pg_detoast_datum_packed(struct varlena *value)
{
	return value;
}

struct varlena *
pg_detoast_datum_copy(struct varlena *value)
{
	return memcpy(palloc(VARSIZE(value)), value, VARSIZE(value));
}

/* ---- start ---- */

void
server_start(void)
{
	context_begin(&server_top, NULL);
	CurrentMemoryContext = TopMemoryContext = ErrorContext = CacheMemoryContext = TopTransactionContext =
		(MemoryContext) &server_top;
	PG_exception_stack = NULL;
}

void
server_reset(void)
{
	CurrentMemoryContext = TopMemoryContext;
	MemoryContextReset(TopMemoryContext);
	PG_exception_stack = NULL;
}
