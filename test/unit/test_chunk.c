#include "postgres.h"

#include "base/chunk.h"
#include "unit.h"

/* All that is handed out lies apart, and all of it comes back. */
void
test_chunk(void)
{
	static LWLock lock;
	char		 *chunks[512];
	Size		  sizes[512];
	uint64		  seed = 1;

	streamext_memory_limit_mb = 16;
	streamext_chunk_shmem_init(&lock);
	for (int round = 0; round < 20; round++)
	{
		int	  n = 0;
		void *whole;

		for (; n < lengthof(chunks); n++)
		{
			seed = seed * UINT64CONST(6364136223846793005) + 1442695040888963407;
			chunks[n] = streamext_chunk_alloc(1 + (seed >> 33) % (100 * 1024), &sizes[n]);
			if (chunks[n] == NULL)
				break;
			memset(chunks[n], n, sizes[n]);
			CHECK(STREAMEXT_PTR(STREAMEXT_REF(chunks[n])) == chunks[n] && STREAMEXT_REF(chunks[n]) != 0);
		}
		CHECK(n > 100);
		for (int i = 0; i < n; i++)
			CHECK((unsigned char) chunks[i][0] == (i & 255) && (unsigned char) chunks[i][sizes[i] - 1] == (i & 255));
		for (int i = 0; i < n; i++)
			if ((i + round) % 2 == 0)
				streamext_chunk_free(chunks[i]);
		for (int i = 0; i < n; i++)
			if ((i + round) % 2 != 0)
				streamext_chunk_free(chunks[i]);
		whole = streamext_chunk_alloc(8 * 1024 * 1024, NULL);
		CHECK(whole != NULL);
		if (whole != NULL)
			streamext_chunk_free(whole);
	}
}
