#include "postgres.h"

#include "mb/pg_wchar.h"

#include "base/clip.h"
#include "unit.h"

/* Whatever the buffer's size: whole characters, as many as fit. */
void
test_clip(void)
{
	const char *text = "aä€😀b";
	const int	ends[] = { 0, 1, 3, 6, 10, 11 };
	char	   *to = palloc(16);

	for (int size = 1; size <= 16; size++)
	{
		int fits = 0;

		for (int i = 0; i < lengthof(ends); i++)
			if (ends[i] < size)
				fits = ends[i];
		streamext_clip(to, text, size);
		CHECK(strlen(to) == fits && memcmp(to, text, fits) == 0);
		streamext_clip_format(to, size, "%s", text);
		CHECK(strlen(to) == fits && memcmp(to, text, fits) == 0);
		streamext_clip(to, "\xff\xf0\xf0", size);
		CHECK(strlen(to) < size);
		streamext_clip_format(to, size, "\xff%s", "\xf0\xf0");
		CHECK(strlen(to) < size);
	}
}
