/*
 * fuzz/fuzz.h
 *		What the fuzzers have in common. A target is a file <name>.c whose line "sources:" names the files of src/ that it is linked
 *		with, beside unit/server.c; test/fuzz/README.md shows how to add one.
 */
#ifndef STREAMEXT_FUZZ_H
#define STREAMEXT_FUZZ_H

#include "server.h"

extern int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What must hold; the fuzzer keeps the input for which it does not. */
#define REQUIRE(condition)                                                                            \
	do                                                                                                \
	{                                                                                                 \
		if (!(condition))                                                                             \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition), __builtin_trap(); \
	} while (0)

/* Input is taken from the front; where it has ended come zeros. */
typedef struct FuzzInput
{
	const uint8_t *data;
	size_t		   size;
} FuzzInput;

static inline void
fuzz_bytes(FuzzInput *in, void *to, size_t size)
{
	size_t some = size < in->size ? size : in->size;

	memset(to, 0, size);
	if (some > 0)
		memcpy(to, in->data, some);
	in->data += some;
	in->size -= some;
}

static inline uint32
fuzz_number(FuzzInput *in, uint32 below)
{
	uint32 number = 0;

	fuzz_bytes(in, &number, below <= 256 ? 1 : below <= 65536 ? 2 : 4);
	return number % below;
}

/* As many bytes as there are to come, and less than `below`. */
static inline uint32
fuzz_size(FuzzInput *in, uint32 below)
{
	uint32 size = fuzz_number(in, below);

	return size < in->size ? size : (uint32) in->size;
}

/* The next size bytes in memory of their own, so that a step beyond them is seen. */
static inline char *
fuzz_copy(FuzzInput *in, size_t size)
{
	char *copy = palloc(size < in->size ? size : in->size);

	size = size < in->size ? size : in->size;
	fuzz_bytes(in, copy, size);
	return copy;
}

/* A NUL-terminated text of at most size bytes, up to the first NUL. */
static inline char *
fuzz_text(FuzzInput *in, size_t size)
{
	size_t length = 0;
	char  *text;

	while (length < size && length < in->size && in->data[length] != 0)
		length++;
	text = palloc(length + 1);
	fuzz_bytes(in, text, length);
	text[length] = '\0';
	if (in->size > 0)
		in->data++, in->size--;
	return text;
}

#endif /* STREAMEXT_FUZZ_H */
