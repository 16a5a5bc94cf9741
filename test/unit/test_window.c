#include "postgres.h"

#include "view/window.h"
#include "unit.h"

/* Every window of a time holds it, is made of the panes that say so, and no window beside them does. */
static void
window_check(WindowKind kind, int64 size, int64 slide, int64 origin)
{
	Window window = { .kind = kind, .size = size, .slide = slide, .origin = origin };
	uint64 seed = size ^ slide;

	streamext_window_finish(&window);
	for (int i = 0; i < 2000; i++)
	{
		TimestampTz t, first, last;
		int64		pane;

		seed = seed * UINT64CONST(6364136223846793005) + 1442695040888963407;
		t = (int64) (seed >> 16) % INT64CONST(2000000000000000) - INT64CONST(1000000000000000);
		pane = streamext_window_pane(&window, t);
		CHECK(streamext_window_pane_end(&window, pane) > t);
		CHECK(streamext_window_pane(&window, streamext_window_pane_end(&window, pane)) > pane);
		streamext_window_starts(&window, pane, &first, &last);
		for (TimestampTz start = first; start <= last; start += slide)
		{
			int64 from, to;

			streamext_window_pane_range(&window, start, &from, &to);
			CHECK(start <= t && t < start + size && from <= pane && pane <= to);
			CHECK(streamext_window_end(&window, start) == start + size);
			CHECK(streamext_window_pane(&window, start) == from);
			CHECK(streamext_window_pane(&window, start + size - 1) == to);
		}
		CHECK(t >= first - slide + size && t < last + slide);
	}
}

void
test_window(void)
{
	window_check(WINDOW_TUMBLE, 60000000, 60000000, 0);
	window_check(WINDOW_TUMBLE, 7, 7, 3);
	window_check(WINDOW_HOP, 60000000, 10000000, 0);
	window_check(WINDOW_HOP, 90, 20, 0);
	window_check(WINDOW_HOP, 10, 7, -3);
	CHECK(!SERVER_TRY({
		Window window = { .kind = WINDOW_HOP, .size = INT64CONST(1000000000000), .slide = 1 };
		streamext_window_finish(&window);
	}));
}
