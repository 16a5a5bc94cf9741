/*
 * base/giving.c
 *		Which view gives rows. What the functions promise is in base/giving.h.
 */
#include "postgres.h"

#include "base/giving.h"

static Giving giving_now;

const Giving *
streamext_giving(void)
{
	return &giving_now;
}

void
streamext_giving_begin(const Giving *giving)
{
	giving_now = *giving;
}

void
streamext_giving_end(void)
{
	memset(&giving_now, 0, sizeof(giving_now));
}
