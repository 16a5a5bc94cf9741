#include "postgres.h"

#include "catalog/pg_type.h"

#include "state/pane.h"
#include "view/compile.h"
#include "unit.h"

#define KEYS 20000
#define KEY_SIZE 27 /* with the bitmap of NULLs and the length two words of 16 bytes */

/* Steps beyond the first that it takes to find each group of the pane once. */
static uint64
key_probes(const Pane *pane)
{
	uint64 probes = 0;

	for (uint32 at = 0; at <= pane->index_mask; at++)
		if (pane->index[at].ref != 0)
			probes += (at - pane->index[at].hash) & pane->index_mask;
	return probes;
}

/* Groups with keys made by `make`; the steps that finding them takes. */
static uint64
key_fill(const CompiledView *view, KeyMatcher *matcher, void (*make)(int i, char *data), int *same_bucket)
{
	ViewState state;
	Pane	 *pane;
	struct
	{
		int32 header;
		char  data[KEY_SIZE];
	} value;
	char  *key = NULL;
	uint32 capacity = 0, bucket = 0;

	*same_bucket = 0;
	streamext_state_init_private(&state, view->state_size, CurrentMemoryContext);
	pane = streamext_state_pane(&state, 0);
	SET_VARSIZE(&value, VARHDRSZ + KEY_SIZE);
	for (int i = 0; i < KEYS; i++)
	{
		Datum  datum = PointerGetDatum(&value);
		bool   isnull = false, is_new;
		uint32 size, hash;

		make(i, value.data);
		size = streamext_key_serialize(view, &datum, &isnull, &key, &capacity);
		hash = streamext_key_hash(matcher, &datum, &isnull, key, size);
		CHECK(hash == streamext_key_rehash(matcher, key, size));
		bucket = i == 0 ? streamext_key_bucket(matcher, key, size) : bucket;
		*same_bucket += streamext_key_bucket(matcher, key, size) == bucket;
		CHECK(streamext_state_group_bytewise(&state, pane, hash, key, size, &is_new) != NULL && is_new);
	}
	return key_probes(pane);
}

static void
key_random(int i, char *data)
{
	uint64 seed = i;

	for (int at = 0; at < KEY_SIZE; at++)
		data[at] = (char) ((seed = seed * UINT64CONST(6364136223846793005) + 1442695040888963407) >> 56);
}

/* The last word makes a factor of 1.0's hash zero, and what was before it has no effect. */
static void
key_chosen(int i, char *data)
{
	const uint64 zero = UINT64CONST(0xe7037ed1a0b428db);

	memset(data, 0, KEY_SIZE);
	memcpy(data, &i, sizeof(i));
	memcpy(data + 11, &zero, sizeof(zero));
}

/* A start behind a key is found, is no part of what is hashed, and lengths that reach too far are not believed. */
static void
key_with_start(CompiledView *view)
{
	KeyMatcher *matcher = streamext_key_matcher(view, CurrentMemoryContext);
	struct
	{
		int32 header;
		char  data[5];
	} value = { 0, "abcd" };
	Datum		datum = PointerGetDatum(&value);
	bool		isnull = false;
	char	   *key = NULL;
	uint32		capacity = 0, size, more, huge = 0x7fffffff;
	TimestampTz from;

	SET_VARSIZE(&value, VARHDRSZ + 5);
	view->window.kind = WINDOW_HOP;
	size = streamext_key_serialize(view, &datum, &isnull, &key, &capacity);
	CHECK(streamext_key_split(view, key, size, &from) == size && from == DT_NOBEGIN);
	more = streamext_key_add_from(12345, &key, &capacity, size);
	CHECK(more == size + sizeof(from));
	CHECK(streamext_key_split(view, key, more, &from) == size && from == 12345);
	CHECK(streamext_key_rehash(matcher, key, more) == streamext_key_rehash(matcher, key, size));
	CHECK(streamext_key_bucket(matcher, key, more) == streamext_key_bucket(matcher, key, size));
	memcpy(key + 1, &huge, sizeof(huge));
	CHECK(streamext_key_split(view, key, more, &from) == more && from == DT_NOBEGIN);
	CHECK(streamext_key_split(view, key, 3, &from) == 3 && from == DT_NOBEGIN);
	view->window.kind = WINDOW_NONE;
}

void
test_key(void)
{
	KeySpec		 key = { .typlen = -1, .typalign = TYPALIGN_INT, .bytewise = true };
	CompiledView view = { .nkeys = 1, .keys = &key, .window_key = -1, .set_key = -1, .state_size = 8 };
	KeyMatcher	*matcher = streamext_key_matcher(&view, CurrentMemoryContext);
	int			 same;
	uint64		 random = key_fill(&view, matcher, key_random, &same);
	uint64		 chosen;

	CHECK(same < 5);
	chosen = key_fill(&view, matcher, key_chosen, &same);
	CHECK(same == KEYS); /* else they are chosen badly */
	/* history's, since 1.0 and for ever */
	CHECK(streamext_key_bucket(matcher, "0123456789abcdef0123456789", 26) == 0x3edfa328);
	CHECK(chosen < random * 2); /* unmended: 199,990,000 */
	key_with_start(&view);
}
