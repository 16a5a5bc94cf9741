/*
 * view/key.c
 *		Group keys: values to bytes and back, hashing and equality.
 *
 * A stored key is what a group is known by in every pane, shard and process: bitmap of NULLs (a bit for each stored key,
 * lowest first), then each non-NULL key in order without padding:
 *		by value				8 bytes of the Datum as fetch_att makes it of the value's typlen bytes
 *		fixed length by reference	typlen bytes
 *		varlena					uint32 length, the data without header
 *		cstring					uint32 length, the bytes without the terminator
 * The window key is no part of it: panes stand for it. Nothing in it is aligned. In views with hopping windows the first start that the group's
 * rows count in may follow (int64). What comes before tells how long it is itself, so no key is another one with a start behind it.
 *
 * When all keys are bytewise, two keys are equal exactly if their bytes are, and the hash is taken over the bytes.
 * Otherwise hash and equality are those of the types. Where a composite is in a key's type (CompiledView.keys_change) both are of its attributes as they
 * are at the moment: after ADD or DROP ATTRIBUTE a pane may hold a group under several hashes, so readers hash anew what they find, and neither
 * look up by hash nor take a pane's groups for rows. Either way the hash is the same in all processes of a cluster.
 *
 * Keys come from whoever may publish, and so do keys that share a hash, if it can be foreseen: a pane's index is then a list. So
 * the hash depends on the cluster's secret, and is of memory alone. What is stored does not: history's buckets are numbered by
 * another hash of the same keys, which is the same everywhere and for ever (and whose collisions only make one bucket larger),
 * and what is read from disk gets memory's hash from its key.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_control.h"
#include "catalog/pg_type_d.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

#include "view/compile.h"

typedef struct KeyFunctions
{
	FmgrInfo hash;
	FmgrInfo seeded; /* extended hash function; fn_oid invalid: the type has none */
	FmgrInfo equal;
} KeyFunctions;

struct KeyMatcher
{
	const CompiledView *view;
	bool				bytewise;
	int					nstored;					/* keys that are stored */
	int					stored[STREAMEXT_MAX_KEYS]; /* their numbers */
	MemoryContext		scratch;					/* reset after each comparison */
	KeyFunctions functions[FLEXIBLE_ARRAY_MEMBER];	/* by key number; none where keys are compared by their bytes */
};

/* Where key_next stands in a stored key. */
typedef struct KeyCursor
{
	const char *nulls;
	const char *at;
	int			ordinal; /* of the next stored key */
} KeyCursor;

static int
key_count_stored(const CompiledView *view)
{
	return view->nkeys - (view->window_key >= 0 ? 1 : 0);
}

bool
streamext_keys_bytewise(const CompiledView *view)
{
	for (int k = 0; k < view->nkeys; k++)
		if (!view->keys[k].is_window && !view->keys[k].bytewise)
			return false;
	return true;
}

/* ---- bytes ---- */

static inline char *
key_reserve(char **buf, uint32 *capacity, uint32 used, Size more)
{
	Size need = (Size) used + more;

	if (need > MaxAllocSize)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("group key is too large")));
	if (need > *capacity)
	{
		Size grown = Min(Max(need, (Size) *capacity * 2), MaxAllocSize);

		grown = Max(grown, 64);
		*buf = *buf == NULL ? palloc(grown) : repalloc(*buf, grown);
		*capacity = (uint32) grown;
	}
	return *buf + used;
}

/*
 * Functions and rows disagree on what stands above an unsigned value's own bytes (ObjectIdGetDatum puts zeros there, fetch_att
 * copies of the sign bit), so bytes are only the same if the Datum is made anew from those that mean something.
 */
static inline uint64
key_canonical(Datum value, int16 typlen)
{
	switch (typlen)
	{
		case sizeof(char):
			return (uint64) CharGetDatum(DatumGetChar(value));
		case sizeof(int16):
			return (uint64) Int16GetDatum(DatumGetInt16(value));
		case sizeof(int32):
			return (uint64) Int32GetDatum(DatumGetInt32(value));
		default:
			return (uint64) value;
	}
}

uint32
streamext_key_serialize(const CompiledView *view, const Datum *values, const bool *nulls, char **buf, uint32 *capacity)
{
	uint32 bitmap = (key_count_stored(view) + 7) / 8;
	uint32 used = bitmap;
	int	   ordinal = 0;

	memset(key_reserve(buf, capacity, 0, bitmap), 0, bitmap);
	for (int k = 0; k < view->nkeys; k++)
	{
		const KeySpec *key = &view->keys[k];

		if (key->is_window)
			continue;
		if (nulls[k])
			(*buf)[ordinal / 8] |= 1 << (ordinal % 8);
		else if (key->typbyval)
		{
			uint64 value = key_canonical(values[k], key->typlen);

			memcpy(key_reserve(buf, capacity, used, sizeof(value)), &value, sizeof(value));
			used += sizeof(value);
		}
		else if (key->typlen > 0)
		{
			memcpy(key_reserve(buf, capacity, used, key->typlen), DatumGetPointer(values[k]), key->typlen);
			used += key->typlen;
		}
		else
		{
			const char *data;
			uint32		size;
			char	   *at;

			if (key->typlen == -1)
			{
				struct varlena *v = pg_detoast_datum_packed((struct varlena *) DatumGetPointer(values[k]));

				data = VARDATA_ANY(v);
				size = VARSIZE_ANY_EXHDR(v);
			}
			else
			{
				data = DatumGetCString(values[k]);
				size = strlen(data);
			}
			at = key_reserve(buf, capacity, used, sizeof(size) + (Size) size);
			memcpy(at, &size, sizeof(size));
			memcpy(at + sizeof(size), data, size);
			used += sizeof(size) + size;
		}
		ordinal++;
	}
	return used;
}

/* The next stored key's value; the key must be view->keys[...] in order. */
static inline Datum
key_next(KeyCursor *cursor, const KeySpec *key, bool *isnull)
{
	int	   ordinal = cursor->ordinal++;
	uint32 size;
	char  *copy;

	*isnull = (cursor->nulls[ordinal / 8] & (1 << (ordinal % 8))) != 0;
	if (*isnull)
		return (Datum) 0;
	if (key->typbyval)
	{
		uint64 value;

		memcpy(&value, cursor->at, sizeof(value));
		cursor->at += sizeof(value);
		return (Datum) value;
	}
	if (key->typlen > 0)
	{
		const char *data = cursor->at;

		cursor->at += key->typlen;
		if (key->typalign == TYPALIGN_CHAR)
			return PointerGetDatum(data);
		copy = palloc(key->typlen);
		memcpy(copy, data, key->typlen);
		return PointerGetDatum(copy);
	}
	memcpy(&size, cursor->at, sizeof(size));
	cursor->at += sizeof(size);
	if (key->typlen == -1)
	{
		copy = palloc(VARHDRSZ + size);
		SET_VARSIZE(copy, VARHDRSZ + size);
		memcpy(VARDATA(copy), cursor->at, size);
	}
	else
	{
		copy = palloc(size + 1);
		memcpy(copy, cursor->at, size);
		copy[size] = '\0';
	}
	cursor->at += size;
	return PointerGetDatum(copy);
}

void
streamext_key_deserialize(const CompiledView *view, const char *key, Datum *values, bool *nulls)
{
	KeyCursor cursor = { key, key + (key_count_stored(view) + 7) / 8, 0 };

	for (int k = 0; k < view->nkeys; k++)
	{
		if (view->keys[k].is_window)
			continue;
		values[k] = key_next(&cursor, &view->keys[k], &nulls[k]);
	}
}

/* ---- rows that are late for some of their windows ---- */

bool
streamext_key_is_total(const CompiledView *view, const char *key)
{
	Datum values[STREAMEXT_MAX_KEYS + 1];
	bool  nulls[STREAMEXT_MAX_KEYS + 1];

	if (!view->has_totals)
		return false;
	streamext_key_deserialize(view, key, values, nulls);
	return (view->sets[DatumGetInt32(values[view->set_key])] & ((uint32) 1 << view->window_key)) == 0;
}

uint32
streamext_key_add_from(TimestampTz from, char **buf, uint32 *capacity, uint32 used)
{
	memcpy(key_reserve(buf, capacity, used, sizeof(from)), &from, sizeof(from));
	return used + sizeof(from);
}

/* How long a stored key is by its own account, which is not believed beyond key_size. */
static uint32
key_own_size(const CompiledView *view, const char *key, uint32 key_size)
{
	Size at = (key_count_stored(view) + 7) / 8;
	int	 ordinal = 0;

	for (int k = 0; k < view->nkeys && at < key_size; k++)
	{
		uint32 size;

		if (view->keys[k].is_window)
			continue;
		if ((key[ordinal / 8] & (1 << (ordinal % 8))) == 0)
		{
			if (view->keys[k].typbyval)
				size = sizeof(uint64);
			else if (view->keys[k].typlen > 0)
				size = view->keys[k].typlen;
			else
			{
				if (key_size - at < sizeof(size))
					return key_size;
				memcpy(&size, key + at, sizeof(size));
				at += sizeof(size);
			}
			at += size;
		}
		ordinal++;
	}
	return Min(at, key_size);
}

uint32
streamext_key_split(const CompiledView *view, const char *key, uint32 key_size, TimestampTz *from)
{
	uint32 own;

	*from = DT_NOBEGIN;
	if (view->window.kind != WINDOW_HOP)
		return key_size;
	own = key_own_size(view, key, key_size);
	if (key_size == own + sizeof(*from))
		memcpy(from, key + own, sizeof(*from));
	return own;
}

/* ---- hashing and equality ---- */

/* What hashes in memory depend on; key_secrets[0] is 0 until they are known. */
static uint64 key_secrets[2];

/* From the random bytes that initdb leaves in pg_control: standbys and copies of the cluster have them, clients never see them. */
static void
key_load_secrets(void)
{
	const unsigned char *nonce = (const unsigned char *) GetMockAuthenticationNonce();

	for (int i = 0; i < lengthof(key_secrets); i++)
		key_secrets[i] = hash_bytes_extended(nonce, MOCK_AUTH_NONCE_LEN, i + 1) | 1;
}

/* The extended form of the type's hash function, if what keys are hashed with is the type's own. */
static void
key_find_seeded(KeyMatcher *matcher, int k, MemoryContext cxt)
{
	const KeySpec  *key = &matcher->view->keys[k];
	TypeCacheEntry *type = lookup_type_cache(key->type, TYPECACHE_HASH_PROC | TYPECACHE_HASH_EXTENDED_PROC);

	if (type->hash_proc == key->hashfunc && OidIsValid(type->hash_extended_proc))
		fmgr_info_cxt(type->hash_extended_proc, &matcher->functions[k].seeded, cxt);
}

KeyMatcher *
streamext_key_matcher(const CompiledView *view, MemoryContext cxt)
{
	bool		bytewise = streamext_keys_bytewise(view);
	Size		functions = bytewise ? 0 : sizeof(KeyFunctions) * view->nkeys;
	KeyMatcher *matcher = MemoryContextAllocZero(cxt, offsetof(KeyMatcher, functions) + functions);

	if (key_secrets[0] == 0)
		key_load_secrets();
	matcher->view = view;
	matcher->bytewise = bytewise;
	for (int k = 0; k < view->nkeys; k++)
	{
		if (view->keys[k].is_window)
			continue;
		matcher->stored[matcher->nstored++] = k;
		if (matcher->bytewise)
			continue;
		fmgr_info_cxt(view->keys[k].hashfunc, &matcher->functions[k].hash, cxt);
		fmgr_info_cxt(view->keys[k].eqfunc, &matcher->functions[k].equal, cxt);
		key_find_seeded(matcher, k, cxt);
	}
	if (!matcher->bytewise)
		matcher->scratch = AllocSetContextCreate(cxt, "streamext key comparison", ALLOCSET_SMALL_SIZES);
	return matcher;
}

#ifdef PG_INT128_TYPE

/*
 * The folded product of two 64-bit numbers: every bit of the input reaches every bit of the result. keep: the factors stay in it,
 * so that a factor of zero does not wipe out the other one.
 */
static inline uint64
key_mix(uint64 a, uint64 b, bool keep)
{
	unsigned PG_INT128_TYPE product = (unsigned PG_INT128_TYPE) a * b;
	uint64					folded = (uint64) product ^ (uint64) (product >> 64);

	return keep ? folded ^ a ^ b : folded;
}

static inline uint64
key_read(const char *at, uint32 size)
{
	uint64 word = 0;

	memcpy(&word, at, size);
	return word;
}

static pg_attribute_always_inline uint32
key_hash_words(const char *key, uint32 size, uint64 k0, uint64 k1, bool keep)
{
	uint64 h = k0 ^ size;

	while (size > 16)
	{
		h = key_mix(key_read(key, 8) ^ k1, key_read(key + 8, 8) ^ h, keep);
		key += 16;
		size -= 16;
	}
	if (size > 8)
		h = key_mix(key_read(key, 8) ^ k1, key_read(key + 8, size - 8) ^ h, keep);
	else
		h = key_mix(key_read(key, size) ^ k1, h, keep);
	h = key_mix(h, k0, keep);
	return (uint32) (h ^ (h >> 32));
}

static inline uint32
key_hash_bytes(const char *key, uint32 size)
{
	return key_hash_words(key, size, key_secrets[0], key_secrets[1], true);
}

/* Written into history since 1.0. */
static inline uint32
key_bucket_bytes(const char *key, uint32 size)
{
	return key_hash_words(key, size, UINT64CONST(0xa0761d6478bd642f), UINT64CONST(0xe7037ed1a0b428db), false);
}

#else

static inline uint32
key_hash_bytes(const char *key, uint32 size)
{
	uint64 h = hash_bytes_extended((const unsigned char *) key, size, key_secrets[0]);

	return (uint32) (h ^ (h >> 32));
}

static inline uint32
key_bucket_bytes(const char *key, uint32 size)
{
	return hash_bytes((const unsigned char *) key, size);
}

#endif

/* The types' own hashes, without a secret. */
static uint32
key_bucket_values(KeyMatcher *matcher, const Datum *values, const bool *nulls)
{
	uint32 h = 0;

	for (int i = 0; i < matcher->nstored; i++)
	{
		int	   k = matcher->stored[i];
		uint32 one = 0;

		if (!nulls[k])
			one = DatumGetUInt32(
				FunctionCall1Coll(&matcher->functions[k].hash, matcher->view->keys[k].collation, values[k]));
		h = hash_combine(h, one);
	}
	return h;
}

static uint32
key_hash_values(KeyMatcher *matcher, const Datum *values, const bool *nulls)
{
	uint64 h = key_secrets[0];

	for (int i = 0; i < matcher->nstored; i++)
	{
		int	   k = matcher->stored[i];
		Oid	   collation = matcher->view->keys[k].collation;
		uint64 one = 0;

		if (!nulls[k] && OidIsValid(matcher->functions[k].seeded.fn_oid))
			one = DatumGetUInt64(
				FunctionCall2Coll(&matcher->functions[k].seeded, collation, values[k], UInt64GetDatum(key_secrets[1])));
		else if (!nulls[k])
			one = hash_bytes_uint32_extended(
				DatumGetUInt32(FunctionCall1Coll(&matcher->functions[k].hash, collation, values[k])), key_secrets[1]);
		h = hash_combine64(h, one);
	}
	return (uint32) (h ^ (h >> 32));
}

uint32
streamext_key_hash(KeyMatcher *matcher, const Datum *values, const bool *nulls, const char *key, uint32 key_size)
{
	uint32		  h;
	MemoryContext old;

	if (matcher->bytewise)
		return key_hash_bytes(key, key_size);
	old = MemoryContextSwitchTo(matcher->scratch);
	h = key_hash_values(matcher, values, nulls);
	MemoryContextSwitchTo(old);
	MemoryContextReset(matcher->scratch);
	return h;
}

/* A hash over the values of a stored key. */
static uint32
key_hash_stored(KeyMatcher *matcher, const char *key,
				uint32 (*hash)(KeyMatcher *matcher, const Datum *values, const bool *nulls))
{
	MemoryContext old = MemoryContextSwitchTo(matcher->scratch);
	Datum		  values[STREAMEXT_MAX_KEYS];
	bool		  nulls[STREAMEXT_MAX_KEYS];
	uint32		  h;

	streamext_key_deserialize(matcher->view, key, values, nulls);
	h = hash(matcher, values, nulls);
	MemoryContextSwitchTo(old);
	MemoryContextReset(matcher->scratch);
	return h;
}

uint32
streamext_key_rehash(KeyMatcher *matcher, const char *key, uint32 key_size)
{
	TimestampTz from;

	if (!matcher->bytewise)
		return key_hash_stored(matcher, key, key_hash_values);
	return key_hash_bytes(key, streamext_key_split(matcher->view, key, key_size, &from));
}

uint32
streamext_key_bucket(KeyMatcher *matcher, const char *key, uint32 key_size)
{
	TimestampTz from;

	if (!matcher->bytewise)
		return key_hash_stored(matcher, key, key_bucket_values);
	return key_bucket_bytes(key, streamext_key_split(matcher->view, key, key_size, &from));
}

static bool
key_equal_values(KeyMatcher *matcher, const char *stored, uint32 stored_size, const char *probe, uint32 probe_size)
{
	uint32	  bitmap = (matcher->nstored + 7) / 8;
	KeyCursor a = { stored, stored + bitmap, 0 };
	KeyCursor b = { probe, probe + bitmap, 0 };

	if (memcmp(stored, probe, bitmap) != 0)
		return false;
	for (int i = 0; i < matcher->nstored; i++)
	{
		int			   k = matcher->stored[i];
		const KeySpec *key = &matcher->view->keys[k];
		bool		   anull, bnull;
		Datum		   avalue = key_next(&a, key, &anull);
		Datum		   bvalue = key_next(&b, key, &bnull);

		if (!anull && !DatumGetBool(FunctionCall2Coll(&matcher->functions[k].equal, key->collation, avalue, bvalue)))
			return false;
	}
	/* what stands behind them */
	stored_size -= a.at - stored;
	probe_size -= b.at - probe;
	return stored_size == probe_size && memcmp(a.at, b.at, stored_size) == 0;
}

bool
streamext_key_equal(void *arg, const char *stored, uint32 stored_size, const char *probe, uint32 probe_size)
{
	KeyMatcher	 *matcher = arg;
	MemoryContext old;
	bool		  equal;

	/* Equal bytes are equal values for every type that hashes. */
	if (stored_size == probe_size && memcmp(stored, probe, stored_size) == 0)
		return true;
	if (matcher == NULL || matcher->bytewise)
		return false;
	old = MemoryContextSwitchTo(matcher->scratch);
	equal = key_equal_values(matcher, stored, stored_size, probe, probe_size);
	MemoryContextSwitchTo(old);
	MemoryContextReset(matcher->scratch);
	return equal;
}
