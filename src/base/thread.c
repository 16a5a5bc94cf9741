/*
 * base/thread.c
 *		Threads of a process of PostgreSQL's. What the functions promise is in base/thread.h.
 */
#include "postgres.h"

#include <signal.h>
#include <time.h>

#include "base/thread.h"

int
streamext_thread_start(pthread_t *thread, void *(*run)(void *), void *arg)
{
	sigset_t all, saved;
	int		 err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &saved);
	err = pthread_create(thread, NULL, run, arg);
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
	return err;
}

void
streamext_thread_cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attributes;

	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &attributes);
	pthread_condattr_destroy(&attributes);
}
